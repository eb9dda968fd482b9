import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.errors import BadArgument, BadInput
from ocr_model.line_features import appended
from pipelines.statistics import (
    DriftLimits,
    Finding,
    Statistics,
    drift_of,
    drift_text,
    findings_of,
    page_findings,
    page_splits,
    statistics_from_text,
    statistics_of,
)
from pipelines.write_records import SCHEMA

ROW = {
    "kind": "line",
    "split": "train",
    "name": "a.png",
    "document": "a",
    "page": 1,
    "line": 1,
    "page_id": "0" * 64 + "-0001",
    "language": "de",
    "text": "ab",
    "lines": 1,
    "width": 90,
    "height": 40,
    "line_width": 90,
    "mean": 200.0,
    "deviation": 10.0,
}


def rows(*changes: dict[str, Any]) -> list[pa.RecordBatch]:
    return [pa.RecordBatch.from_pylist([{**ROW, **change} for change in changes], SCHEMA)]


def test_statistics_count_lines_and_pages() -> None:
    found = statistics_of(
        rows({}, {"text": "", "mean": 100.0}, {"split": "test", "text": "bc"}, {"kind": "page", "text": "ab\nab"}),
        (1, 4),
    )
    assert found.records == {"line/train": 2, "line/test": 1, "page/train": 1}
    assert (found.empty, found.languages) == ({"line/train": 1}, {"de": 3})
    assert (found.characters, found.held_out_only) == ({"a": 1, "b": 2, "c": 1}, {"c": 1})
    assert sum(found.widths.values()) == 3 and found.grey == pytest.approx(500 / 3)
    assert (found.empty_share, found.copied_share) == (0.25, 0.25)


def test_statistics_are_read_as_they_were_written() -> None:
    found = statistics_of(rows({}, {"text": "ſ"}), (0, 2))
    assert statistics_from_text(found.to_text(), "here") == found


@pytest.mark.parametrize(
    "changes", [{"version": 2}, {"format": "other"}, {"widths": 3}, {"another": 1}, {"copies": None}]
)
def test_foreign_statistics_are_refused(changes: dict[str, Any]) -> None:
    value = json.loads(Statistics().to_text())
    with pytest.raises(BadInput, match="here is"):
        statistics_from_text(json.dumps({**value, **changes}), "here")


def test_pages_without_lines_have_characters_too() -> None:
    assert statistics_of(rows({"kind": "page", "text": "a\nb"})).characters == {"a": 1, "b": 1}


def crossed(findings: list[Finding]) -> list[str]:
    return [finding.name for finding in findings if finding.crossed]


def test_records_like_earlier_ones_have_no_drift() -> None:
    same = statistics_of(rows({}, {"text": "ba"}))
    assert crossed(drift_of(same, same, "ab", DriftLimits())) == [] == crossed(findings_of(same, DriftLimits()))


@pytest.mark.parametrize(
    ("change", "name"),
    [({"text": "aβ"}, "new_characters"), ({"line_width": 900}, "width_shift"), ({"mean": 100.0}, "grey_shift")],
)
def test_each_kind_of_drift_is_told(change: dict[str, Any], name: str) -> None:
    before, today = statistics_of(rows({})), statistics_of(rows(change))
    findings = drift_of(before, today, "ab", DriftLimits())
    assert crossed(findings) == [name]
    assert name in drift_text(findings) and "over its limit" in drift_text(findings)


def test_new_characters_are_named_with_their_counts() -> None:
    findings = drift_of(Statistics(), statistics_of(rows({"text": "aββ"})), "ab", DriftLimits())
    assert findings[0].told == "1 characters are new: 'β'×2" and findings[0].value == pytest.approx(2 / 3)


def test_empty_truth_and_copies_are_told() -> None:
    assert crossed(findings_of(statistics_of(rows({"text": ""}), (9, 10)), DriftLimits())) == ["empty_truth", "copies"]


def page(digest: int, number: int, split: str) -> dict[str, Any]:
    return {"kind": "page", "page_id": f"{digest:064x}-{number:04}"[-69:], "split": split}


def test_pages_that_change_sides_are_told() -> None:
    big = 0xABCDEF << 232
    before = page_splits(rows(page(big, 1, "train"), page(big, 2, "train"), page(big + (1 << 230), 1, "test")))
    today = page_splits(rows(page(big, 1, "test"), page(big, 2, "train"), page(1 << 240, 1, "train")))
    assert before[0].dtype == np.uint64 and len(before[0]) == 3
    known, changed = page_findings(before, today, DriftLimits())
    assert (known.value, known.crossed) == (pytest.approx(2 / 3), False)
    assert (changed.value, changed.crossed) == (0.5, True)


def test_lines_of_a_page_are_one_page() -> None:
    assert len(page_splits(rows({}, {"line": 2}, {"kind": "page"}))[0]) == 1


@pytest.mark.parametrize("word", ["colour=1", "copies", "copies=2", "copies=x"])
def test_limits_that_cannot_be_are_refused(word: str) -> None:
    with pytest.raises(BadArgument, match="is no limit"):
        DriftLimits.parse([word])


def test_alphabet_only_grows_at_its_end() -> None:
    old = Alphabet("ba")
    new = appended(old, {"a": 1, "z": 3, "y": 3, "x": 9, "rare": 0}, least=3)
    assert new.characters == "baxyz" and new.encode("ab") == old.encode("ab")
