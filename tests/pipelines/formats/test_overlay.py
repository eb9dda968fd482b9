import io

import cv2
import numpy as np
import pytest

from ocr_model.document import Page
from pipelines.formats.overlay import OVERLAY
from pipelines.formats.record import PageRecord, PageScan
from tests.pipelines.formats.pages import page_of


@pytest.mark.parametrize(
    ("page", "shape"),
    [(page_of("word"), (200, 100)), (Page(1, 1), (1, 1)), (page_of("reduced"), (100, 50))],
)
def test_picture_is_a_jpeg_of_page_and_text(page: Page, shape: tuple[int, int]) -> None:
    stream = io.BytesIO()
    writer = OVERLAY.open(stream, "a")
    writer.add(PageRecord("a.jpg", 1, page), PageScan(np.full(shape, 255, np.uint8)))
    writer.finish()
    picture = cv2.imdecode(np.frombuffer(stream.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (shape[0], 2 * shape[1], 3)
