"""The picture of a page as PDF holds it: the scan's own JPEG where it is one that PDF takes, else coded anew."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

from pipelines.formats.record import PageScan

Matrix = tuple[float, float, float, float, float, float]

_JPEG_QUALITY = 80
_JPEG_MAX_SIDE_PX = 65_500
_INK, _PAPER = 8, 247  # grey levels up to and from which a picture of two levels counts as one

# EXIF orientation -> matrix that lays the picture as it is stored, a unit square, upright on the unit square.
_UPRIGHT: dict[int, Matrix] = {
    1: (1, 0, 0, 1, 0, 0),
    2: (-1, 0, 0, 1, 1, 0),
    3: (-1, 0, 0, -1, 1, 1),
    4: (1, 0, 0, -1, 0, 1),
    5: (0, -1, -1, 0, 1, 1),
    6: (0, -1, 1, 0, 0, 1),
    7: (0, 1, 1, 0, 0, 0),
    8: (0, 1, -1, 0, 1, 0),
}


@dataclass(frozen=True)
class Picture:
    """An image XObject.

    Attributes:
        entries: of its dictionary, without the colour space and the length.
        components: of a pixel.
        profile: ICC profile of the colours, or empty.
        upright: matrix from the unit square of PDF's images to the unit square of the upright page.
    """

    entries: str
    data: bytes
    components: int = 1
    profile: bytes = b""
    upright: Matrix = _UPRIGHT[1]


@dataclass(frozen=True)
class JpegHead:
    """What the markers of a JPEG tell.

    Attributes:
        is_rgb: whether the components are named R, G and B, so that they need no conversion.
        is_adobe: whether Adobe's marker is there: CMYK is stored inverted then.
        orientation: of EXIF, 1 to 8.
        profile: ICC profile of the colours; empty if there is none that is sound.
    """

    width: int
    height: int
    components: int
    is_rgb: bool = False
    is_adobe: bool = False
    orientation: int = 1
    profile: bytes = b""


def picture_of(scan: PageScan, width_px: int, height_px: int, *, cmyk: bool = True) -> Picture:
    """The picture for a page of that size; the scan's JPEG unchanged where it can be.

    Pixels of two levels are coded as CCITT group 4, others as a grey JPEG: a `PageScan` has no colours but in its JPEG.

    Args:
        cmyk: whether four inks are allowed; else they become RGB.
    """
    head = jpeg_head(scan.jpeg) if scan.jpeg else None
    if scan.jpeg and head and _shows(head, scan.pixels.shape, width_px, height_px):
        if head.components < 4 or cmyk:
            return _from_jpeg(scan.jpeg, head)
        if head.width * head.height <= 2 * scan.pixels.size:  # not one that was too large to be decoded whole
            return _from_jpeg(_as_rgb(scan.jpeg), replace(head, components=3, is_adobe=False, profile=b""))
    return _from_pixels(scan.pixels)


def _shows(head: JpegHead, shape: tuple[int, ...], width_px: int, height_px: int) -> bool:
    """Whether the JPEG is the page: of the pixels' size, or of the page's where that was read smaller."""
    size = (head.width, head.height) if head.orientation < 5 else (head.height, head.width)
    tolerance_px = width_px / shape[1] + 1
    near = abs(size[0] - width_px) <= tolerance_px and abs(size[1] - height_px) <= tolerance_px
    return near or size == (shape[1], shape[0])


def jpeg_head(data: bytes) -> JpegHead | None:
    """Size and kind of a JPEG that PDF viewers decode; None for any other.

    That is Huffman-coded, sequential or progressive, eight bits, one, three or four components, with an end.
    """
    frame: JpegHead | None = None
    is_adobe, at = False, 2
    profile: dict[int, bytes] = {}
    if data[:2] != b"\xff\xd8":
        return None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill
            at += 1
            continue
        body = data[at + 4 : at + 2 + length]
        if marker == 0xDA:  # the scan, in which no marker can stand by chance
            if not frame or data.find(b"\xff\xd9", at) < 0:
                return None
            icc = sound_profile(b"".join(part for _, part in sorted(profile.items())), frame.components)
            return replace(frame, is_adobe=is_adobe, orientation=_orientation(data), profile=icc)
        if marker in _FRAMES:
            frame = _frame(body) if marker in _DECODED_FRAMES and not frame else None
            if frame is None:
                return None
        is_adobe |= marker == 0xEE and body[:5] == b"Adobe"
        if marker == 0xE2 and body[:12] == b"ICC_PROFILE\0" and len(body) > 14:
            profile[body[12]] = body[14:]
        at += 2 + length
    return None


_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODED_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # the others are lossless, hierarchical or coded arithmetically


def _frame(body: bytes) -> JpegHead | None:
    """The frame header, or None where it is not eight bits deep, or has no size or a strange number of components."""
    if len(body) < 6 or body[0] != 8 or len(body) != 6 + 3 * body[5] or body[5] not in (1, 3, 4):
        return None
    height, width = struct.unpack(">HH", body[1:5])
    return JpegHead(width, height, body[5], is_rgb=body[6::3] == b"RGB") if width and height else None


def sound_profile(profile: bytes, components: int) -> bytes:
    """The ICC profile, or nothing where PDF/A would not take it for a picture of so many components."""
    kinds = {1: b"GRAY", 3: b"RGB ", 4: b"CMYK"}
    head = profile[:128]
    fits = len(head) == 128 and head[16:20] == kinds[components] and head[12:16] in (b"scnr", b"mntr", b"prtr", b"spac")
    if not fits or head[:4] != len(profile).to_bytes(4, "big") or head[8] not in (2, 4):
        return b""
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except OSError:
        return b""
    return profile


def _orientation(jpeg: bytes) -> int:
    """As reading took it: 1 where the file tells none that makes sense."""
    try:
        value = JpegImageFile(io.BytesIO(jpeg)).getexif().get(0x0112, 1)
    except Exception:  # as in reading: the pixels are good, and the parser raises nearly every class on broken bytes
        return 1
    return value if value in _UPRIGHT else 1


def _from_jpeg(data: bytes, head: JpegHead) -> Picture:
    entries = f"{_entries(head.width, head.height, 8)} /Filter /DCTDecode"
    if head.components == 4 and head.is_adobe:
        entries += " /Decode [1 0 1 0 1 0 1 0]"
    if head.is_rgb:
        entries += " /DecodeParms <</ColorTransform 0>>"
    return Picture(entries, data, head.components, head.profile, _UPRIGHT[head.orientation])


def _as_rgb(jpeg: bytes) -> bytes:
    """A CMYK JPEG in RGB, lying as it lay."""
    return _jpeg_of(JpegImageFile(io.BytesIO(jpeg)).convert("RGB"), 90)


def _from_pixels(pixels: NDArray[np.uint8]) -> Picture:
    height, width = pixels.shape
    if bool(((pixels <= _INK) | (pixels >= _PAPER)).all()):
        coding = f"/Filter /CCITTFaxDecode /DecodeParms <</K -1 /Columns {width} /Rows {height} /BlackIs1 false>>"
        return Picture(f"{_entries(width, height, 1)} {coding}", _group_4(pixels))
    entries = _entries(width, height, 8)
    if max(width, height) > _JPEG_MAX_SIDE_PX:
        return Picture(f"{entries} /Filter /FlateDecode", zlib.compress(pixels.tobytes(), 6))
    return Picture(f"{entries} /Filter /DCTDecode", _jpeg_of(Image.fromarray(pixels), _JPEG_QUALITY))


def _entries(width: int, height: int, bits: int) -> str:
    return f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /BitsPerComponent {bits}"


def _jpeg_of(image: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality, optimize=True)
    return data.getvalue()


def _group_4(pixels: NDArray[np.uint8]) -> bytes:
    """The rows as one run of CCITT group 4, taken out of the TIFF file that libtiff makes of them."""
    ink = Image.fromarray(np.where(pixels > 127, 0, 255).astype(np.uint8)).convert("1")
    data = io.BytesIO()
    ink.save(data, "TIFF", compression="group4", tiffinfo={278: pixels.shape[0]})  # rows in a strip: all
    tags = TiffImageFile(io.BytesIO(data.getvalue())).tag_v2
    (start,), (length,) = tags[273], tags[279]
    return data.getvalue()[start : start + length]
