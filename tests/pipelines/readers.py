"""Readers without a network."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ocr_model.document import Box, Line, Page, Region, Word


def page_saying(text: str, width: int, height: int) -> Page:
    box = Box(0, 0, width, height)
    corners = ((0, 0), (width, 0), (width, height), (0, height))
    line = Line((Word(text, box, 0.9),), box, ((0, height), (width, height)), corners, 0.9)
    return Page(width, height, (Region((line,), box),))


class SizeReader:
    """Reads the size of an image off it; blank images are empty, and one that is 13 pixels wide is a bug."""

    def __init__(self, bundle: str | None = None) -> None:
        self.bundle = bundle
        self.batches: list[int] = []

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]:
        self.batches.append(len(images))
        return [self._read_one(image) for image in images]

    def read_single_lines(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]:
        return [page_saying("line", image.shape[1], image.shape[0]) for image in images]

    def _read_one(self, image: NDArray[np.uint8]) -> Page:
        height, width = image.shape
        if width == 13:
            raise ArithmeticError("unlucky page")
        return Page(width, height) if image.min() > 200 else page_saying(f"{width}x{height}", width, height)


class StuckReader(SizeReader):
    """Is busy with its first page for longer than anyone waits."""

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]:
        threading.Event().wait(300)
        return super().read(images)


class KillerReader(SizeReader):
    """Kills its process with a page that is 13 pixels wide."""

    def _read_one(self, image: NDArray[np.uint8]) -> Page:
        if image.shape[1] == 13:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super()._read_one(image)


class KillsAllReader(SizeReader):
    """Kills its process whatever it reads."""

    def read(self, images: Sequence[NDArray[np.uint8]]) -> list[Page]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


class HangingReader(SizeReader):
    """Never comes back from a page that is 17 pixels wide."""

    def _read_one(self, image: NDArray[np.uint8]) -> Page:
        if image.shape[1] == 17:
            threading.Event().wait()
        return super()._read_one(image)


class LockingReader(SizeReader):
    """Sleeps on a page that is 17 pixels wide, with the lock of Python in its hands: no other thread runs any more."""

    def _read_one(self, image: NDArray[np.uint8]) -> Page:
        if image.shape[1] == 17:
            ctypes.PyDLL(None).sleep(300)
        return super()._read_one(image)
