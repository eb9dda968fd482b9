import os
from pathlib import Path

import pytest

from ocr_model.errors import BadInput, NothingToDo
from pipelines.corpus import find_sources, read_bytes


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def stems(root: Path, *inputs: str, output: str = "out") -> dict[str, str]:
    """Relative path of each file -> its stem."""
    found = find_sources([str(root / name) for name in inputs], str(root / output))
    return {os.path.relpath(source.path, root): source.stem for source in found}


def test_folder_is_walked_for_images_and_keeps_its_structure(tmp_path: Path) -> None:
    tree(tmp_path, "in/a/b/scan.JPG", "in/top.tif", "in/notes.txt", "in/.cache/x.png", "in/._top.tif")
    assert stems(tmp_path, "in") == {"in/a/b/scan.JPG": "a/b/scan", "in/top.tif": "top"}


def test_named_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    tree(tmp_path, "a/b/letter.scan")
    assert stems(tmp_path, "a/b/letter.scan") == {"a/b/letter.scan": "letter"}


def test_glob_keeps_the_structure_after_its_fixed_part(tmp_path: Path) -> None:
    tree(tmp_path, "in/1901/p.png", "in/1902/p.png", "in/1902/p.txt", "in/index.html")
    expected = {"in/1901/p.png": "1901/p", "in/1902/p.png": "1902/p"}
    assert stems(tmp_path, "in/*/p*") == stems(tmp_path, "in/**/*.png") == expected


def test_wildcards_in_a_name_are_no_pattern_if_the_file_is_there(tmp_path: Path) -> None:
    tree(tmp_path, "scan[1].png", "scan1.png")
    assert stems(tmp_path, "scan[1].png") == {"scan[1].png": "scan[1]"}


@pytest.mark.parametrize("name", ["with space.png", "two\nlines.png", "😀.png", "a:b.png", "a...png", "-x.png"])
def test_odd_names_are_kept(tmp_path: Path, name: str) -> None:
    tree(tmp_path, f"in/{name}")
    assert stems(tmp_path, "in") == {f"in/{name}": name[:-4]}
    (source,) = find_sources([str(tmp_path / "in")], str(tmp_path / "out"))
    assert read_bytes(source.path, 10) == b"x"


def test_name_that_is_no_unicode_is_kept(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.png")).write_bytes(b"x")
    assert stems(tmp_path, "in") == {"in/caf\udce9.png": "caf\udce9"}


def test_files_that_differ_in_the_extension_keep_it(tmp_path: Path) -> None:
    tree(tmp_path, "in/scan.jpg", "in/scan.tif", "in/scan.jpg.png", "in/other.png")
    assert stems(tmp_path, "in") == {
        "in/scan.jpg": "scan.jpg",
        "in/scan.tif": "scan.tif",
        "in/scan.jpg.png": "scan.jpg.png",
        "in/other.png": "other",
    }


def test_same_name_in_two_inputs_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, "a/scan.jpg", "b/scan.jpg")
    with pytest.raises(BadInput, match=r"a/scan.jpg and .*b/scan.jpg would both become scan.jpg"):
        stems(tmp_path, "a", "b")


def test_file_given_twice_is_read_once(tmp_path: Path) -> None:
    tree(tmp_path, "in/scan.jpg")
    assert stems(tmp_path, "in", "in/scan.jpg", "in/*.jpg") == {"in/scan.jpg": "scan"}


def test_output_below_the_input_is_no_input(tmp_path: Path) -> None:
    tree(tmp_path, "scan.jpg", "out/overlay/scan.jpg")
    assert stems(tmp_path, ".") == {"scan.jpg": "scan"}
    with pytest.raises(BadInput, match="lies in the output folder"):
        stems(tmp_path, "out/overlay")


def test_ring_of_links_ends(tmp_path: Path) -> None:
    tree(tmp_path, "in/scan.jpg")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    assert stems(tmp_path, "in") == {"in/scan.jpg": "scan"}


@pytest.mark.parametrize("name", ["missing.jpg", "missing*"])
def test_missing_input_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="missing"):
        stems(tmp_path, name)


def test_folder_without_images_is_nothing_to_do(tmp_path: Path) -> None:
    tree(tmp_path, "in/notes.txt")
    with pytest.raises(NothingToDo, match="no image in"):
        stems(tmp_path, "in")


def test_bytes_over_the_limit_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(100))
    assert len(read_bytes(str(tmp_path / "big"), 10)) == 11
