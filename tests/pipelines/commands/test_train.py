"""The command line of the trainer. The whole way from scans to a bundle that transcribes is in the slow test."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ocr_model.bundle import load_bundle
from pipelines.cli import main


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Four documents of a page each, half a page of large letters."""
    pages = tmp_path / "data" / "books" / "pages"
    pages.mkdir(parents=True)
    meta = {}
    for number in range(4):
        image, lines = np.full((600, 500), 240, np.uint8), []
        for row in range(8):
            y, text = 60 + 60 * row, f"line {row} of page {number}"
            cv2.putText(image, text, (40, y), cv2.FONT_HERSHEY_COMPLEX, 0.9, 20, 2, cv2.LINE_AA)
            lines.append({"bbox": [40, y - 24, 440, y + 8], "text": text, "baseline": [[40, y], [440, y]]})
        cv2.imwrite(str(pages / f"p{number}.png"), image)
        (pages / f"p{number}.lines.json").write_text(json.dumps(lines))
        meta[f"books/pages/p{number}"] = {"doc": f"document {number}", "complete": True}
    (tmp_path / "data" / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "en_words.txt").write_text("A few words that make a line of text, and some more.\n" * 20)
    return tmp_path


def test_a_missing_folder_is_named_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["train", "recogniser", "--data", str(tmp_path / "none"), "--output", str(tmp_path / "run")])
    assert code == 2
    assert "no data folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_export_of_something_that_is_no_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = tmp_path / "note.md"
    note.write_text("data")
    runs = ["--recogniser", str(tmp_path), "--finder", str(tmp_path)]
    assert main(["export", *runs, "--data-note", str(note), "--output", str(tmp_path / "bundle")]) == 2
    assert "not a training run" in capsys.readouterr().err


@pytest.mark.slow
def test_from_scans_to_a_bundle_that_transcribes(corpus: Path) -> None:
    data, text, short = (
        str(corpus / "data"),
        str(corpus / "text"),
        ["--steps", "2", "--validate-every", "2", "--validation-share", "0.5"],
    )
    for network in ("recogniser", "finder"):
        arguments = ["train", network, "--data", data, "--text", text, "--output", str(corpus / network), *short]
        assert main(arguments) == 0
    note = corpus / "note.md"
    note.write_text("four pages of our own")
    runs = ["--recogniser", str(corpus / "recogniser"), "--finder", str(corpus / "finder")]
    assert main(["export", *runs, "--data-note", str(note), "--output", str(corpus / "bundle")]) == 0
    assert "four pages of our own" in (corpus / "bundle" / "MODEL_CARD.md").read_text()
    assert str(corpus) not in (corpus / "bundle" / "config.json").read_text()
    assert load_bundle(corpus / "bundle").alphabet.classes > 200
    inputs, out = corpus / "data" / "books" / "pages", corpus / "out"
    assert main(["transcribe", str(inputs), "--output", str(out), "--model", str(corpus / "bundle")]) == 0
    assert len(list((out / "txt").glob("*.txt"))) == 4
