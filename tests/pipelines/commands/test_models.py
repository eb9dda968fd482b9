"""`pagemill models`: bundles are listed, shown, checked and converted."""

from pathlib import Path

import pytest

from ocr_model.bundle import bundle_digest
from pipelines.cli import main
from tests.tiny_bundle import copy_of_bundle, reading_bundle, tiny_bundle, write_lines


def test_the_default_bundle_is_whole_and_small(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", "--fast"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("models/default: whole")
    assert main(["models", "list"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("default ")]
    assert float(row.split()[3]) < 10


def test_bundles_below_a_folder_are_listed_with_their_digests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_of_bundle(tmp_path / "a" / "bundle")
    (tmp_path / "config.json").write_text("{}")
    assert main(["models", "list", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path}/a/bundle" in out and bundle_digest(tiny_bundle())[:16] in out
    assert len(out.splitlines()) == 3  # heading, the default one, this one


def test_a_card_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", str(tiny_bundle())]) == 0
    assert capsys.readouterr().out.startswith("# Model card\n\nA tiny one.")


def test_a_damaged_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = copy_of_bundle(tmp_path / "bundle")
    (bundle / "MODEL_CARD.md").write_text("another")
    (bundle / "extra").write_text("")
    assert main(["models", "verify", str(bundle), str(tiny_bundle())]) == 7
    out = capsys.readouterr().out
    assert "MODEL_CARD.md differs" in out and "extra is not listed" in out
    assert f"{tiny_bundle()}: whole" in out


@pytest.mark.parametrize("words", [["show"], ["verify"], ["litert", "--to", "x"]])
def test_a_folder_that_is_no_bundle_is_told(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", words[0], str(tmp_path), *words[1:]]) == 7
    assert "not a model bundle" in "".join(capsys.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_converted_recogniser_reads_as_the_bundle_does(
    tmp_path: Path, precision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, target = write_lines(tmp_path / "lines", ["abba", "ba b", "a ab"]), tmp_path / "model.tflite"
    words = ["models", "litert", str(reading_bundle()), "--to", str(target), "--precision", precision]
    assert main([*words, "--lines", str(lines)]) == 0
    out = capsys.readouterr().out
    assert target.stat().st_size > 1000
    assert "on 3 lines: CER" in out and "difference +0.00 points" in out
