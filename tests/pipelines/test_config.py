import argparse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_model.errors import BadArgument, BadInput, PagemillError
from pipelines.commands import estimate, transcribe
from pipelines.config import words_of_config


def parser_of_transcribe() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    transcribe.add_arguments(parser)
    return parser


def parsed(folder: Path, text: str | bytes, *argv: str) -> argparse.Namespace:
    """The arguments of `transcribe`, as the command line makes them."""
    path = folder / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    words = [*argv, "--config", str(path)]
    parser = parser_of_transcribe()
    return parser.parse_intermixed_args([*words_of_config(words, parser), *words])


def refused(folder: Path, text: str | bytes, error: type[PagemillError] = BadInput) -> str:
    with pytest.raises(error) as raised:
        parsed(folder, text)
    return str(raised.value)


def test_file_stands_for_flags(tmp_path: Path) -> None:
    text = "inputs: [scans/, 'more scans/']\noutput: out\nformat: [txt, pdf]\nworkers: 4\ndry-run: true\nper: page\n"
    found = parsed(tmp_path, text)
    assert found.inputs == ["scans/", "more scans/"]
    assert (found.output, found.format, found.workers) == ("out", ["txt", "pdf"], 4)
    assert (found.dry_run, found.single_line, found.per) == (True, False, "page")


def test_one_input_needs_no_list_and_names_may_have_underscores(tmp_path: Path) -> None:
    found = parsed(tmp_path, "inputs: scans/\noutput: out\npage_range: 1-3\nsingle_line: true\n")
    assert (found.inputs, found.page_range, found.single_line) == (["scans/"], "1-3", True)


def test_command_line_goes_first(tmp_path: Path) -> None:
    text = "inputs: [a]\noutput: out\nformat: [txt, pdf]\nworkers: 4\nmodel: mine\n"
    found = parsed(tmp_path, text, "b", "c", "--format=jsonl", "--workers", "2")
    assert (found.inputs, found.format, found.workers) == (["b", "c"], ["jsonl"], 2)
    assert (found.output, found.model) == ("out", "mine")


def test_inputs_of_the_command_line_may_stand_anywhere(tmp_path: Path) -> None:
    assert parsed(tmp_path, "inputs: a\noutput: out", "--single-line", "b").inputs == ["b"]
    assert parsed(tmp_path, "inputs: a\noutput: out", "--workers", "2").inputs == ["a"]


@pytest.mark.parametrize(
    "key, written",
    [
        ("page-range", "1:30"),
        ("page-range", "010"),
        ("output", "2020-01-01"),
        ("model", "1_000"),
        ("max-failures", "1%"),
        ("model", "=x y"),
        ("model", "'true'"),
        ("output", "-x"),
    ],
)
def test_words_are_taken_as_they_are_written(tmp_path: Path, key: str, written: str) -> None:
    text = f"{key}: {written}\n" + ("" if key == "output" else "output: out\n")
    assert getattr(parsed(tmp_path, text), key.replace("-", "_")) == written.strip("'")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "model:\nlimit: ~\ndry-run: false\nroute: []\n"])
def test_what_says_nothing_changes_nothing(tmp_path: Path, text: str) -> None:
    found = vars(parsed(tmp_path, text, "--output=out"))
    assert found == vars(parser_of_transcribe().parse_args(["--output=out", "--config", str(tmp_path / "run.yaml")]))


@pytest.mark.parametrize(
    "text, told",
    [
        ("output: out\n\nwrokers: 4\n", "run.yaml, line 3: unknown key wrokers (did you mean workers?)"),
        ("max_megapixel: 4\n", "line 1: unknown key max_megapixel (did you mean max-megapixels?)"),
        ("output: out\ncolour: blue\n", "line 2: unknown key colour (see --help for the flags)"),
        ("yes: 1\n", "line 1: unknown key yes"),
        ("1.0: 1\n", "line 1: unknown key 1.0"),
        ("? [a, b]\n: 1\n", "line 1: unknown key"),
        ("<<: {workers: 4}\n", "line 1: unknown key <<"),
        ("config: other.yaml\n", "unknown key config"),
        ("help: true\n", "unknown key help"),
        ("workers: 1\nworkers: 2\n", "line 2: workers is given a second time"),
    ],
)
def test_unknown_key_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    assert told in refused(tmp_path, text)


@pytest.mark.parametrize(
    "text, told",
    [
        ("workers: many", "line 1: workers cannot be 'many'"),
        ("output: out\nworkers: 1.5", "line 2: workers cannot be '1.5'"),
        ("workers: [1, 2]", "workers does not take this (write one word)"),
        ("workers: true", "workers does not take this"),
        ("dry-run: 1", "dry-run does not take this (write true or false)"),
        ("dry-run: [true]", "dry-run does not take this (write true or false)"),
        ("format: [[txt]]", "format does not take this (write a list of words)"),
        ("inputs: {a: b}", "inputs does not take this (write a list of words)"),
        ("inputs: [a, null]", "inputs does not take this"),
        ("model: {a: b}", "model does not take this (write one word)"),
        ("model: yes", "model does not take this"),
        ("layout: heaps", "layout cannot be 'heaps' (choose from files, shards)"),
        ("model: &a [*a]", "model does not take this"),
    ],
)
def test_wrong_value_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    assert told in refused(tmp_path, text, BadArgument)


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "a: [", "a: b: c", "\ta: 1", b"\xff\xfe\x00", b"a: \x00"])
def test_file_that_is_no_mapping_is_told(tmp_path: Path, text: str | bytes) -> None:
    assert "run.yaml" in refused(tmp_path, text)


def test_line_that_is_no_yaml_is_told(tmp_path: Path) -> None:
    assert "run.yaml, line 2: no YAML: mapping values are not allowed here" in refused(tmp_path, "a: b\n  c: [\n")


def test_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for name in ("nowhere.yaml", ""):
        with pytest.raises(BadInput, match="cannot read"):
            words_of_config([f"--config={tmp_path / name}"], parser_of_transcribe())


def test_verbs_without_the_flag_take_no_file(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    estimate.add_arguments(parser)
    assert words_of_config(["a", f"--config={tmp_path}/run.yaml"], parser) == []
    assert words_of_config(["a"], parser_of_transcribe()) == []


@given(st.text(max_size=40))
def test_any_file_is_taken_or_told(text: str) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(text, encoding="utf-8", errors="replace")
        try:
            words: Any = words_of_config(["--config", str(path)], parser_of_transcribe())
        except (BadInput, BadArgument):
            words = []
        assert all(isinstance(word, str) for word in words)
