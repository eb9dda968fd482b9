"""The command line, and pages of one width that hang: `python -m tests.figures.hanging_page PLACE transcribe …`.

Places: `decoder`; `loop`, Python code that finds the lines of the page; `find`, native code that does; `lines`, native
code that reads the lines of several pages together; `locked`, native code that keeps the lock of Python; `nowhere`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import sys
import threading
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ocr_model.bundle import Bundle
from ocr_model.found_lines import FoundPage
from ocr_model.images import Document, Limits, PageImage, open_document
from ocr_model.reader import Reader, Strip
from pipelines.decoder import Decoder

PLACES = ("nowhere", "decoder", "loop", "find", "lines", "locked")
WIDTH_PX = 1111
_LONG_S = 3600


class HangingReader(Reader):
    """Hangs on pages of that width."""

    def __init__(self, bundle: Bundle, place: str) -> None:
        super().__init__(dataclasses.replace(bundle, read_lines=self._read_strips))
        self._place, self._usual, self._cut_here = place, bundle.read_lines, threading.local()

    def _found(self, image: NDArray[np.uint8]) -> FoundPage:
        if image.shape[1] == WIDTH_PX:
            while self._place == "loop":
                pass
            if self._place == "find":
                ctypes.CDLL(None).sleep(_LONG_S)
            if self._place == "locked":
                ctypes.PyDLL(None).sleep(_LONG_S)
        return super()._found(image)

    def _cut(self, image: NDArray[np.uint8], found: FoundPage) -> list[Strip]:
        self._cut_here.hangs = getattr(self._cut_here, "hangs", False) or image.shape[1] == WIDTH_PX
        return super()._cut(image, found)

    def _read_strips(self, lines: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        if self._place == "lines" and self._cut_here.hangs:
            ctypes.CDLL(None).sleep(_LONG_S)
        return self._usual(lines)


def load(bundle: str | None, place: str) -> HangingReader:
    from pipelines.load_reader import load_reader

    reader = load_reader(bundle)
    assert isinstance(reader, Reader)
    return HangingReader(reader.bundle, place)


class _HangingDocument:
    def __init__(self, document: Document) -> None:
        self._document, self.page_count = document, document.page_count

    def decode(self, index: int) -> PageImage:
        page = self._document.decode(index)
        if page.pixels.shape[1] == WIDTH_PX:
            ctypes.CDLL(None).sleep(_LONG_S)
        return page


def open_hanging(data: bytes, limits: Limits) -> Document:
    return _HangingDocument(open_document(data, limits))


def main() -> int:
    place, *argv = sys.argv[1:]
    if place == "decode":  # the decoder's process
        from pipelines import decoder_process

        return decoder_process.main(sys.argv[1:], open_hanging)
    from pipelines import cli, read_units, transcribe

    if place == "decoder":
        command = (sys.executable, "-m", "tests.figures.hanging_page", "decode")
        read_units.Decoder = partial(Decoder, command=command)  # type: ignore[assignment,misc]
    usual = transcribe.run
    transcribe.run = lambda options, *rest: usual(dataclasses.replace(options, load=partial(load, place=place)), *rest)
    return cli.main(argv)


if __name__ == "__main__":
    from tests.figures import hanging_page  # by its name other processes find `load`

    sys.exit(hanging_page.main())
