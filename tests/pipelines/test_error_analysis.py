"""Errors are put down to their causes on pages whose faults are made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ocr_model.document import Box, Line, Page, Region, Word
from ocr_model.errors import BadInput
from ocr_model.found_lines import FoundLine, FoundPage, FoundRegion
from pipelines import error_analysis as errors

TRUTH: list[dict[str, Any]] = [
    {"bbox": [20, 20, 220, 40], "text": "the first line here"},
    {"bbox": [20, 60, 220, 80], "text": "the second one"},
]


def found(*boxes: Box) -> FoundPage:
    lines = tuple(FoundLine(((b.left, b.bottom - 5.0), (b.right, b.bottom - 5.0)), b.height - 5.0, 5.0) for b in boxes)
    return FoundPage((FoundRegion(lines),) if lines else ())


class WritesDown:
    """Finds given lines; reads in each the text that it was given for it, or what the truth says there."""

    def __init__(self, page: FoundPage, texts: Sequence[str]) -> None:
        self.page, self.texts = page, texts

    def find(self, image: np.ndarray) -> FoundPage:
        return self.page

    def read(self, images: Sequence[np.ndarray]) -> list[Page]:
        return self.read_found(images, [self.page] * len(images))

    def read_found(self, images: Sequence[np.ndarray], found: Sequence[FoundPage]) -> list[Page]:
        return [self._page(image, page) for image, page in zip(images, found, strict=True)]

    def _page(self, image: np.ndarray, page: FoundPage) -> Page:
        texts = self.texts if page is self.page else [str(record["text"]) for record in TRUTH]
        lines = [_line(box.box, text) for box, text in zip(page.lines(), texts, strict=True) if text]
        height, width = image.shape
        return Page(width, height, (Region(tuple(lines), lines[0].box),) if lines else ())


def _line(box: Box, text: str) -> Line:
    each, words, at = box.width / len(text), [], 0
    for word in text.split(" "):
        left, right = box.left + at * each, box.left + (at + len(word)) * each
        words.append(Word(word, Box(round(left), box.top, round(right), box.bottom), 0.9))
        at += len(word) + 1
    corners = ((box.left, box.top), (box.right, box.top), (box.right, box.bottom), (box.left, box.bottom))
    return Line(tuple(words), box, ((box.left, box.bottom - 5), (box.right, box.bottom - 5)), corners, 0.9)


def page_image() -> np.ndarray:
    image = np.full((120, 260), 255, np.uint8)
    for record in TRUTH:
        left, _, _, bottom = record["bbox"]
        cv2.putText(image, str(record["text"]), (left, bottom - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0, 1, cv2.LINE_AA)
    return image


def analysed(page: FoundPage, texts: Sequence[str]) -> errors.PageErrors:
    return errors.analysed(WritesDown(page, texts), page_image(), TRUTH, "made", "made/page.png")


FIRST, SECOND = Box(20, 18, 220, 42), Box(20, 58, 220, 82)


def test_page_read_right_has_no_errors() -> None:
    result = analysed(found(FIRST, SECOND), ["the first line here", "the second one"])
    assert (result.read.edits, result.true_lines.edits, result.true_text.edits) == (0, 0, 0)
    assert not result.lines and (result.hits, result.found, result.true) == (2, 2, 2)


@pytest.mark.parametrize(
    ("boxes", "texts", "causes"),
    [
        ((FIRST,), ["the first line here"], {"missed": 14}),
        ((FIRST, SECOND), ["the first line here", ""], {"refused": 14}),
        ((FIRST, Box(20, 58, 120, 82)), ["the first line here", "the seco"], {"cut": 6}),
        (
            (FIRST, Box(20, 58, 120, 82), Box(121, 58, 220, 82)),
            ["the first line here", "the", "ond one"],
            {"split": 3},
        ),
        ((FIRST, SECOND, Box(30, 100, 80, 115)), ["the first line here", "the second one", "noise"], {"invented": 5}),
    ],
)
def test_fault_of_the_finder_is_named(boxes: Sequence[Box], texts: list[str], causes: dict[str, int]) -> None:
    assert dict(analysed(found(*boxes), texts).causes()) == causes


def test_line_over_two_is_merged() -> None:
    truth = [errors.TrueText(Box(0, 0, 100, 20), "one"), errors.TrueText(Box(0, 22, 100, 42), "two")]
    assert errors.fault_of_finding(0, truth, [Box(0, 0, 100, 42)]) == "merged"
    assert errors.fault_of_finding(0, truth, [Box(0, 0, 100, 21), Box(0, 22, 100, 42)]) == "cut"


def test_what_the_true_line_costs_too_is_reading() -> None:
    assert errors.line_causes("a word", "a ward", "a ward", "cut") == {"letters": 1}
    assert errors.line_causes("a word", "a ward", "a word", "cut") == {"cut": 1}
    assert errors.line_causes("a Word", "aword", "aword", "cut") == {"spaces": 1, "form": 1}


def test_order_is_told_apart_from_reading() -> None:
    result = analysed(found(SECOND, FIRST), ["the second one", "the first line here"])
    assert result.read.order_free_edits == 0 < result.read.edits
    assert result.true_text.order_free_edits == 0 < result.true_text.edits
    assert not result.causes()


def test_table_and_sheet_hold_what_was_found() -> None:
    pages = [analysed(found(FIRST), ["the first line here"]), analysed(found(FIRST, SECOND), ["x", "the second one"])]
    rows = errors.table(pages).splitlines()
    assert [row.split("|")[1].strip() for row in rows] == ["source", "---", "all", "made"]
    worst = errors.worst(pages, 5)
    assert [line.truth for line in worst] == ["the first line here", "the second one"]
    assert [line.truth for line in errors.worst(pages, 5, "missed")] == ["the second one"]
    sheet = errors.contact_sheet(worst, lambda name: page_image())
    assert sheet.shape[1] == 1500 and sheet.dtype == np.uint8 and sheet.min() < 100


def test_lines_that_nobody_is_to_read_are_left_out(tmp_path: Path) -> None:
    scan = tmp_path / "a.png"
    records = [*TRUTH, {**TRUTH[0], "hand": True}, {**TRUTH[0], "skip_text": True}, {**TRUTH[0], "text": " "}]
    scan.with_suffix(".lines.json").write_text(json.dumps(records), encoding="utf-8")
    assert [r["text"] for r in errors.true_records(scan)] == [r["text"] for r in TRUTH]
    scan.with_suffix(".lines.json").write_text('[{"text": "no box"}]', encoding="utf-8")
    with pytest.raises(BadInput, match="cannot use"):
        errors.true_records(scan)
