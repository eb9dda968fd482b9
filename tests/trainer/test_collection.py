from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ocr_model.errors import BadInput
from tests.tiny_bundle import write_lines
from tests.trainer.small_records import example, write_records
from trainer.collection import as_cut, line_of, load_folder, load_records


def test_lines_are_divided_by_document(tmp_path: Path) -> None:
    found = load_folder(write_lines(tmp_path, ["ab"] * 40, documents=10), 0.4)
    held, learnt = ({line.document for line in part} for part in (found.validation, found.training))
    assert held and learnt and not held & learnt and not found.by_line
    assert len(found.training) + len(found.validation) == 40


def test_the_division_does_not_depend_on_what_else_is_there(tmp_path: Path) -> None:
    few = load_folder(write_lines(tmp_path / "few", ["ab"] * 20, documents=10), 0.4)
    many = load_folder(write_lines(tmp_path / "many", ["ab"] * 40, documents=20), 0.4)
    assert {line.document for line in few.validation} <= {line.document for line in many.validation}


def test_lines_of_one_document_are_divided_by_line(tmp_path: Path) -> None:
    found = load_folder(write_lines(tmp_path, ["ab"] * 40, documents=1), 0.3)
    assert found.by_line and 4 <= len(found.validation) <= 20


def test_two_lines_are_divided_and_one_is_too_few(tmp_path: Path) -> None:
    found = load_folder(write_lines(tmp_path / "two", ["ab", "b"], documents=1), 0.01)
    assert (len(found.training), len(found.validation)) == (1, 1)
    with pytest.raises(BadInput, match="one line with truth"):
        load_folder(write_lines(tmp_path / "one", ["ab"]), 0.5)


def test_lines_may_lie_in_the_folder_itself(tmp_path: Path) -> None:
    write_lines(tmp_path, ["ab", "b"])
    assert len(list(load_folder(tmp_path / "marks", 0.5).texts())) == 2
    assert len(list(load_folder(tmp_path / "marks" / "lines", 0.5).texts())) == 2


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path: Path) -> None:
    lines = write_lines(tmp_path, ["ab"] * 4) / "marks" / "lines"
    (lines / "a.gt.txt").write_text("no image")
    (lines / "b.gt.txt").write_text(" \n")
    (lines / "b.png").write_bytes((lines / "book0_0.png").read_bytes())
    (lines / "c.gt.txt").write_text("broken")
    (lines / "c.png").write_bytes(b"no picture")
    (lines / "d.gt.txt").write_bytes(b"\xff\xfe\xfa")
    (lines / "d.png").write_bytes((lines / "book0_0.png").read_bytes())
    found = load_folder(tmp_path, 0.5)
    assert len(list(found.texts())) == 4
    assert found.skipped == {"no image": 1, "no text": 1, "unreadable image": 1, "truth that is not UTF-8": 1}


def test_a_folder_without_lines_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(BadInput, match="no line with truth"):
            load_folder(folder, 0.5)


def test_training_lines_are_kept_small_and_validation_lines_as_they_are(tmp_path: Path) -> None:
    lines = write_lines(tmp_path, ["ab"] * 2, documents=1) / "marks" / "lines"
    for path in lines.glob("*.png"):
        cv2.imwrite(str(path), np.full((120, 300), 200, np.uint8))
    found = load_folder(tmp_path, 0.01)
    assert found.training[0].image.shape == (52, 130)
    assert as_cut(found.validation[0]).shape == (120, 300)


# ---- records


def test_records_keep_the_division_of_ingest(tmp_path: Path) -> None:
    examples = [example(1, "train"), example(2, "train"), example(3, "validation"), example(4, "test")]
    found = load_records(write_records(tmp_path, examples), 0.5)
    assert (len(found.training), len(found.validation)) == (2, 1)
    assert found.skipped == {"kept for the test": 1}
    assert found.training[0].margins == (8, 8, 8, 8)
    assert found.training[0].source == "de"


@pytest.mark.parametrize(
    ("name", "language", "source"),
    [("a/b/c.png", "fr", "fr"), ("a/b/c.png", "", "a"), ("c.png", "", "records")],
)
def test_the_source_of_a_record_is_its_language_or_its_first_folder(name: str, language: str, source: str) -> None:
    one = example(1, "train")
    assert line_of(replace(one, origin=replace(one.origin, name=name, language=language))).source == source


def test_records_without_validation_are_divided_by_document(tmp_path: Path) -> None:
    examples = [example(1, "train", f"book {n}") for n in range(20)]
    found = load_records(write_records(tmp_path, examples), 0.4)
    assert found.validation and not found.by_line


def test_records_with_a_doubtful_truth_are_left_out(tmp_path: Path) -> None:
    examples = [example(1, "train"), example(2, "validation"), example(3, "train", problem="text-outside-page")]
    found = load_records(write_records(tmp_path, examples), 0.5)
    assert found.skipped == {"text-outside-page": 1}


def test_a_recorded_line_is_cut_near_to_itself(tmp_path: Path) -> None:
    found = load_records(write_records(tmp_path, [example(1, "train"), example(2, "validation")]), 0.5)
    assert as_cut(found.validation[0]).shape == (40 + 2 * 2, 56 + 2 * 2)


def test_a_folder_without_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no records"):
        load_records(tmp_path, 0.5)
