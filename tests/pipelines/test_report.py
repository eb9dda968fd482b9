import json
from dataclasses import replace
from pathlib import Path

import pytest

from ocr_model.errors import BadInput, PagemillError
from pipelines import ledger
from pipelines.decoder import Decoder
from pipelines.ledger import Counts, Entry
from pipelines.outputs import write_atomically
from pipelines.plan import UnitReference, claim_output
from pipelines.report import (
    DEAD_LETTERS,
    DOUBTFUL,
    RUNS,
    Report,
    clock,
    last_run,
    reconcile,
    report_text,
    unit_lines,
    write_lists,
)
from tests.pipelines.folders import do_units, plan, png, put, run_options
from tests.pipelines.test_ledger import ENTRY


def entry(unit: str, counts: Counts, **changes: object) -> Entry:
    return replace(ENTRY, unit=unit, counts=counts, **changes)


def report_of(files: dict[str, int], *entries: Entry, **changes: object) -> Report:
    references = tuple(UnitReference(name, "plan", 0, 1, n, 100) for name, n in files.items())
    return replace(Report("out", references, {entry.unit: entry for entry in entries}), **changes)


TWO_PAGES = Counts(files=2, pages=2, read=2, lines=5)


# Folders.


def test_new_folder_is_all_open(tmp_path: Path) -> None:
    plan(str(tmp_path), put(tmp_path, {f"{n:02}.png": b"x" for n in range(40)}))
    report = reconcile(str(tmp_path))
    assert (report.files, report.open_files, report.open_units) == (40, 40, 5)
    assert report.counts == Counts() and report.unbalanced == [] and report.in_hand == ()
    assert (report.pages_per_s, report.seconds_left) == (0, None)
    assert json.loads(json.dumps(report.to_json()))["balanced"]
    text = report_text(report, ("txt",), details=True)
    assert "40 of 40 files are open" in text and "results in" not in text
    with pytest.raises(PagemillError, match="5 units open"):
        report.check()


def test_folder_whose_plan_was_not_written_is_empty(tmp_path: Path) -> None:
    claim_output(str(tmp_path), ["in"])
    report = reconcile(str(tmp_path))
    assert report.files == 0
    report.check()


def test_half_done_folder_tells_what_is_open_and_in_hand(tmp_path: Path, shared_decoder: Decoder) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": png(20, 20), "b.png": png(30, 20)}))
    do_units(run_options(str(tmp_path)), shared_decoder)
    plan(str(tmp_path), put(tmp_path, {"c.png": b"x"}))
    ledger.begin_attempt(str(tmp_path), "000002-xx", "run1")
    report = reconcile(str(tmp_path))
    assert (report.files, report.open_files, report.counts.read, report.in_hand) == (3, 1, 2, ("000002-xx",))
    assert "1 of 3 files are open, 1 units in hand" in report_text(report)


def test_done_folder_balances(tmp_path: Path, shared_decoder: Decoder) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": png(20, 20), "b.png": b"", "c.png": png(13, 13)}))
    do_units(run_options(str(tmp_path)), shared_decoder)
    report = reconcile(str(tmp_path))
    report.check()
    assert dict(report.failures) == {"empty-file": 1, "reader-failed": 1}
    assert report.milliseconds["read"].total() == 1 and report.cpu_s > 0
    text = report_text(report, ("txt",), details=True)
    assert "2 could not be read: 1 empty-file, 1 reader-failed" in text
    assert text.endswith(f"results in {tmp_path / 'txt'}")
    assert "3 files = 3 done + 0 open; 3 pages of the done ones = 1 read + 2 dead + 0 skipped + 0 duplicates" in text


def test_damaged_entry_counts_as_open(tmp_path: Path, shared_decoder: Decoder) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": png(20, 20)}))
    (done,) = do_units(run_options(str(tmp_path)), shared_decoder)
    (tmp_path / ledger.UNITS / f"{done.unit}.json").write_text("{")
    report = reconcile(str(tmp_path))
    assert (report.damaged, report.open_units) == ((done.unit,), 1)
    assert "1 ledger entries are damaged" in report_text(report)


def test_what_is_no_output_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no results"):
        reconcile(str(tmp_path))


# Sums.


@pytest.mark.parametrize(
    "counts",
    [
        Counts(files=2, pages=3, read=2),
        Counts(files=2, pages=2, read=2, dead=1),
        Counts(files=1, pages=2, read=2),
        Counts(files=3, pages=3, read=3),
    ],
)
def test_counts_that_do_not_add_up_are_found(counts: Counts) -> None:
    report = report_of({"u1": 2, "u2": 2}, entry("u1", counts), entry("u2", TWO_PAGES))
    assert report.unbalanced == ["u1"]
    with pytest.raises(PagemillError, match="wrong counts in u1"):
        report.check()


def test_entry_of_a_unit_that_nobody_planned_is_wrong() -> None:
    assert report_of({}, entry("u1", TWO_PAGES)).unbalanced == ["u1"]


def test_counts_and_failures_of_units_add_up() -> None:
    entries = [entry("u1", TWO_PAGES, failures={"a": 1}), entry("u2", TWO_PAGES, failures={"a": 2, "b": 3})]
    report = report_of({"u1": 2, "u2": 2}, *entries)
    assert report.counts == TWO_PAGES + TWO_PAGES
    assert dict(report.failures) == {"a": 3, "b": 3}
    assert report.milliseconds["find"] == {"48": 4}


def test_pace_is_of_the_last_run_from_its_first_start_to_its_last_end() -> None:
    def at(second: int) -> str:
        return f"2025-01-01T00:00:{second:02}.000+00:00"

    entries = [
        entry("u1", TWO_PAGES, run="old", started="2020-01-01T00:00:00+00:00"),
        entry("u2", TWO_PAGES, run="new", started=at(0), ended=at(6)),
        entry("u3", TWO_PAGES, run="new", started=at(2), ended=at(8)),
    ]
    report = report_of({"u1": 2, "u2": 2, "u3": 2, "u4": 6}, *entries, run={"run": "new"})
    assert report.pages_per_s == 4 / 8
    assert report.seconds_left == 6 / 0.5
    assert "0.50 pages/s" in report_text(report) and "0:12 left" in report_text(report)


def test_run_that_found_nothing_to_do_has_no_pace() -> None:
    """Nor has a folder that was retried in all its units since."""
    report = report_of({"u1": 2}, entry("u1", TWO_PAGES, run="old"), run={"run": "new"})
    assert "pages/s" not in report_text(report) and "CPU seconds a page" in report_text(report)


def test_a_line_for_every_unit() -> None:
    report = report_of({"u1": 2, "u2": 3, "u3": 4}, entry("u1", TWO_PAGES), in_hand=("u2",))
    done, in_hand, still_open = unit_lines(report)
    assert done.startswith("u1  done, 2 files, 2 pages = 2 read + 0 dead + 0 skipped + 0 duplicates, 12.2 CPU s")
    assert (in_hand, still_open) == ("u2  in hand, 3 files", "u3  open, 4 files")


# Lists of all units.


def test_letters_and_doubtful_pages_of_all_units_are_gathered(tmp_path: Path, shared_decoder: Decoder) -> None:
    for name in ("a", "b"):
        plan(str(tmp_path), put(tmp_path, {f"{name}.png": png(20, 20), f"{name} bad.png": b"x"}))
    options = run_options(str(tmp_path))
    do_units(replace(options, write=replace(options.write, doubtful_below=0.95)), shared_decoder)
    write_lists(str(tmp_path), reconcile(str(tmp_path)))
    letters = [json.loads(line) for line in (tmp_path / DEAD_LETTERS).read_text().splitlines()]
    assert [(Path(d["path"]).name, d["reason"], d["unit"][:6], d["model"], d["attempts"]) for d in letters] == [
        ("a bad.png", "not-an-image", "000001", "model", 1),
        ("b bad.png", "not-an-image", "000002", "model", 1),
    ]
    doubtful = [json.loads(line) for line in (tmp_path / DOUBTFUL).read_text().splitlines()]
    assert [(Path(d["path"]).name, d["page"], d["confidence"]) for d in doubtful] == [
        ("a.png", 1, 0.9),
        ("b.png", 1, 0.9),
    ]


def test_damaged_list_is_told_with_what_to_do(tmp_path: Path, shared_decoder: Decoder) -> None:
    plan(str(tmp_path), put(tmp_path, {"a.png": b"x"}))
    (done,) = do_units(run_options(str(tmp_path)), shared_decoder)
    (tmp_path / ledger.UNITS / f"{done.unit}.dead_letters.jsonl").write_bytes(b"\xff")
    with pytest.raises(BadInput, match=r"verify .* --reopen"):
        write_lists(str(tmp_path), reconcile(str(tmp_path)))
    assert not (tmp_path / DEAD_LETTERS).exists()


# Runs.


def test_last_run_is_the_one_that_began_last(tmp_path: Path) -> None:
    assert last_run(str(tmp_path)) == {}
    for name, content in {
        "a": '{"run": "a", "started": "2025-02"}',
        "b": '{"run": "b", "started": "2025-01"}',
        "cut": '{"run": "cu',
        "list": "[]",
    }.items():
        write_atomically(str(tmp_path), f"{RUNS}/{name}.json", content)
    assert last_run(str(tmp_path))["run"] == "a"


def test_clock_has_hours_when_it_needs_them() -> None:
    assert [clock(s) for s in (0, 59.6, 3599, 3600)] == ["0:00", "1:00", "59:59", "1:00:00"]
