import zipfile
from pathlib import Path

import pytest

from ocr_model.errors import BadInput, NothingToDo, UnreadablePage
from pipelines.corpus import SourceFile
from pipelines.pairing import NO_IMAGE, NO_TRUTH, TRUTH, find_pairs, name_of, read_truth_bytes


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"text")


def told(sources: list[SourceFile], root: Path) -> dict[str, tuple[str, str]]:
    """Name of each source → what its metadata tell of truth."""
    found = {}
    for source in sources:
        ((column, value),) = [pair for pair in source.metadata if pair[0] in (TRUTH, NO_TRUTH, NO_IMAGE)]
        found[source.origin.removeprefix(f"{root}/")] = (column, value.removeprefix(f"{root}/"))
    return found


def test_truth_is_found_beside_images_and_the_rest_is_listed(tmp_path: Path) -> None:
    put(tmp_path, "a/1.png", "a/1.gt.txt", "a/2.png", "b/c/3.gt.txt", "a/4.png", "a/4.tif", "a/4.gt.txt")
    assert told(find_pairs([str(tmp_path)], "out"), tmp_path) == {
        "a/1.png": (TRUTH, "a/1.gt.txt"),
        "a/2.png": (NO_TRUTH, "no-truth"),
        "a/4.png": (NO_TRUTH, "ambiguous"),
        "a/4.tif": (NO_TRUTH, "ambiguous"),
        "a/4.gt.txt": (NO_IMAGE, "ambiguous"),
        "b/c/3.gt.txt": (NO_IMAGE, "no-image"),
    }


def test_truth_of_files_that_are_named_is_found_too(tmp_path: Path) -> None:
    put(tmp_path, "1.png", "1.gt.txt", "2.png", "2.gt.txt")
    found = told(find_pairs([f"{tmp_path}/1.png"], "out"), tmp_path)
    assert found["1.png"] == (TRUTH, "1.gt.txt")


def test_truth_in_another_folder_is_found_by_the_name_that_it_gives(tmp_path: Path) -> None:
    put(tmp_path, "images/1.png")
    (tmp_path / "page").mkdir()
    (tmp_path / "page/one.xml").write_text(
        '<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">'
        '<Page imageFilename="images/1.png" imageWidth="10" imageHeight="10"/></PcGts>'
    )
    assert told(find_pairs([str(tmp_path)], "out"), tmp_path) == {"images/1.png": (TRUTH, "page/one.xml")}


def test_hidden_files_and_the_output_are_no_truth(tmp_path: Path) -> None:
    put(tmp_path, "1.png", ".2.gt.txt", ".x/3.gt.txt", "out/4.gt.txt")
    assert list(told(find_pairs([str(tmp_path)], f"{tmp_path}/out"), tmp_path)) == ["1.png"]


def test_members_of_archives_are_paired(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "box.zip", "w") as box:
        for name in ("a/1.png", "a/1.gt.txt", "a/2.gt.txt"):
            box.writestr(name, f"text of {name}")
    sources = find_pairs([f"{tmp_path}/box.zip"], "out")
    assert told(sources, tmp_path) == {
        "box.zip!a/1.png": (TRUTH, "box.zip!a/1.gt.txt"),
        "box.zip!a/2.gt.txt": (NO_IMAGE, "no-image"),
    }
    assert read_truth_bytes(dict(sources[0].metadata)[TRUTH]) == b"text of a/1.gt.txt"


def test_manifest_names_truths_relative_to_itself(tmp_path: Path) -> None:
    put(tmp_path, "lists/x", "scans/1.png", "truth/one.gt.txt", "scans/2.png", "scans/2.gt.txt")
    (tmp_path / "list.csv").write_text("path,truth,language\nscans/1.png,truth/one.gt.txt,de\nscans/2.png,,\n")
    found = find_pairs([f"{tmp_path}/list.csv"], "out")
    assert told(found, tmp_path) == {
        "scans/1.png": (TRUTH, "truth/one.gt.txt"),
        "scans/2.png": (TRUTH, "scans/2.gt.txt"),
    }
    assert ("language", "de") in found[0].metadata
    (tmp_path / "lists/list.csv").write_text(f"path\n{tmp_path}/scans/2.png\n")
    with pytest.raises(BadInput, match="relative to one of several manifests"):
        find_pairs([f"{tmp_path}/list.csv", f"{tmp_path}/lists/list.csv"], "out")


def test_manifest_without_paths_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,language\n1.png,de\n")
    with pytest.raises(BadInput, match=r"list\.csv, line 1: the header has no column `path`"):
        find_pairs([f"{tmp_path}/list.csv"], "out")


def test_folder_of_truths_alone_is_listed_and_an_empty_one_is_nothing_to_do(tmp_path: Path) -> None:
    put(tmp_path, "a/1.gt.txt", "b/readme")
    assert told(find_pairs([f"{tmp_path}/a"], "out"), tmp_path) == {"a/1.gt.txt": (NO_IMAGE, "no-image")}
    with pytest.raises(NothingToDo):
        find_pairs([f"{tmp_path}/b"], "out")


def test_missing_truth_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadablePage) as caught:
        read_truth_bytes(str(tmp_path / "gone.gt.txt"))
    assert caught.value.reason == "unreadable-file"


def test_names_do_not_tell_where_the_corpus_lies() -> None:
    assert name_of(SourceFile("/x/1.jpg", "a/1")) == name_of(SourceFile("gs://b/a/1.jpg", "a/1")) == "a/1.jpg"
    assert name_of(SourceFile("/x/1.jpg", "a/1.jpg")) == "a/1.jpg"


def test_names_of_a_manifest_need_no_truth_beside(tmp_path: Path) -> None:
    put(tmp_path, "1.png")
    (tmp_path / "list.jsonl").write_text('{"path": "1.png", "split": "test"}\n')
    (source,) = find_pairs([f"{tmp_path}/list.jsonl"], "out")
    assert dict(source.metadata) == {"split": "test", "no_truth": "no-truth"}
