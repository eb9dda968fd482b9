"""Page records of `pagemill ingest` as the finder learns them: pages with the places of their lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ocr_model.examples import PageExample, is_validation
from ocr_model.record_files import load_manifest, read_records
from ocr_model.truth import GroundTruthLine
from trainer.page_truth import TruePage, true_lines


def record_pages(folder: Path, area_px: float, validation_share: float) -> tuple[list[TruePage], list[TruePage]]:
    """Pages for training and for validation, reduced to an area; those of the split `test` are left out.

    A page is left out, too, where a line has no place, or where the manifest of the scans had a column `complete` that
    says no: what is not marked would be learnt as no text.

    Args:
        validation_share: of the documents, where no record is for validation.

    Raises:
        BadInput: the records cannot be used.
    """
    share = 0.0 if load_manifest(folder).select("page", "validation") else validation_share
    learnt: list[TruePage] = []
    held_out: list[TruePage] = []
    for example in read_records(folder, "page"):
        assert isinstance(example, PageExample)
        origin = example.origin
        if origin.split == "test" or not _is_whole(example):
            continue
        held = origin.split == "validation" or is_validation(origin.document, share)
        (held_out if held else learnt).append(_page(example, area_px))
    return learnt, held_out


def _is_whole(example: PageExample) -> bool:
    said = dict(example.origin.metadata).get("complete", "").strip().lower()
    placed = all(line.box is not None for line in example.lines)
    return bool(example.lines) and placed and said not in ("0", "false", "no")


def _page(example: PageExample, area_px: float) -> TruePage:
    image = example.image.decoded()
    scale = min(1.0, float(np.sqrt(area_px / image.size)))
    if scale < 1:
        image = np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    origin = example.origin
    lines = true_lines(image, list(_scaled(example.lines_in_image(), scale)))
    return TruePage(f"{origin.name}#{origin.page}", origin.document, image, tuple(lines))


def _scaled(lines: list[GroundTruthLine], scale: float) -> Iterator[dict[str, Any]]:
    for line in lines:
        assert line.box is not None
        record: dict[str, Any] = {"text": line.text, "bbox": [edge * scale for edge in line.box.as_list()]}
        for name, points in (("polygon", line.polygon), ("baseline", line.baseline)):
            if points:
                record[name] = [[x * scale, y * scale] for x, y in points]
        yield record
