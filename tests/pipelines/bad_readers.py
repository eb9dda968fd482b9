"""Readers that misbehave on pages of a certain width."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ocr_model.document import Page
from ocr_model.errors import BadModel
from pipelines.read_pages import PageReader
from tests.pipelines.readers import SizeReader, page_saying

KILLED, ENDED, HANGING, UNTOLD = 71, 72, 73, 74  # pixels


class Untold(Exception):
    """Cannot be taken through a pipe."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("untold")


class BadReader(SizeReader):
    """Reads its process's number, and dies, ends, hangs or raises on some pages."""

    def _read_one(self, image: NDArray[np.uint8]) -> Page:
        height, width = image.shape
        if width == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        if width == ENDED:
            os._exit(7)
        if width == HANGING:
            threading.Event().wait(300)
        if width == UNTOLD:
            raise Untold(1, 2)
        if width == 13:
            raise ArithmeticError("unlucky page")
        return page_saying(str(os.getpid()), width, height)


class SureReader(SizeReader):
    """Says the name of its bundle, which ends with its confidence in per cent; notes the widths that it is given."""

    def __init__(self, bundle: str | None) -> None:
        super().__init__(bundle)
        self.widths: list[int] = []

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]:
        self.widths += [image.shape[1] for image in images]
        return [self._saying(image.shape[1], image.shape[0]) for image in images]

    def read_single_lines(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]:
        return self.read(images)

    def _saying(self, width: int, height: int) -> Page:
        name = str(self.bundle)
        page = page_saying(name, width, height)
        (line,) = page.lines()
        confidence = int(name[-2:]) / 100
        line = replace(line, words=tuple(replace(word, confidence=confidence) for word in line.words))
        return replace(
            page, regions=(replace(page.regions[0], lines=(line,)),), provenance={"model": name, "pagemill": "1"}
        )


def load_nothing() -> PageReader:
    raise BadModel("no model there", "look for it")


def load_and_end() -> PageReader:
    os._exit(3)
