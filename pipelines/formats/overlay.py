"""A picture of the page with its lines drawn in and what was read beside it."""

from __future__ import annotations

from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from ocr_model.document import Page
from ocr_model.overlay import draw_page
from pipelines.formats.record import Format, PageRecord, PageScan


def page_as_picture(image: NDArray[np.uint8], page: Page) -> bytes:
    """`draw_page` as a JPEG file."""
    done, data = cv2.imencode(".jpg", draw_page(image, page)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise ValueError(f"a picture of {page.width} x {page.height} pixels cannot be encoded")
    return data.tobytes()


class OverlayWriter:
    """One JPEG."""

    def __init__(self, stream: BinaryIO, title: str) -> None:
        self._stream = stream

    def add(self, record: PageRecord, scan: PageScan) -> None:
        height, width = scan.pixels.shape
        self._stream.write(page_as_picture(scan.pixels, record.page.resized(width, height)))

    def skip(self, number: int) -> None:
        pass

    def finish(self) -> None:
        pass


OVERLAY = Format("overlay", ".jpg", "page", OverlayWriter, shows_scan=True)
