import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocr_model.errors import BadInput, BadModel, UnreadablePage
from pipelines import ledger
from pipelines.ledger import (
    Counts,
    DamagedEntry,
    DeadLetter,
    DoubtfulPage,
    Entry,
    FileCounts,
    begin_attempt,
    commit,
    end_attempts,
    entry_from_text,
    entry_to_text,
    read_entries,
    read_entry,
)
from pipelines.outputs import OutputFile

ENTRY = Entry(
    unit="000001-aa",
    run="r1",
    attempt=1,
    counts=Counts(files=2, pages=3, read=2, dead=1, lines=7, characters=90, bytes_in=5, bytes_out=6),
    failures={"timeout": 1},
    milliseconds={"find": {"48": 2}},
    model="m",
    configuration="c",
    code_version="1",
    started="2025-01-01T00:00:00.000+00:00",
    ended="2025-01-01T00:00:09.000+00:00",
    wall_s=9.5,
    cpu_s=12.25,
    worker="hôst:1",
    models={"m": 2},
)
LISTS = {
    "files": [FileCounts("a.png", files=1, pages=1, read=1), FileCounts("caf\udce9\n.png", 1, 2, 1, 1)],
    "outputs": [OutputFile("txt/a.txt", 0, "00")],
    "dead_letters": [DeadLetter("a.png", None, "open", "EOFError", "timeout", "")],
    "doubtful": [DoubtfulPage("a.png", 1, "", 0.0)],
}


def committed(folder: Path, entry: Entry = ENTRY) -> Entry:
    return commit(str(folder), entry, LISTS)


# Entries.


def test_entry_and_lists_are_read_back(tmp_path: Path) -> None:
    entry = committed(tmp_path)
    assert read_entries(str(tmp_path)) == ({entry.unit: entry}, [])
    assert ledger.file_counts(str(tmp_path), entry) == LISTS["files"]
    assert ledger.output_files(str(tmp_path), entry) == LISTS["outputs"]
    assert ledger.dead_letters(str(tmp_path), entry) == LISTS["dead_letters"]
    assert ledger.doubtful_pages(str(tmp_path), entry) == LISTS["doubtful"]


TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from("\udcff\n\u2028\x85"), max_size=9)
COUNTS = st.integers(0, 2**40)
LETTERS = st.builds(
    DeadLetter, TEXTS, st.none() | COUNTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, st.integers(0, 9)
)
DOUBTFUL = st.builds(DoubtfulPage, TEXTS, COUNTS, TEXTS, st.floats(0, 1))


@settings(deadline=None)  # it writes files, on disks that others use
@given(st.lists(LETTERS, max_size=3), st.lists(DOUBTFUL, max_size=3))
def test_any_list_is_read_back(letters: list[DeadLetter], doubtful: list[DoubtfulPage]) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        entry = commit(folder, ENTRY, {"dead_letters": letters, "doubtful": doubtful})
        assert ledger.dead_letters(folder, entry) == letters
        assert ledger.doubtful_pages(folder, entry) == doubtful


def test_entry_cut_short_anywhere_is_damaged() -> None:
    text = entry_to_text(ENTRY)
    assert entry_from_text(text) == ENTRY
    for length in range(len(text) - 1):  # the last character is the end of the line
        with pytest.raises(DamagedEntry):
            entry_from_text(text[:length])


def test_entry_with_a_flipped_bit_is_damaged_or_the_same(tmp_path: Path) -> None:
    committed(tmp_path)
    path = tmp_path / ledger.UNITS / f"{ENTRY.unit}.json"
    whole = path.read_bytes()
    entry = read_entry(str(tmp_path), ENTRY.unit)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with suppress(DamagedEntry):
            assert read_entry(str(tmp_path), ENTRY.unit) == entry  # white space, or 1E5 for 1e5


def test_entry_of_another_version_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    text = entry_to_text(ENTRY)
    monkeypatch.setattr(ledger, "ENTRY_VERSION", ledger.ENTRY_VERSION + 1)
    with pytest.raises(DamagedEntry, match="version"):
        entry_from_text(text)


@pytest.mark.parametrize("text", ["", "null", "[]", "7", '"a"', "{}", '{"check": 1}', "[" * 50])
def test_what_is_no_entry_is_damaged(text: str) -> None:
    with pytest.raises(DamagedEntry):
        entry_from_text(text)


def test_entry_under_the_name_of_another_unit_is_damaged(tmp_path: Path) -> None:
    committed(tmp_path)
    units = tmp_path / ledger.UNITS
    (units / "000002-bb.json").write_bytes((units / f"{ENTRY.unit}.json").read_bytes())
    entries, damaged = read_entries(str(tmp_path))
    assert (set(entries), damaged) == ({ENTRY.unit}, ["000002-bb"])


@pytest.mark.parametrize("name", ["files", "outputs", "dead_letters", "doubtful"])
@pytest.mark.parametrize("change", [b"", b"{}\n", b"\xff\xff"])
def test_changed_list_is_told(tmp_path: Path, name: str, change: bytes) -> None:
    entry = committed(tmp_path)
    path = tmp_path / ledger.UNITS / f"{entry.unit}.{name}.jsonl"
    path.write_bytes(change)
    with pytest.raises(DamagedEntry, match="has changed"):
        ledger._read_list(str(tmp_path), entry, name)
    path.unlink()
    with pytest.raises(DamagedEntry, match="is gone"):
        ledger._read_list(str(tmp_path), entry, name)


def test_lists_that_became_empty_are_removed(tmp_path: Path) -> None:
    committed(tmp_path)
    entry = commit(str(tmp_path), ENTRY, {name: [] for name in LISTS})
    assert [path.name for path in (tmp_path / ledger.UNITS).iterdir()] == [f"{ENTRY.unit}.json"]
    assert ledger.dead_letters(str(tmp_path), entry) == []


def test_reopened_unit_has_no_entry(tmp_path: Path) -> None:
    committed(tmp_path)
    for _ in range(2):
        ledger.reopen(str(tmp_path), ENTRY.unit)
    assert read_entries(str(tmp_path)) == ({}, [])


def test_damage_becomes_an_error_with_a_remedy() -> None:
    with pytest.raises(BadInput, match="verify out --reopen"), ledger.damage_told("out"):
        raise DamagedEntry("a list has changed")


# Counts and letters.


def test_counts_add_up_field_by_field() -> None:
    one, two = Counts(*range(10)), Counts(*range(0, 100, 10))
    assert one + two == Counts(*range(0, 110, 11))


def test_balance_is_what_became_of_the_pages() -> None:
    assert Counts(pages=10, read=1, dead=2, skipped=3, duplicates=4).balanced
    assert not Counts(pages=10, read=9).balanced


def test_dead_letter_takes_reason_and_message_of_the_error() -> None:
    letter = DeadLetter.of("a", 1, "decode", UnreadablePage("cut short", "truncated", "scan again"))
    assert (letter.error, letter.reason, letter.message) == ("UnreadablePage", "truncated", "cut short")
    letter = DeadLetter.of("a", 1, "read", ZeroDivisionError("x" * 2000), "reader-failed")
    assert (letter.reason, len(letter.message)) == ("reader-failed", 1000)
    assert DeadLetter.of("a", 1, "read", BadModel("gone", "look for it")).message == "gone"


# Attempts.


def test_attempts_are_counted_in_their_run(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert [begin_attempt(folder, "u1", "r1") for _ in range(3)] == [1, 2, 3]
    assert (begin_attempt(folder, "u1", "r2"), begin_attempt(folder, "u2", "r1")) == (1, 1)
    assert ledger.units_in_hand(folder) == {"u1", "u2"}


def test_attempt_that_was_withdrawn_does_not_count(tmp_path: Path) -> None:
    folder = str(tmp_path)
    ledger.withdraw_attempt(folder, "u1", "r1", begin_attempt(folder, "u1", "r1"))
    assert begin_attempt(folder, "u1", "r1") == 1


def test_done_unit_has_no_attempts(tmp_path: Path) -> None:
    folder = str(tmp_path)
    for unit in ("u1", "u1", "u11"):
        begin_attempt(folder, unit, "r1")
    end_attempts(folder, "u1")
    assert ledger.units_in_hand(folder) == {"u11"}


def test_attempts_of_other_runs_are_forgotten(tmp_path: Path) -> None:
    folder = str(tmp_path)
    begin_attempt(folder, "u1", "r1")
    begin_attempt(folder, "u1", "r2")
    (tmp_path / ledger.ATTEMPTS / "stray").touch()
    ledger.forget_other_runs(folder, "r2")
    assert ledger.attempts(folder, "u1", "r1") == set()
    assert begin_attempt(folder, "u1", "r2") == 2


def test_entry_is_written_after_its_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(ledger, "write_atomically", lambda folder, name, text: written.append(name))
    commit(str(tmp_path), replace(ENTRY, files="old"), LISTS)
    assert written[-1] == f"{ledger.UNITS}/{ENTRY.unit}.json" and len(written) == 5


def test_entry_is_json_that_others_can_read() -> None:
    assert json.loads(entry_to_text(ENTRY))["counts"]["characters"] == 90
