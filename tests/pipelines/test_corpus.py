import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_model.errors import BadInput, NothingToDo
from pipelines.corpus import SourceFile, find_sources, read_bytes, read_source
from pipelines.stems import safe_path


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


@pytest.mark.parametrize(
    "name", ["with space.png", 'it\'s "1".png', "😀.png", "a:b.png", "a...png", "-x.png", "a\\b.png"]
)
def test_odd_names_are_kept(tmp_path: Path, name: str) -> None:
    tree(tmp_path, f"in/{name}")
    assert stems(tmp_path, "in") == {f"in/{name}": name[:-4]}
    (source,) = find_sources([str(tmp_path / "in")], str(tmp_path / "out"))
    assert read_bytes(source.path, 10) == b"x"


def test_control_characters_in_a_name_are_percent_encoded(tmp_path: Path) -> None:
    tree(tmp_path, "in/two\nlines\x7f/\x1b[31m\x85.png")
    (source,) = find_sources([str(tmp_path / "in")], str(tmp_path / "out"))
    assert source.stem == "two%0Alines%7F/%1B[31m%C2%85"
    assert read_source(source, 10) == b"x"


@pytest.mark.parametrize("letter", ["x", "é", "😀", "\udce9"])
def test_long_name_is_shortened_to_what_fits_with_an_extension(tmp_path: Path, letter: str) -> None:
    width = len(os.fsencode(letter))
    names = [f"{letter * (250 // width - 1)}{end}" for end in ("1.png", "2.png", "2.jpg")]
    tree(tmp_path, *(f"in/{name}" for name in names))
    found = find_sources([str(tmp_path / "in")], str(tmp_path / "out"))
    assert len({source.stem for source in found}) == 3
    assert all(150 < len(os.fsencode(source.stem)) < 200 for source in found)
    assert found == find_sources([str(tmp_path / "in")], str(tmp_path / "out"))


@given(st.text(alphabet=st.sampled_from("a.%/~\\\n\0\x85é\ud800\udce9"), max_size=12) | st.text(max_size=300))
def test_safe_path_stays_below_and_can_be_written(name: str) -> None:
    path = safe_path(name)
    assert not any(part in ("", ".", "..") for part in path.split("/")) or path == ""
    assert all(len(os.fsencode(part)) <= 200 for part in path.split("/"))
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in path)
    assert safe_path(path) == path


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


@given(
    st.lists(st.from_regex(r"[ab](\.(jpg|tif|png)){1,3}", fullmatch=True), min_size=1, max_size=12, unique=True),
)
def test_stems_are_the_shortest_that_differ(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree(Path(folder), *names)
        found = {os.path.basename(s.path): s.stem for s in find_sources([folder], f"{folder}/out")}
    assert found == by_rounds(names)


def by_rounds(names: list[str]) -> dict[str, str]:
    """In every round, whoever shares its stem takes its extension back."""
    found = {name: os.path.splitext(name)[0] for name in names}
    while True:
        stems = list(found.values())
        shared = [name for name, stem in found.items() if stems.count(stem) > 1 and stem != name]
        if not shared:
            return found
        found.update({name: name for name in shared})


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


def test_links_to_files_and_folders_are_followed_and_to_nothing_are_listed(tmp_path: Path) -> None:
    tree(tmp_path, "other/1.jpg")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/folder").symlink_to(tmp_path / "other")
    (tmp_path / "in/file.jpg").symlink_to(tmp_path / "other/1.jpg")
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "in/itself.jpg").symlink_to(tmp_path / "in/itself.jpg")
    found = {source.stem: source.size for source in find_sources([str(tmp_path / "in")], str(tmp_path / "out"))}
    assert found == {"folder/1": 1, "file": 1, "gone": None, "itself": None}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "in/closed/1.jpg")
    (tmp_path / "in/closed").chmod(0)
    try:
        with pytest.raises(BadInput, match=r"cannot read the folder .*in/closed/: Permission denied"):
            stems(tmp_path, "in")
    finally:
        (tmp_path / "in/closed").chmod(0o700)


def test_error_of_a_folder_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, "in/1.jpg")

    def refuse(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BadInput, match=r"cannot read the folder .*/in/: Permission denied \(check its permissions\)"):
        stems(tmp_path, "in")


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in/scan.jpg")
    (source,) = find_sources([str(tmp_path / "in")], str(tmp_path / "out"))
    with pytest.raises(OSError, match="not a regular file"):
        read_source(source, 10)


def test_sizes_come_with_the_listing(tmp_path: Path) -> None:
    tree(tmp_path, "in/1.jpg")
    for name in ["in", "in/1.jpg", "in/*.jpg"]:
        (source,) = find_sources([str(tmp_path / name)], str(tmp_path / "out"))
        assert source == SourceFile(str(tmp_path / "in/1.jpg"), "1", 1)


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


def test_a_folder_and_a_file_that_cannot_be_opened_are_errors_of_reading(tmp_path: Path) -> None:
    for path in [str(tmp_path), str(tmp_path / "gone"), "zero\0byte", "half\ud800"]:
        with pytest.raises(OSError, match=r"directory|embedded null byte|surrogates not allowed"):
            read_bytes(path, 10)
