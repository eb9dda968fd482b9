import os
from pathlib import Path

import pytest

from ocr_model.errors import BadInput
from pipelines import ledger
from pipelines.decoder import Decoder
from pipelines.report import reconcile
from pipelines.units import RunOptions
from pipelines.verify import Verified, verify_output
from tests.pipelines.folders import do_units, files_in, plan, png, put, run_options

FORMATS = ("txt", "jsonl", "parquet")


@pytest.fixture
def done(tmp_path: Path, shared_decoder: Decoder) -> RunOptions:
    """A folder of two units that are done."""
    plan(str(tmp_path), put(tmp_path, {"a.png": png(20, 20), "b.png": b"x"}))
    plan(str(tmp_path), put(tmp_path, {"c.png": png(30, 20)}))
    options = run_options(str(tmp_path), *FORMATS)
    do_units(options, shared_decoder)
    return options


def problems(options: RunOptions) -> list[str]:
    return [what for _, what in verify_output(options.output).problems]


def test_sound_folder_is_as_the_ledger_says(done: RunOptions) -> None:
    found = verify_output(done.output)
    sizes = [os.path.getsize(os.path.join(done.output, name)) for name in files_in(Path(done.output))]
    made = sum(sizes) - sum(path.stat().st_size for path in (Path(done.output) / "in").iterdir())
    assert (found.problems, found.files, found.bytes, found.units) == ((), 6, made, 2)
    assert found.text() == f"6 files ({made} bytes) of 2 units: all as the ledger says"


def test_missing_cut_and_changed_files_are_told(done: RunOptions) -> None:
    root = Path(done.output)
    (root / "txt/a.txt").unlink()
    (root / "txt/c.txt").write_bytes(b"30")
    (root / "jsonl/a.jsonl").write_bytes((root / "jsonl/a.jsonl").read_bytes().replace(b"20x20", b"20x21"))
    assert problems(done) == [
        "jsonl/a.jsonl: other bytes than the ledger has",
        "txt/a.txt: No such file or directory",
        "txt/c.txt: 2 bytes, the ledger has 6",
    ]


def test_folder_in_the_place_of_a_file_is_told(done: RunOptions) -> None:
    (Path(done.output) / "txt/a.txt").unlink()
    (Path(done.output) / "txt/a.txt").mkdir()
    assert problems(done) == ["txt/a.txt: Is a directory"]


def test_files_that_the_ledger_does_not_know_are_none_of_its_business(done: RunOptions) -> None:
    (Path(done.output) / "txt/other.txt").touch()
    assert problems(done) == []


@pytest.mark.parametrize("name", ["files", "outputs", "dead_letters"])
@pytest.mark.parametrize("content", [b"\xff", b"{}", None])
def test_damaged_lists_are_told(done: RunOptions, name: str, content: bytes | None) -> None:
    unit = min(reconcile(done.output).entries)
    path = Path(done.output) / ledger.UNITS / f"{unit}.{name}.jsonl"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    (problem,) = problems(done)
    assert unit in problem and name in problem


def test_damaged_entry_is_told(done: RunOptions) -> None:
    unit = min(reconcile(done.output).entries)
    (Path(done.output) / ledger.UNITS / f"{unit}.json").write_text("")
    assert problems(done) == [f"the ledger entry of {unit} is damaged"]


def test_reopened_units_are_healed_by_a_run(done: RunOptions, shared_decoder: Decoder) -> None:
    root, before = Path(done.output), reconcile(done.output)
    contents = {name: (root / name).read_bytes() for name in files_in(root)}
    (root / "txt/a.txt").write_text("other")
    (root / ledger.UNITS / f"{max(before.entries)}.outputs.jsonl").unlink()
    found = verify_output(done.output, reopen=True)
    assert found.reopened == 2 and "2 units will be done again" in found.text()
    assert len(do_units(done, shared_decoder)) == 2
    assert problems(done) == []
    assert {name: (root / name).read_bytes() for name in files_in(root)} == contents


def test_only_units_with_a_problem_are_reopened(done: RunOptions, shared_decoder: Decoder) -> None:
    (Path(done.output) / "txt/c.txt").unlink()
    assert verify_output(done.output, reopen=True).reopened == 1
    assert len(do_units(done, shared_decoder)) == 1
    assert problems(done) == []


def test_long_lists_of_problems_are_cut() -> None:
    found = Verified(1, 1, 1, tuple(("u", f"problem {n}") for n in range(50)))
    assert found.text().count("\n") == 21 and "and 30 more" in found.text()


def test_what_is_no_output_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no results"):
        verify_output(str(tmp_path))
