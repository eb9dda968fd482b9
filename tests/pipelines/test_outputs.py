from pathlib import Path

import pytest

from ocr_model.errors import BadInput
from pipelines.outputs import AtomicFile, prepare_output, remove_partial, write_atomically


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    file = AtomicFile(str(tmp_path), "a/b.txt")
    file.write("half, ")
    assert not (tmp_path / "a/b.txt").exists()
    file.write(b"whole")
    file.commit()
    remove_partial(str(tmp_path))
    assert files(tmp_path) == ["a/b.txt"]
    assert (tmp_path / "a/b.txt").read_text() == "half, whole"


def test_discarded_file_leaves_nothing(tmp_path: Path) -> None:
    file = AtomicFile(str(tmp_path), "b.txt")
    file.discard()
    assert files(tmp_path) == []


def test_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_atomically(str(tmp_path), "b.txt", "a longer text")
    write_atomically(str(tmp_path), "b.txt", "short")
    assert (tmp_path / "b.txt").read_text() == "short"


def test_text_that_is_no_unicode_is_still_written(tmp_path: Path) -> None:
    write_atomically(str(tmp_path), "b.txt", "caf\udce9 ß")
    assert (tmp_path / "b.txt").read_bytes() == b"caf\\udce9 \xc3\x9f"


def test_folder_in_the_place_of_a_file_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(str(tmp_path), "b.txt", "x")
    assert files(tmp_path) == []


def test_output_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write to"):
        prepare_output(str(tmp_path / "file" / "out"))
