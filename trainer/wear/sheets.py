"""Sample sheets: clean | worn in several styles | real, as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]

_GAP_PX = 4
_HEAD_PX = 18


def sheet(columns: Sequence[tuple[str, Sequence[Grey]]]) -> Grey:
    """Columns of line images under their names, [height, width] uint8.

    Args:
        columns: name and images of one size each; a column may be shorter than others.
    """
    cells = [images for _, images in columns]
    height = max(image.shape[0] for images in cells for image in images) + _GAP_PX
    widths = [max(image.shape[1] for image in images) + _GAP_PX for images in cells]
    page = np.full((_HEAD_PX + height * max(map(len, cells)), sum(widths)), 255, np.uint8)
    left = 0
    for (name, images), width in zip(columns, widths, strict=True):
        cv2.putText(page, name, (left + 2, _HEAD_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.42, 0, 1, cv2.LINE_AA)
        for row, image in enumerate(images):
            top = _HEAD_PX + row * height
            page[top : top + image.shape[0], left : left + image.shape[1]] = image
        left += width
    return page


def as_grey(values: npt.NDArray[np.floating]) -> Grey:
    """Bytes of 0 to 255 out of values from 0 to 1."""
    return np.asarray(np.clip(np.round(values * 255), 0, 255), np.uint8)
