import io
import time

import numpy as np
import pytest
from PIL import Image

from ocr_model.errors import UnreadablePage
from ocr_model.images import Limits, open_document
from tests import scans


def grey(data: bytes, index: int = 0, limits: Limits = Limits()) -> np.ndarray:
    return open_document(data, limits).decode(index).pixels


def assert_left_half_is_ink(pixels: np.ndarray, tolerance: int = 12) -> None:
    width = pixels.shape[1]
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous
    assert pixels[:, : width // 2 - 1].max() <= tolerance
    assert pixels[:, width // 2 + 1 :].min() >= 255 - tolerance


def deep(image: Image.Image, factor: int = 257) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * factor)


def clear_paper() -> Image.Image:
    """Black everywhere; only the left half is opaque."""
    image = Image.new("LA", (40, 20), (0, 0))
    image.paste((0, 255), (0, 0, 20, 20))
    return image


class TiffLayout:
    """Where the directories of a small little-endian TIFF lie."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self.data[at : at + size], "little")

    def _link(self, index: int) -> int:
        """Where the offset of directory `index` is written."""
        at = 4
        for _ in range(index):
            directory = self._number(at, 4)
            at = directory + 2 + 12 * self._number(directory, 2)
        return at

    def directory_offset(self, index: int) -> int:
        return self._number(self._link(index), 4)

    def link(self, index: int, target: int) -> None:
        """Makes the directory after `index` start at `target`."""
        at = self._link(index + 1)
        self.data[at : at + 4] = target.to_bytes(4, "little")

    def value_offset(self, index: int, tag: int) -> int:
        """Where directory `index` holds the value of a tag."""
        directory = self.directory_offset(index)
        entries = range(directory + 2, directory + 2 + 12 * self._number(directory, 2), 12)
        return next(at + 8 for at in entries if self._number(at, 2) == tag)

    def strip_offset(self, index: int) -> int:
        return self._number(self.value_offset(index, 273), 4)


def white_is_zero(data: bytes) -> bytes:
    """The TIFF with its photometric tag changed; the samples stay."""
    changed = bytearray(data)
    changed[TiffLayout(data).value_offset(0, 262)] = 0
    return bytes(changed)


PAGE = scans.picture()

GOOD = {
    "grey JPEG": scans.encoded(PAGE, "JPEG", quality=95),
    "colour JPEG": scans.encoded(PAGE.convert("RGB"), "JPEG", quality=95),
    "progressive JPEG": scans.encoded(PAGE, "JPEG", quality=95, progressive=True),
    "CMYK JPEG": scans.encoded(PAGE.convert("RGB").convert("CMYK"), "JPEG", quality=95),
    "grey PNG": scans.encoded(PAGE, "PNG"),
    "bilevel PNG": scans.encoded(PAGE.convert("1"), "PNG"),
    "palette PNG": scans.encoded(PAGE.convert("P"), "PNG"),
    "PNG with clear paper": scans.encoded(clear_paper(), "PNG"),
    "palette PNG with a clear colour": scans.encoded(PAGE.convert("P"), "PNG", transparency=255),
    "16-bit PNG": scans.encoded(deep(PAGE), "PNG"),
    "16-bit TIFF": scans.encoded(deep(PAGE), "TIFF"),
    "12 bits in 16-bit TIFF": scans.encoded(deep(PAGE, 16), "TIFF"),
    "16-bit TIFF, white is zero": white_is_zero(scans.encoded(deep(PAGE.point(lambda v: 255 - v)), "TIFF")),
    "float TIFF": scans.encoded(Image.fromarray(np.asarray(PAGE, np.float32) / 255), "TIFF"),
    "bilevel TIFF": scans.encoded(PAGE.convert("1"), "TIFF"),
    "CCITT G4 TIFF": scans.encoded(PAGE.convert("1"), "TIFF", compression="group4"),
    "CCITT G4 TIFF, white is zero": scans.encoded(PAGE.convert("1"), "TIFF", compression="group4", tiffinfo={262: 0}),
    "CMYK TIFF": scans.encoded(PAGE.convert("RGB").convert("CMYK"), "TIFF"),
    "palette TIFF": scans.encoded(PAGE.convert("P"), "TIFF"),
    "LZW TIFF": scans.encoded(PAGE, "TIFF", compression="tiff_lzw"),
    "WebP": scans.encoded(PAGE.convert("RGB"), "WEBP", lossless=True),
    "JPEG 2000": scans.encoded(PAGE, "JPEG2000"),
    "PDF": scans.pdf(["0 0 100 100"]),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_every_kind_of_scan_gives_the_same_picture(data: bytes) -> None:
    assert_left_half_is_ink(grey(data))


BAD = {
    "empty file": (b"", "empty-file"),
    "text": (b"Dear Sir,\nyour letter of the 3rd", "not-an-image"),
    "half a JPEG": (scans.encoded(scans.picture(400, 400), "JPEG")[:900], "truncated"),
    "half a PNG": (scans.encoded(Image.effect_noise((64, 64), 90), "PNG")[:900], "truncated"),
    "only a signature": (b"\xff\xd8\xff\xe0", "damaged"),
    "half a TIFF": (scans.encoded(scans.picture(64, 64), "TIFF")[:50], "truncated"),
    "encrypted PDF": (scans.encrypted_pdf(), "encrypted"),
    "garbage after the signature of a PDF": (b"%PDF-1.7 garbage", "damaged"),
    "page of zero size": (scans.pdf(["0 0 0 0"]), "zero-size"),
    "picture of zero size": (scans.one_colour_png(0, 8), "damaged"),
    "huge picture": (scans.one_colour_png(40_000, 40_000), "too-many-pixels"),
}


@pytest.mark.parametrize("data, reason", BAD.values(), ids=BAD.keys())
def test_bad_file_is_unreadable_with_its_reason(data: bytes, reason: str) -> None:
    started = time.process_time()
    with pytest.raises(UnreadablePage) as caught:
        open_document(data).decode(0)
    assert caught.value.reason == reason
    assert time.process_time() - started < 0.5


def test_name_does_not_matter_but_too_many_bytes_do() -> None:
    with pytest.raises(UnreadablePage, match="over the limit of 10") as caught:
        open_document(scans.encoded(PAGE, "PNG"), Limits(max_bytes=10))
    assert caught.value.reason == "too-many-bytes"


def test_one_pixel_is_a_page() -> None:
    assert grey(scans.encoded(Image.new("L", (1, 1), 255), "PNG")).tolist() == [[255]]


def test_orientation_of_the_camera_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    pixels = grey(scans.encoded(PAGE, "JPEG", exif=exif, quality=95))
    assert pixels.shape == (40, 20)
    assert pixels[:19].max() < 12 and pixels[21:].min() > 243


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_does_not_lose_the_page() -> None:
    assert_left_half_is_ink(grey(scans.encoded(PAGE, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff", quality=95)))


def test_resolution_is_told_where_it_is_believable() -> None:
    assert open_document(scans.encoded(PAGE, "JPEG", dpi=(300, 300))).decode(0).dpi == 300
    assert open_document(scans.encoded(PAGE, "JPEG", dpi=(1, 1))).decode(0).dpi is None


def test_jpeg_over_the_limit_is_decoded_at_half_its_size() -> None:
    page = open_document(scans.encoded(PAGE, "JPEG", quality=95, dpi=(600, 600)), Limits(max_pixels=400)).decode(0)
    assert page.pixels.shape == (10, 20)
    assert (page.reduced_by, page.dpi) == (2, 300)


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["four times over", "progressive"])
def test_jpeg_that_cannot_be_reduced_is_refused(options: dict[str, bool]) -> None:
    limit = 300 if options else 100
    with pytest.raises(UnreadablePage, match="over the limit") as caught:
        open_document(scans.encoded(PAGE, "JPEG", **options), Limits(max_pixels=limit)).decode(0)
    assert caught.value.reason == "too-many-pixels"


def test_pages_of_a_tiff_have_their_own_size_and_kind() -> None:
    document = open_document(scans.tiff([PAGE, scans.picture(60, 30).convert("1"), PAGE.convert("RGB")]))
    assert document.page_count == 3
    assert document.decode(1).pixels.shape == (30, 60)
    assert_left_half_is_ink(document.decode(2).pixels)
    assert_left_half_is_ink(document.decode(0).pixels)


def test_reduced_copies_in_a_tiff_are_no_pages() -> None:
    copy = scans.picture(20, 10)
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    assert open_document(scans.tiff([PAGE, copy, PAGE])).page_count == 2


def test_bad_page_in_the_middle_of_a_tiff_leaves_its_siblings() -> None:
    noise = Image.effect_noise((64, 64), 90)
    data = bytearray(scans.tiff([noise, noise, noise], compression="tiff_deflate"))
    strip = TiffLayout(data).strip_offset(1)
    data[strip : strip + 40] = b"\xff" * 40
    document = open_document(bytes(data))
    with pytest.raises(UnreadablePage):
        document.decode(1)
    assert document.decode(0).pixels.shape == document.decode(2).pixels.shape == (64, 64)


def test_tiff_that_breaks_off_keeps_the_pages_before() -> None:
    data = scans.tiff([PAGE, PAGE, PAGE])
    document = open_document(data[: TiffLayout(data).directory_offset(2) + 10])
    assert document.page_count == 3
    assert_left_half_is_ink(document.decode(1).pixels)
    with pytest.raises(UnreadablePage) as caught:
        document.decode(2)
    assert caught.value.reason == "truncated"


def test_tiff_whose_directories_form_a_ring_ends() -> None:
    data = bytearray(scans.tiff([PAGE, PAGE]))
    layout = TiffLayout(data)
    layout.link(1, layout.directory_offset(0))
    assert open_document(bytes(data)).page_count == 2


def test_too_many_pages_are_refused_as_a_whole() -> None:
    for data in (scans.tiff([PAGE] * 3), scans.pdf(["0 0 9 9"] * 3)):
        with pytest.raises(UnreadablePage) as caught:
            open_document(data, Limits(max_pages=2))
        assert caught.value.reason == "too-many-pages"


def test_bad_page_of_a_pdf_leaves_its_siblings() -> None:
    document = open_document(scans.pdf(["0 0 100 100", "0 0 0 0", "0 0 50 100"]))
    with pytest.raises(UnreadablePage) as caught:
        document.decode(1)
    assert caught.value.reason == "zero-size"
    assert document.decode(0).pixels.shape == (417, 417)
    assert document.decode(2).pixels.shape == (417, 209)


def test_drawn_page_takes_the_resolution_asked_for_within_the_pixel_limit() -> None:
    data = scans.pdf(["0 0 72 72"])
    assert grey(data, limits=Limits(pdf_dpi=100)).shape == (100, 100)
    assert grey(data, limits=Limits(max_pixels=2500)).shape == (50, 50)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_scan_in_a_pdf_keeps_its_own_resolution(mode: str) -> None:
    page = open_document(scans.encoded(scans.picture(200, 150).convert(mode), "PDF", resolution=150))
    decoded = page.decode(0)
    assert decoded.pixels.shape == (150, 200)
    assert decoded.dpi == pytest.approx(150, abs=0.5)
    assert_left_half_is_ink(decoded.pixels)


def test_scan_of_a_turned_pdf_page_stands_upright() -> None:
    data = scans.encoded(scans.picture(200, 150), "PDF", resolution=150, quality=95)
    turned = data.replace(b"/MediaBox", b"/Rotate 90 /MediaBox")
    pixels = grey(turned)
    assert pixels.shape == (200, 150)
    assert pixels[:98].max() < 12 and pixels[102:].min() > 243


def test_pdf_with_a_huge_picture_is_refused_before_it_is_drawn() -> None:
    data = scans.encoded(scans.picture(200, 150), "PDF", resolution=150)
    with pytest.raises(UnreadablePage) as caught:
        grey(data, limits=Limits(max_pixels=20_000))
    assert caught.value.reason == "too-many-pixels"


def test_limits_are_checked_when_they_are_made() -> None:
    with pytest.raises(ValueError, match="pdf_dpi 7"):
        Limits(pdf_dpi=7)


def test_unused_bytes_stay_unread() -> None:
    stream = io.BytesIO(scans.encoded(PAGE, "PNG") + b"trailing garbage")
    assert_left_half_is_ink(grey(stream.getvalue()))
