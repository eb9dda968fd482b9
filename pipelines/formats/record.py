"""What the formats write: a page that was read, with all that is known of it, and the interface of a writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ocr_model.document import Page


@dataclass(frozen=True)
class PageRecord:
    """A page that was read, and where it comes from.

    Attributes:
        path: the file, as the user named it (`archive.zip!member` in an archive).
        number: of the page in its file, from 1.
        page: its coordinates are pixels of the picture in the file (of a PDF page: as drawn at `dpi`).
        dpi: of that picture, if the file tells.
        reduced_by: how many times smaller the picture was when it was read; `page` is scaled back already.
        page_id: SHA-256 of the file's bytes in hexadecimal, a hyphen, `number` with four digits; empty if unknown.
        document: what the page belongs to.
        metadata: the other columns of the manifest.
        run: what made the page beside its model: digest of the configuration, … plain JSON values, the same in every
            run of the same configuration.
    """

    path: str
    number: int
    page: Page
    dpi: float | None = None
    reduced_by: int = 1
    page_id: str = ""
    document: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PageScan:
    """The picture of a page, for the formats that show it.

    Attributes:
        pixels: [height, width] uint8, 0 black to 255 white; `record.reduced_by` times smaller than `record.page`.
        jpeg: the file's own bytes where the page is a JPEG file, which may be laid into a PDF as they are.
    """

    pixels: NDArray[np.uint8]
    jpeg: bytes | None = None


class DocumentWriter(Protocol):
    """Writes one document to a stream, page after page. The same pages give the same bytes."""

    def add(self, record: PageRecord, scan: PageScan) -> None:
        """The next page."""

    def skip(self, number: int) -> None:
        """The next page could not be read: its place is kept where the format has places."""

    def finish(self) -> None:
        """What ends the file. The stream stays open."""


@dataclass(frozen=True)
class Format:
    """A format of the outputs.

    Attributes:
        extension: of its files, with the dot.
        per: what a file holds: a `document` (or one page, if the user wants it so), always one `page`, or the pages of
            a whole work `unit`.
        open: a writer of one file; takes the stream and the document's name.
        shows_scan: whether `PageScan` is looked at.
    """

    name: str
    extension: str
    per: Literal["document", "page", "unit"]
    open: Callable[[BinaryIO, str], DocumentWriter]
    shows_scan: bool = False


def encoded(text: str) -> bytes:
    """UTF-8; half a surrogate pair, as in a file name that is no UTF-8, as `\\udcff`."""
    return text.encode("utf-8", "backslashreplace")
