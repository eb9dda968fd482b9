"""Bytes of a scan -> pages as grey pictures: JPEG, PNG, TIFF and PDF with many pages, WebP, JPEG 2000.

The bytes come from strangers. What they are is decided by their first bytes, never by a name; sizes are read from
headers and held against `Limits` before a pixel is decoded; a page is decoded when it is asked for, so that one bad
page of a document does not lose its siblings.
"""

from __future__ import annotations

import io
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ocr_model.errors import UnreadablePage

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Limits:
    """What a file may ask of this machine.

    Attributes:
        max_bytes: size of the file.
        max_pixels: pixels of one decoded page; 120 million is a newspaper page (A1) at 400 dpi.
        max_pages: pages of one document.
        pdf_dpi: resolution at which a PDF page is drawn, unless the page is one scanned picture: that keeps its own.
    """

    max_bytes: int = 512 * 2**20
    max_pixels: int = 120_000_000
    max_pages: int = 10_000
    pdf_dpi: int = 300

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.max_pixels, self.max_pages) < 1:
            raise ValueError(f"limits are positive: {self}")
        if not 30 <= self.pdf_dpi <= 1200:
            raise ValueError(f"pdf_dpi {self.pdf_dpi} is not between 30 and 1200")


@dataclass(frozen=True)
class PageImage:
    """One decoded page.

    Attributes:
        pixels: [height, width] uint8, contiguous, 0 black to 255 white, upright as its EXIF orientation says.
        dpi: resolution of `pixels`, if the file tells a believable one.
        reduced_by: 2 where a JPEG over the pixel limit was decoded at half its size, else 1.
    """

    pixels: Grey
    dpi: float | None = None
    reduced_by: int = 1


class Document(Protocol):
    """An open file; `decode` may be called for each page on its own."""

    page_count: int

    def decode(self, index: int) -> PageImage:
        """Page `index`, counted from 0.

        Raises:
            UnreadablePage: this page cannot be decoded; the others may.
        """


def open_document(data: bytes, limits: Limits = Limits()) -> Document:
    """The document that the bytes hold; no pixel is decoded yet.

    Raises:
        UnreadablePage: the file as a whole cannot be read: `empty-file`, `too-many-bytes`, `not-an-image`,
            `truncated`, `encrypted`, `damaged`, `too-many-pages`.
    """
    if not data:
        raise UnreadablePage("the file is empty", "empty-file")
    if len(data) > limits.max_bytes:
        raise UnreadablePage(f"{len(data)} bytes are over the limit of {limits.max_bytes}", "too-many-bytes")
    kind = sniff(data)
    if kind is None:
        raise UnreadablePage("not a JPEG, PNG, TIFF, PDF, WebP or JPEG 2000 file", "not-an-image")
    if kind == "pdf":
        return _Pdf(data, limits)
    if kind == "tiff":
        return _Tiff(data, limits)
    return _Picture(data, limits, _PLUGINS[kind])


_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "jpeg": JpegImageFile,
    "png": PngImageFile,
    "webp": WebPImageFile,
    "jpeg2000": Jpeg2KImageFile,
}

_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
)


def sniff(data: bytes) -> str | None:
    """What the first bytes say the file is, or None.

    >>> sniff(b"%PDF-1.7 ..."), sniff(b"Dear Sir,")
    ('pdf', None)
    """
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "pdf" if b"%PDF-" in data[:1024] else None


@contextmanager
def _as_unreadable() -> Iterator[None]:
    """Turns whatever a decoder throws at hostile bytes into `UnreadablePage`."""
    try:
        yield
    except UnreadablePage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadablePage(str(error), "too-many-pixels") from error
    except MemoryError as error:
        raise UnreadablePage("not enough memory to decode the page", "too-many-pixels") from error
    except Exception as error:  # decoders raise nearly every class on broken bytes
        raise UnreadablePage(f"{type(error).__name__}: {error}", _reason_for(error)) from error


def _reason_for(error: Exception) -> str:
    message = str(error).lower()
    if isinstance(error, EOFError) or "truncated" in message or "unexpected end" in message:
        return "truncated"
    if isinstance(error, NotImplementedError) or "unknown" in message or "unsupported" in message:
        return "unsupported"
    return "damaged"


def _check_pixels(width: int, height: int, limit: int) -> None:
    if width < 1 or height < 1:
        raise UnreadablePage(f"the page is {width} x {height} pixels", "zero-size")
    if width * height > limit:
        raise UnreadablePage(f"{width} x {height} pixels are over the limit of {limit}", "too-many-pixels")
    Image.MAX_IMAGE_PIXELS = limit  # Pillow's own check, which is global, must neither warn below ours nor be off


class _Picture:
    """A file of one picture. Further frames (stereo pairs, animations) are not pages."""

    page_count = 1

    def __init__(self, data: bytes, limits: Limits, plugin: type[ImageFile.ImageFile]) -> None:
        self._limits = limits
        with _as_unreadable():
            # The plugin itself and not Image.open: other formats stay out, and the size is checked here.
            self.image = plugin(io.BytesIO(data))

    def decode(self, index: int) -> PageImage:
        image = self.image
        with _as_unreadable():
            reduced_by = self._reduction()
            width, height = image.size[0] // reduced_by, image.size[1] // reduced_by
            _check_pixels(width, height, self._limits.max_pixels)
            if isinstance(image, JpegImageFile):
                image.draft("L", (width, height))  # decodes the luminance only
            dpi = _dpi(image)
            pixels = _grey(_upright(image))
        return PageImage(pixels, dpi / reduced_by if dpi else None, reduced_by)

    def _reduction(self) -> int:
        """2 for a JPEG of up to four times the pixel limit. A progressive one would hold all coefficients in memory."""
        width, height = self.image.size
        too_big = width * height > self._limits.max_pixels
        halves = isinstance(self.image, JpegImageFile) and not self.image.info.get("progressive")
        return 2 if too_big and halves else 1


class _Tiff:
    """A TIFF file: each full-size directory of its chain is a page."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._limits = limits
        with _as_unreadable():
            directories, whole = _tiff_directories(data, limits.max_pages)
            self._pages = [n for n, entry in enumerate(directories) if not entry.is_reduced_copy]
            self._directories = directories
            if len(directories) > limits.max_pages:
                raise UnreadablePage(f"over the limit of {limits.max_pages} pages", "too-many-pages")
            if not self._pages:
                raise UnreadablePage("the file ends before its first page", "truncated")
            self._image = TiffImageFile(io.BytesIO(data)) if whole or len(directories) > 1 else None
        self.page_count = len(self._pages) + (not whole)  # the page where the chain breaks is reported once

    def decode(self, index: int) -> PageImage:
        if index >= len(self._pages) or self._image is None:
            raise UnreadablePage("the file ends inside this page; pages after it cannot be found", "truncated")
        number = self._pages[index]
        directory = self._directories[number]
        with _as_unreadable():
            _check_pixels(directory.width, directory.height, self._limits.max_pixels)
            self._image.seek(number)
            _check_pixels(self._image.size[0], self._image.size[1], self._limits.max_pixels)
            dpi = _dpi(self._image)
            inverted = self._image.tag_v2.get(262) == 0  # white is zero, which Pillow minds up to 8 bits
            pixels = _grey(_upright(self._image), inverted)
        return PageImage(pixels, dpi)


@dataclass(frozen=True)
class _TiffDirectory:
    width: int
    height: int
    is_reduced_copy: bool


def _tiff_directories(data: bytes, limit: int) -> tuple[list[_TiffDirectory], bool]:
    """The image directories of a TIFF or BigTIFF file, at most `limit` + 1, and whether the chain came to its end."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    head, count_code, entry_size, offset_code = (8, "Q", 20, "Q") if big else (4, "H", 12, "I")
    directories: list[_TiffDirectory] = []
    seen: set[int] = set()
    try:
        (offset,) = struct.unpack_from(order + offset_code, data, head)
        while offset and offset not in seen and len(directories) <= limit:
            seen.add(offset)
            (entries,) = struct.unpack_from(order + count_code, data, offset)
            first = offset + struct.calcsize(count_code)
            (offset,) = struct.unpack_from(order + offset_code, data, first + entries * entry_size)
            tags = {}
            for at in range(first, first + entries * entry_size, entry_size):
                tag, field_type = struct.unpack_from(order + "HH", data, at)
                if tag in (254, 256, 257):  # NewSubfileType, ImageWidth, ImageLength: a SHORT or a LONG
                    code = "H" if field_type == 3 else "I"
                    (tags[tag],) = struct.unpack_from(order + code, data, at + entry_size - (8 if big else 4))
            directories.append(_TiffDirectory(tags.get(256, 0), tags.get(257, 0), bool(tags.get(254, 0) & 0b101)))
    except struct.error:
        return directories, False
    return directories, True


def _upright(image: Image.Image) -> Image.Image:
    """The decoded image, turned as its EXIF orientation says; a broken EXIF block counts as none."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are good, and the EXIF parser raises nearly every class on broken bytes
        return image


def _dpi(image: Image.Image) -> float | None:
    """A resolution that a scanner can have, else None: many files say 1 or 72 and mean nothing by it."""
    try:
        value = float(image.info["dpi"][0])
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError):
        return None
    return round(value, 1) if 72 < value <= 4800 else None


def _grey(image: Image.Image, deep_is_inverted: bool = False) -> Grey:
    """[height, width] uint8 of any Pillow mode: transparent parts are paper, CMYK is ink, deep samples lose depth."""
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_from_deep(np.asarray(image), deep_is_inverted)
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        paper = Image.new("L", image.size, 255)
        paper.paste(coloured.convert("L"), mask=coloured.getchannel("A"))
        image = paper
    elif image.mode == "LAB":
        image = image.getchannel(0)
    elif image.mode != "L":
        image = image.convert("L" if image.mode != "P" else "RGB").convert("L")
    return np.ascontiguousarray(np.asarray(image))


def _grey_from_deep(samples: NDArray[np.generic], inverted: bool) -> Grey:
    """Integers of 16 or 32 bits and floats to 0..255; white is the first of 1, 8, 12, 16 bits that holds all values.

    >>> _grey_from_deep(np.array([[0, 65535]], np.uint16), inverted=False).tolist()
    [[0, 255]]
    """
    values = np.nan_to_num(samples.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    highest = float(values.max())
    steps = (1.0, 255.0, 4095.0, 65535.0) if samples.dtype.kind == "f" else (4095.0, 65535.0)
    full_scale = next((step for step in steps if highest <= step), highest)
    grey = np.clip(values * (255.0 / full_scale), 0, 255).astype(np.uint8)
    return 255 - grey if inverted else grey


_PDFIUM = threading.Lock()  # the library is not thread-safe


class _Pdf:
    """A PDF file. A page that is one scanned picture keeps the picture's resolution, any other is drawn."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._limits = limits
        with _PDFIUM:
            try:
                self._pdf = pdfium.PdfDocument(data)
                self.page_count = len(self._pdf)
                if self._pdf.get_formtype() != pdfium_c.FORMTYPE_NONE:
                    self._pdf.init_forms()
            except pdfium.PdfiumError as error:
                if error.err_code in (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY):
                    raise UnreadablePage("the PDF needs a password", "encrypted", "decrypt it first") from error
                raise UnreadablePage(f"the PDF cannot be opened: {error}", "damaged") from error
        if self.page_count > limits.max_pages:
            raise UnreadablePage(
                f"{self.page_count} pages are over the limit of {limits.max_pages}", "too-many-pages", "split the PDF"
            )
        if self.page_count < 1:
            raise UnreadablePage("the PDF has no page", "zero-size")

    def decode(self, index: int) -> PageImage:
        with _PDFIUM, _as_unreadable():
            page = self._pdf[index]
            try:
                return self._decode(page)
            finally:
                page.close()

    def _decode(self, page: pdfium.PdfPage) -> PageImage:
        width_in, height_in = _page_size_in(page)
        scan = _full_page_scan(page, self._limits.max_pixels)
        if scan is None:
            pixels_at_1_dpi = width_in * height_in
            dpi = min(self._limits.pdf_dpi, math.sqrt(self._limits.max_pixels / pixels_at_1_dpi))
            return PageImage(_draw(page, dpi), round(dpi, 1))
        dpi = scan.get_px_size()[0] / _extent_in(scan)[0]
        picture = _embedded_jpeg(page, scan, self._limits)
        return PageImage(_draw(page, dpi) if picture is None else picture, round(dpi, 1))


def _page_size_in(page: pdfium.PdfPage) -> tuple[float, float]:
    """Inches. The media box is looked at because PDFium takes Letter paper for an empty one."""
    box = page.get_mediabox(fallback_ok=False)
    if box is not None and (box[0] == box[2] or box[1] == box[3]):
        raise UnreadablePage(f"the page's media box is {box}", "zero-size")
    width, height = page.get_size()
    if not (width > 0 and height > 0):
        raise UnreadablePage(f"the page is {width} x {height} points", "zero-size")
    return width / 72, height / 72


def _full_page_scan(page: pdfium.PdfPage, max_pixels: int) -> pdfium.PdfImage | None:
    """The one picture that covers at least 95 % of the page, if there is nothing else to see on it.

    Raises:
        UnreadablePage: the page draws a picture of more than `max_pixels`, wherever it is.
    """
    left, bottom, right, top = page.get_bbox()
    pictures, others = [], 0
    for shape in page.get_objects():
        if isinstance(shape, pdfium.PdfImage):
            width, height = shape.get_px_size()
            _check_pixels(width, height, max_pixels)
            pictures.append(shape)
        elif not _is_invisible_text(shape):
            others += 1
    if len(pictures) != 1 or others or pictures[0].level > 0:
        return None
    x0, y0, x1, y1 = pictures[0].get_bounds()
    covered = max(0.0, min(x1, right) - max(x0, left)) * max(0.0, min(y1, top) - max(y0, bottom))
    return pictures[0] if covered >= 0.95 * (right - left) * (top - bottom) else None


def _is_invisible_text(shape: pdfium.PdfObject) -> bool:
    """The text layer that another OCR program laid under the picture."""
    return (
        shape.type == pdfium_c.FPDF_PAGEOBJ_TEXT
        and pdfium_c.FPDFTextObj_GetTextRenderMode(shape) == pdfium_c.FPDF_TEXTRENDERMODE_INVISIBLE
    )


def _extent_in(scan: pdfium.PdfImage) -> tuple[float, float]:
    """Width and height of the picture itself on paper, in inches, however it is turned."""
    a, b, c, d, _, _ = scan.get_matrix().get()
    return math.hypot(a, b) / 72, math.hypot(c, d) / 72


def _embedded_jpeg(page: pdfium.PdfPage, scan: pdfium.PdfImage, limits: Limits) -> Grey | None:
    """The scan's own JPEG, decoded without drawing (ten times as fast), or None where drawing could differ."""
    a, b, c, d, _, _ = scan.get_matrix().get()
    upright = a > 0 and d > 0 and abs(b) < 1e-3 * a and abs(c) < 1e-3 * d
    x0, y0, x1, y1 = scan.get_bounds()
    left, bottom, right, top = page.get_bbox()
    inside = x0 >= left - 1 and y0 >= bottom - 1 and x1 <= right + 1 and y1 <= top + 1
    if not (upright and inside) or list(scan.get_filters()) != ["DCTDecode"]:
        return None
    if pdfium_c.FPDFPageObj_HasTransparency(scan):
        return None
    picture = _Picture(bytes(scan.get_data()), limits, JpegImageFile)
    if picture.image.mode not in ("L", "RGB") or picture.image.getexif():
        return None
    return np.ascontiguousarray(np.rot90(picture.decode(0).pixels, -page.get_rotation() // 90))


def _draw(page: pdfium.PdfPage, dpi: float) -> Grey:
    """The page drawn at a resolution. A hair less than asked, since PDFium rounds 2480.0001 pixels up."""
    longest = max(page.get_size())
    scale = dpi / 72 - 1e-3 / longest
    bitmap = page.render(scale=max(scale, 1e-4), grayscale=True, draw_annots=True)
    try:
        pixels = bitmap.to_numpy()
        return (pixels if pixels.ndim == 2 else pixels[:, :, 0]).copy(order="C")
    finally:
        bitmap.close()
