"""Bytes of a scan -> pages as grey pictures: JPEG, PNG, TIFF and PDF with many pages, WebP, JPEG 2000.

The bytes come from strangers. What they are is decided by their first bytes, never by a name; sizes are read from
headers and held against `Limits` before a pixel is decoded; a page is decoded when it is asked for, so that one bad
page of a document does not lose its siblings. A page of more than `max_pixels` is read at a fraction of its size: the
decoder does that where the format allows it (JPEG, JPEG 2000, PDF), else the decoded page is reduced.
"""

from __future__ import annotations

import io
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        max_pixels: pixels of one page as it is handed out; 120 million is a newspaper page (A1) at 400 dpi. A page of
            more is read at a fraction of its size.
        hard_max_pixels: pixels that may be held while a page is read; a page that needs more is refused.
        max_pages: pages of one document.
        pdf_dpi: resolution at which a PDF page is drawn, unless the page is one scanned picture: that keeps its own.
    """

    max_bytes: int = 512 * 2**20
    max_pixels: int = 120_000_000
    hard_max_pixels: int = 480_000_000
    max_pages: int = 10_000
    pdf_dpi: int = 300

    def __post_init__(self) -> None:
        if min(self.max_bytes, self.max_pixels, self.max_pages) < 1:
            raise ValueError(f"limits are positive: {self}")
        if self.hard_max_pixels < self.max_pixels:
            raise ValueError(f"hard_max_pixels {self.hard_max_pixels} is below max_pixels {self.max_pixels}")
        if not 30 <= self.pdf_dpi <= 1200:
            raise ValueError(f"pdf_dpi {self.pdf_dpi} is not between 30 and 1200")


@dataclass(frozen=True)
class PageImage:
    """One decoded page.

    Attributes:
        pixels: [height, width] uint8, contiguous, 0 black to 255 white, upright as its EXIF orientation says.
        dpi: resolution of `pixels`, if the file tells a believable one.
        reduced_by: how many times wider and higher the page is in the file, 1 unless it is over the pixel limit.
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
    check_bytes(len(data), limits)
    kind = sniff(data)
    if kind is None:
        raise UnreadablePage("not a JPEG, PNG, TIFF, PDF, WebP or JPEG 2000 file", "not-an-image")
    if kind == "pdf":
        return _Pdf(data, limits)
    if kind == "tiff":
        return _Tiff(data, limits)
    return _Picture(data, limits, _PLUGINS[kind])


def check_bytes(size_bytes: int, limits: Limits) -> None:
    """Nothing, if a file of this size may be opened.

    Raises:
        UnreadablePage: `empty-file` or `too-many-bytes`.
    """
    if size_bytes < 1:
        raise UnreadablePage("the file is empty", "empty-file")
    if size_bytes > limits.max_bytes:
        raise UnreadablePage(f"{size_bytes} bytes are over the limit of {limits.max_bytes}", "too-many-bytes")


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
        raise UnreadablePage("not enough memory to decode the page", "out-of-memory") from error
    except Exception as error:  # decoders raise nearly every class on broken bytes
        raise UnreadablePage(f"{type(error).__name__}: {error}", _reason_for(error)) from error


def _reason_for(error: Exception) -> str:
    message = str(error).lower()
    if "out of memory" in message:
        return "out-of-memory"
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


def reduction(width: float, height: float, max_pixels: int) -> int:
    """The smallest whole factor that brings a size within the limit, broken pixels at the edges counted as whole ones.

    >>> reduction(200, 100, 20_000), reduction(201, 100, 20_000), reduction(201, 100, 5_050)
    (1, 2, 2)
    """
    factor = max(1, math.isqrt(int(width * height) // max_pixels), math.ceil(max(width, height) / max_pixels))
    while math.ceil(width / factor) * math.ceil(height / factor) > max_pixels:
        factor += max(1, factor // 1000)
    return factor


def _power_of_two_from(factor: int, largest: int) -> int:
    """The first power of two that is not below `factor`, at most `largest`."""
    return min(1 << (factor - 1).bit_length(), largest)


def _within(pixels: Grey, max_pixels: int) -> tuple[Grey, int]:
    """The page reduced by a whole factor if it is over the limit, and the factor."""
    height, width = pixels.shape
    factor = reduction(width, height, max_pixels)
    if factor == 1:
        return pixels, 1
    return np.ascontiguousarray(np.asarray(Image.fromarray(pixels).reduce(factor))), factor


class _Picture:
    """A file of one picture. Further frames (stereo pairs, animations) are not pages."""

    page_count = 1

    def __init__(self, data: bytes, limits: Limits, plugin: type[ImageFile.ImageFile]) -> None:
        self._data = data
        self._limits = limits
        self._plugin = plugin
        with _as_unreadable():
            self.image = self._open()

    def _open(self) -> ImageFile.ImageFile:
        # The plugin itself and not Image.open: other formats stay out, and the size is checked here.
        return self._plugin(io.BytesIO(self._data))

    def decode(self, index: int) -> PageImage:
        with _as_unreadable():
            image = self._open()  # anew: a picture that was decoded keeps its pixels and the size that it was read at
            drafted = self._draft(image)
            dpi = _dpi(image)
            pixels, factor = _within(_grey(_upright(image)), self._limits.max_pixels)
        reduced_by = drafted * factor
        return PageImage(pixels, round(dpi / reduced_by, 1) if dpi else None, reduced_by)

    def _draft(self, image: ImageFile.ImageFile) -> int:
        """Has the decoder read at a fraction of the size where that is needed and can be had; returns the factor."""
        width, height = image.size
        wanted = reduction(width, height, self._limits.max_pixels)
        hard = self._limits.hard_max_pixels
        if isinstance(image, JpegImageFile):
            if not _is_read_in_one_pass(image, self._data):
                _check_pixels(width, height, hard)  # all its coefficients are held, at whatever scale it is read
            scale = _power_of_two_from(wanted, 8)
            _check_pixels(-(-width // scale), -(-height // scale), hard)
            image.draft("L", (max(1, width // scale), max(1, height // scale)))  # decodes the luminance only
            return image.decoderconfig[0]
        if isinstance(image, Jpeg2KImageFile):
            scale = _power_of_two_from(wanted, min(8, 1 << _resolution_levels(self._data)))
            width, height = -(-width // scale), -(-height // scale)
            _check_pixels(width, height, hard)
            if scale > 1:
                image._size = (width * scale, height * scale)  # Pillow rounds where the decoder rounds up
                image.reduce = scale.bit_length() - 1
            return scale
        _check_pixels(width, height, hard)
        return 1


def _is_read_in_one_pass(image: JpegImageFile, data: bytes) -> bool:
    """Whether the first scan of a JPEG holds all components, so that no more than a few rows are held at a time."""
    if image.info.get("progressive"):
        return False
    end = image.fp.tell() if image.fp else 0  # Pillow has read to the end of the header of the first scan
    head = data[max(0, end - 6 - 2 * image.layers) :][:3]
    return head == bytes([0, 6 + 2 * image.layers, image.layers])


def _resolution_levels(data: bytes) -> int:
    """How often a JPEG 2000 picture can be halved while it is decoded: the decomposition levels of its COD segment."""
    at = data.find(b"\xff\x4f\xff\x51") + 2
    while at + 10 <= len(data) and data[at : at + 1] == b"\xff" and data[at + 1] not in (0x90, 0xD9):
        if data[at + 1] == 0x52:
            return min(data[at + 9], 32)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


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
            _check_pixels(directory.width, directory.height, self._limits.hard_max_pixels)
            self._image.seek(number)
            _check_pixels(self._image.size[0], self._image.size[1], self._limits.hard_max_pixels)
            x_dpi, y_dpi = _dpi(self._image, 0), _dpi(self._image, 1)
            if directory.is_on_its_side:  # Pillow turns the page while it decodes
                x_dpi, y_dpi = y_dpi, x_dpi
            inverted = self._image.tag_v2.get(262) == 0  # white is zero, which Pillow minds up to 8 bits
            pixels = _grey(_upright(self._image), inverted)
            return _square(pixels, x_dpi, y_dpi, self._limits.max_pixels)


def _square(pixels: Grey, x_dpi: float | None, y_dpi: float | None, max_pixels: int) -> PageImage:
    """The page with square pixels, of the higher resolution where the two differ clearly, within the pixel limit."""
    height, width = pixels.shape
    dpi = max(x_dpi, y_dpi) if x_dpi and y_dpi else x_dpi
    stretch_x, stretch_y = (dpi / x_dpi, dpi / y_dpi) if dpi and x_dpi and y_dpi else (1.0, 1.0)
    if not 1.1 < stretch_x * stretch_y <= 4:  # 204 x 196 is meant to be square, and 1200 x 75 is a mistake
        stretch_x = stretch_y = 1.0
        dpi = x_dpi
    factor = reduction(width * stretch_x, height * stretch_y, max_pixels)
    size = max(1, int(width * stretch_x / factor)), max(1, int(height * stretch_y / factor))
    picture = Image.fromarray(pixels)
    if factor > 1:
        picture = picture.reduce(factor)
    if stretch_x * stretch_y > 1:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    return PageImage(np.ascontiguousarray(np.asarray(picture)), round(dpi / factor, 1) if dpi else None, factor)


@dataclass(frozen=True)
class _TiffDirectory:
    width: int
    height: int
    is_reduced_copy: bool
    is_on_its_side: bool


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
                if tag in (254, 256, 257, 274):  # NewSubfileType, sizes, Orientation: a SHORT or a LONG
                    code = "H" if field_type == 3 else "I"
                    (tags[tag],) = struct.unpack_from(order + code, data, at + entry_size - (8 if big else 4))
            is_reduced_copy = bool(tags.get(254, 0) & 0b101)
            on_its_side = tags.get(274) in (5, 6, 7, 8)
            directories.append(_TiffDirectory(tags.get(256, 0), tags.get(257, 0), is_reduced_copy, on_its_side))
    except struct.error:
        return directories, False
    return directories, True


def _upright(image: Image.Image) -> Image.Image:
    """The decoded image, turned as its EXIF orientation says; a broken EXIF block counts as none."""
    image.load()
    with suppress(Exception):  # the pixels are good, and the EXIF parser raises nearly every class on broken bytes
        ImageOps.exif_transpose(image, in_place=True)  # else it copies a page that needs no turning
    return image


def _dpi(image: Image.Image, axis: int = 0) -> float | None:
    """A resolution that a scanner can have, across (0) or down (1), else None: many say 1 or 72 for no reason."""
    try:
        value = float(image.info["dpi"][axis])
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
        max_pixels = self._limits.max_pixels
        scan, memory_bytes = _full_page_scan(page, self._limits.hard_max_pixels)
        if scan is None:
            dpi = _dpi_within(width_in, height_in, self._limits.pdf_dpi, max_pixels)
            return PageImage(_draw(page, dpi, memory_bytes), round(dpi, 1))
        dpi = scan.get_px_size()[0] / _extent_in(scan)[0]
        picture = _embedded_jpeg(page, scan, self._limits)
        if picture is not None:
            return PageImage(picture.pixels, round(dpi / picture.reduced_by, 1), picture.reduced_by)
        reduced_by = reduction(width_in * dpi - 1e-3, height_in * dpi - 1e-3, max_pixels)
        return PageImage(_draw(page, dpi / reduced_by, memory_bytes), round(dpi / reduced_by, 1), reduced_by)


def _dpi_within(width_in: float, height_in: float, dpi: float, max_pixels: int) -> float:
    """`dpi`, or the highest at which the drawn page is within the limit.

    >>> _dpi_within(10, 10, 300, 9_000_000), _dpi_within(10, 10, 300, 1_000_000)
    (300, 100.0)
    """
    lower = min(dpi, math.sqrt(max_pixels / (width_in * height_in)))
    if math.ceil(width_in * lower - 1e-3) * math.ceil(height_in * lower - 1e-3) <= max_pixels:
        return lower
    half = (width_in + height_in) / (2 * width_in * height_in)  # of (width x dpi + 1) (height x dpi + 1) = max_pixels
    return math.sqrt(half**2 + (max_pixels - 1) / (width_in * height_in)) - half


def _page_size_in(page: pdfium.PdfPage) -> tuple[float, float]:
    """Inches. The media box is looked at because PDFium takes Letter paper for an empty one."""
    box = page.get_mediabox(fallback_ok=False)
    if box is not None and (box[0] == box[2] or box[1] == box[3]):
        raise UnreadablePage(f"the page's media box is {box}", "zero-size")
    width, height = page.get_size()
    if not (width > 0 and height > 0):
        raise UnreadablePage(f"the page is {width} x {height} points", "zero-size")
    return width / 72, height / 72


def _full_page_scan(page: pdfium.PdfPage, max_pixels: int) -> tuple[pdfium.PdfImage | None, int]:
    """The one picture that covers at least 95 % of the page, if there is nothing else to see on it.

    With it the bytes that the biggest picture of the page takes while it is drawn.

    Raises:
        UnreadablePage: the page draws a picture of more than `max_pixels`, wherever it is.
    """
    left, bottom, right, top = page.get_bbox()
    pictures, others, memory_bytes = [], 0, 0
    for shape in page.get_objects():
        if isinstance(shape, pdfium.PdfImage):
            width, height = shape.get_px_size()
            _check_pixels(width, height, max_pixels)
            pictures.append(shape)
            bilevel = {"CCITTFaxDecode", "JBIG2Decode"} & set(shape.get_filters())
            memory_bytes = max(memory_bytes, width * height * (1 if bilevel else 5))  # measured: 4.4 in colour
        elif not _is_invisible_text(shape):
            others += 1
    if len(pictures) != 1 or others or pictures[0].level > 0:
        return None, memory_bytes
    x0, y0, x1, y1 = pictures[0].get_bounds()
    covered = max(0.0, min(x1, right) - max(x0, left)) * max(0.0, min(y1, top) - max(y0, bottom))
    covers_all = covered >= 0.95 * (right - left) * (top - bottom)
    return pictures[0] if covers_all else None, memory_bytes


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


def _embedded_jpeg(page: pdfium.PdfPage, scan: pdfium.PdfImage, limits: Limits) -> PageImage | None:
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
    decoded = picture.decode(0)
    turned = np.ascontiguousarray(np.rot90(decoded.pixels, -page.get_rotation() // 90))
    return PageImage(turned, reduced_by=decoded.reduced_by)


def _draw(page: pdfium.PdfPage, dpi: float, picture_bytes: int) -> Grey:
    """The page drawn at a resolution. A hair less than asked, since PDFium rounds 2480.0001 pixels up."""
    width_pt, height_pt = page.get_size()
    # PDFium leaves out a picture that it has no memory for, silently: so the memory is asked for here and given back.
    np.empty(int(picture_bytes + width_pt * height_pt * (dpi / 72) ** 2) + 32 * 2**20, np.uint8)
    scale = dpi / 72 - 1e-3 / max(width_pt, height_pt)
    bitmap = page.render(scale=max(scale, 1e-4), grayscale=True, draw_annots=True)
    try:
        pixels = bitmap.to_numpy()
        return (pixels if pixels.ndim == 2 else pixels[:, :, 0]).copy(order="C")
    finally:
        bitmap.close()
