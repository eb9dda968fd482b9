import json
from pathlib import Path

import pytest

from ocr_model.errors import BadInput
from pipelines.evaluate import EvaluateOptions, evaluate, report_to_json, table


def put(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> EvaluateOptions:
    truth = {"a/x/1.gt.txt": "abcd", "a/y/2.gt.txt": "abcdefgh", "b/3.gt.txt": "TEN CHARS!", "a/x/1.txt": "not truth"}
    predicted = {"a/x/1.txt": "abxd\n", "b/3.txt": "ten chars!\n", "b/4.txt": "extra"}
    return EvaluateOptions(put(tmp_path / "truth", truth), put(tmp_path / "out", predicted))


def changed(options: EvaluateOptions, **changes: object) -> EvaluateOptions:
    return EvaluateOptions(**{**vars(options), **changes})


def test_missing_prediction_counts_as_empty_and_is_named(folders: EvaluateOptions) -> None:
    report = evaluate(changed(folders, ignore_case=("b",)))
    assert [(p.name, p.score.edits) for p in report.pages] == [("a/x/1", 1), ("a/y/2", 8), ("b/3", 0)]
    assert report.missing == ("a/y/2",)
    assert report.extra == ("b/4",)
    assert report.overall().cer == 9 / 22


def test_case_counts_unless_a_pattern_says_no(folders: EvaluateOptions) -> None:
    assert evaluate(folders).by_group()["b"].cer == 0.8
    assert evaluate(changed(folders, ignore_case=("b/*",))).by_group()["b"].cer == 0


@pytest.mark.parametrize(
    ("changes", "groups"),
    [
        ({}, {"a/x": 1, "a/y": 1, "b": 1}),
        ({"group_by": "top"}, {"a": 2, "b": 1}),
        ({"group_by": "none"}, {".": 3}),
        ({"groups": {"*/2": "second"}, "group_by": "top"}, {"a": 1, "b": 1, "second": 1}),
    ],
)
def test_pages_are_grouped(folders: EvaluateOptions, changes: dict[str, object], groups: dict[str, int]) -> None:
    found = evaluate(changed(folders, **changes)).by_group()
    assert {name: totals.pages for name, totals in found.items()} == groups


def test_plain_txt_is_truth_where_there_is_no_gt_txt(tmp_path: Path) -> None:
    options = EvaluateOptions(put(tmp_path / "t", {"1.txt": "abc"}), put(tmp_path / "p", {"1.txt": "abc"}))
    assert evaluate(options).overall().cer == 0


def test_output_folder_of_transcribe_may_be_given_itself(tmp_path: Path) -> None:
    truth = put(tmp_path / "t", {"a/1.gt.txt": "abc"})
    out = put(tmp_path / "out", {"txt/a/1.txt": "abc", "jsonl/a/1.jsonl": "{}"})
    assert evaluate(EvaluateOptions(truth, out)).missing == ()


def test_predictions_beside_the_truth_are_not_the_truth(tmp_path: Path) -> None:
    folder = put(tmp_path, {"1.gt.txt": "abc", "1.txt": "abd"})
    report = evaluate(EvaluateOptions(folder, folder))
    assert (report.overall().cer, report.extra) == (1 / 3, ())


def test_nothing_in_common_is_an_error(tmp_path: Path) -> None:
    truth, other = put(tmp_path / "t", {"1.gt.txt": "abc"}), put(tmp_path / "p", {"2.txt": "abc"})
    with pytest.raises(BadInput, match=r"there is no 1\.txt"):
        evaluate(EvaluateOptions(truth, other))
    with pytest.raises(BadInput, match="no such folder"):
        evaluate(EvaluateOptions(truth, tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"no \.gt\.txt"):
        evaluate(EvaluateOptions(tmp_path / "empty", other))


def test_table_and_json_say_the_same(folders: EvaluateOptions) -> None:
    report = evaluate(folders)
    text, value = table(report), json.loads(report_to_json(report))
    assert value["all"]["cer"] == pytest.approx(17 / 22)
    assert "77.27" in next(line for line in text.splitlines() if line.startswith("all"))
    assert value["groups"]["a/x"]["cer"] == 0.25
    assert [page["name"] for page in value["pages"]] == ["a/x/1", "a/y/2", "b/3"]
    assert "no prediction, counted as empty (1): a/y/2" in text
    assert "no truth, not counted (1): b/4" in text
