import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocr_model.errors import BadArgument, BadInput, BadModel, NothingToDo, PagemillError
from pipelines.corpus import SourceFile
from pipelines.progress import Summary
from pipelines.transcribe import (
    DeadLetter,
    FileDone,
    PageReader,
    TranscribeOptions,
    check_books,
    run,
    transcribe_files,
)
from tests import scans
from tests.pipelines.readers import SizeReader


def options_for(root: Path, *formats: str, **changes: Any) -> TranscribeOptions:
    changes = {"inputs": (str(root / "in"),), "formats": formats or ("txt",), "reader": SizeReader} | changes
    return TranscribeOptions(output=str(root / "out"), **changes)


def put(root: Path, files: dict[str, bytes]) -> list[SourceFile]:
    for name, data in files.items():
        (root / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "in" / name).write_bytes(data)
    return [SourceFile(str(root / "in" / name), name.rpartition(".")[0]) for name in files]


def png(width: int, height: int, ink: int = 0) -> bytes:
    return scans.encoded(scans.picture(width, height, ink), "PNG")


def texts(root: Path) -> dict[str, str]:
    folder = root / "out" / "txt"
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def dead_letters(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "out" / "dead_letters.jsonl").read_text().splitlines()]


STRANGE = {
    "a/good.jpg": scans.encoded(scans.picture(40, 30), "JPEG"),
    "a/b/also good.png": png(50, 60),
    "blank.png": png(40, 40, ink=255),
    "dot.png": scans.encoded(Image.new("L", (1, 1), 255), "PNG"),
    "cmyk.jpg": scans.encoded(scans.picture(31, 32).convert("RGB").convert("CMYK"), "JPEG"),
    "deep.tif": scans.encoded(Image.fromarray(np.zeros((20, 21), np.uint16)), "TIFF"),
    "bilevel.tif": scans.encoded(scans.picture(22, 23).convert("1"), "TIFF", compression="group4"),
    "empty.jpg": b"",
    "text.jpg": b"Dear Sir,",
    "half.jpg": scans.encoded(scans.picture(400, 400), "JPEG")[:900],
    "huge.png": scans.one_colour_png(40_000, 40_000),
    "locked.pdf": scans.encrypted_pdf(),
    "flat.pdf": scans.pdf(["0 0 0 0"]),
    "unlucky.png": png(13, 13),
}

STRANGE_TEXTS = {
    "a/b/also good.txt": "50x60\n",
    "a/good.txt": "40x30\n",
    "bilevel.txt": "22x23\n",
    "blank.txt": "",
    "cmyk.txt": "31x32\n",
    "deep.txt": "21x20\n",
    "dot.txt": "",
}

STRANGE_DEATHS = [
    ("empty.jpg", None, "open", "empty-file"),
    ("flat.pdf", 1, "decode", "zero-size"),
    ("half.jpg", 1, "decode", "truncated"),
    ("huge.png", 1, "decode", "too-many-pixels"),
    ("locked.pdf", None, "open", "encrypted"),
    ("text.jpg", None, "open", "not-an-image"),
    ("unlucky.png", 1, "read", "reader-failed"),
]


def test_every_strange_file_ends_as_text_or_as_one_dead_letter(tmp_path: Path) -> None:
    put(tmp_path, STRANGE)
    summary = run(options_for(tmp_path))
    assert texts(tmp_path) == STRANGE_TEXTS
    found = [(Path(d["path"]).name, d["page"], d["stage"], d["reason"]) for d in dead_letters(tmp_path)]
    assert found == STRANGE_DEATHS
    assert (summary.files, summary.pages, summary.read, summary.failed) == (14, 14, 7, 7)
    assert summary.failures["encrypted"] == 1
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["dead_letters.jsonl", "run.json", "txt"]


def test_all_formats_of_a_document_with_a_bad_page(tmp_path: Path) -> None:
    put(tmp_path, {"book.pdf": scans.pdf(["0 0 24 24", "0 0 0 0", "0 0 48 24"])})
    summary = run(options_for(tmp_path, "txt", "jsonl", "hocr", "overlay"))
    assert texts(tmp_path) == {"book.txt": "100x100\n\f\f200x100\n"}
    records = [json.loads(line) for line in (tmp_path / "out/jsonl/book.jsonl").read_text().splitlines()]
    assert [(r["page"], r["text"]) for r in records] == [(1, "100x100"), (3, "200x100")]
    assert (tmp_path / "out/hocr/book.hocr").read_text().count('class="ocr_page"') == 2
    assert sorted(p.name for p in (tmp_path / "out/overlay").iterdir()) == ["book.page-0001.jpg", "book.page-0003.jpg"]
    assert (summary.pages, summary.read, summary.lines, dict(summary.failures)) == (3, 2, 2, {"zero-size": 1})


def test_a_second_run_replaces_the_dead_letters(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": b"", "b.png": png(20, 20)})
    run(options_for(tmp_path))
    assert len(dead_letters(tmp_path)) == 1
    put(tmp_path, {"a.png": png(30, 30)})
    run(options_for(tmp_path))
    assert dead_letters(tmp_path) == []
    assert texts(tmp_path) == {"a.txt": "30x30\n", "b.txt": "20x20\n"}


def test_single_lines_are_read_without_finding(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": png(20, 20)})
    run(options_for(tmp_path, single_line=True))
    assert texts(tmp_path) == {"a.txt": "line\n"}


@pytest.mark.parametrize("mode", ["in_memory", "multi_threading"])
def test_two_workers_do_what_one_does(tmp_path: Path, mode: str) -> None:
    put(tmp_path, {f"{n}.png": png(20 + n, 20) for n in range(9)})
    flags = ["--direct_num_workers=2", f"--direct_running_mode={mode}"]
    assert run(options_for(tmp_path, files_at_once=2), flags).read == 9
    assert texts(tmp_path) == {f"{n}.txt": f"{20 + n}x20\n" for n in range(9)}


def no_model(bundle: str | None) -> PageReader:
    raise BadModel(f"{bundle} is no bundle")


def test_bad_model_shows_before_anything_is_read(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": png(20, 20)})
    with pytest.raises(BadModel, match="nowhere is no bundle"):
        run(options_for(tmp_path, bundle="nowhere", reader=no_model))


def test_input_and_output_are_checked_first(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        run(options_for(tmp_path))
    put(tmp_path, {"notes.txt": b"x"})
    with pytest.raises(NothingToDo):
        run(options_for(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot write to"):
        run(TranscribeOptions(inputs=(str(tmp_path / "in"),), output=str(tmp_path / "file" / "out"), reader=SizeReader))


def test_unknown_format_is_refused() -> None:
    with pytest.raises(BadArgument, match="unknown format: docx"):
        TranscribeOptions(inputs=("a",), output="b", formats=("txt", "docx"))


# What a worker does, without Beam.


def test_pages_of_several_files_are_read_together_within_the_bounds(tmp_path: Path) -> None:
    sources = put(tmp_path, {f"{n}.png": png(20, 20) for n in range(5)} | {"big.png": png(60, 20), "c.png": b""})
    reader = SizeReader()
    options = options_for(tmp_path, pages_at_once=3, pixels_at_once=1000)
    done = [e for e in transcribe_files(sources, reader, options) if isinstance(e, FileDone)]
    assert len(done) == 7
    assert reader.batches == [2, 2, 1, 1]  # two pages of 400 pixels; the big one alone


def test_page_that_breaks_the_reader_does_not_take_its_batch_along(tmp_path: Path) -> None:
    sources = put(tmp_path, {"a.png": png(20, 20), "b.png": png(13, 20), "c.png": png(30, 20)})
    events = list(transcribe_files(sources, SizeReader(), options_for(tmp_path)))
    assert [e for e in events if isinstance(e, DeadLetter)] == [
        DeadLetter(sources[1].path, 1, "read", "ArithmeticError", "reader-failed", "unlucky page")
    ]
    assert texts(tmp_path) == {"a.txt": "20x20\n", "c.txt": "30x20\n"}


class ForgetfulReader(SizeReader):
    def read(self, images: Any) -> list[Any]:
        return super().read(images)[:1]


def test_reader_that_loses_pages_is_found_out(tmp_path: Path) -> None:
    sources = put(tmp_path, {"a.png": png(20, 20), "b.png": png(21, 20)})
    list(transcribe_files(sources, ForgetfulReader(), options_for(tmp_path)))
    assert texts(tmp_path) == {"a.txt": "20x20\n", "b.txt": "21x20\n"}


def test_output_name_that_cannot_be_written_is_a_dead_letter(tmp_path: Path) -> None:
    sources = put(tmp_path, {"a.txt/b.png": png(20, 20), "a.png": png(20, 20)})
    events = list(transcribe_files(sources, SizeReader(), options_for(tmp_path)))
    (letter,) = [e for e in events if isinstance(e, DeadLetter)]
    assert (Path(letter.path).name, letter.page, letter.stage, letter.reason) == ("a.png", 1, "write", "bad-name")
    assert [e.read for e in events if isinstance(e, FileDone)] == [1, 0]


def test_file_that_vanished_is_a_dead_letter(tmp_path: Path) -> None:
    gone = SourceFile(str(tmp_path / "gone.png"), "gone")
    letter, done = transcribe_files([gone], SizeReader(), options_for(tmp_path))
    assert isinstance(letter, DeadLetter) and (letter.stage, letter.error) == ("open", "FileNotFoundError")
    assert done == FileDone(gone.path, pages=1, read=0, lines=0)


def test_outputs_of_an_interrupted_run_do_not_appear(tmp_path: Path) -> None:
    sources = put(tmp_path, {"a.tif": scans.tiff([scans.picture()] * 3)})
    events = transcribe_files(sources, InterruptedReader(), options_for(tmp_path, pages_at_once=1))
    with pytest.raises(KeyboardInterrupt):
        list(events)
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


class InterruptedReader(SizeReader):
    def read(self, images: Any) -> list[Any]:
        if self.batches:
            raise KeyboardInterrupt
        return super().read(images)


@pytest.mark.parametrize(("files_done", "read"), [(1, 3), (2, 2)])
def test_books_that_do_not_balance_fail_the_run(files_done: int, read: int) -> None:
    summary = Summary("out", ("txt",), files=2, pages=4, read=read, lines=0, failures={"truncated": 1})
    with pytest.raises(PagemillError, match="books do not balance"):
        check_books(summary, files_done)
