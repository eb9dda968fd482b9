import io
import math
import struct
import time

import numpy as np
import pytest
from PIL import Image

from ocr_model.errors import UnreadablePage
from ocr_model.images import Limits, open_document, reduction
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


def tiled_tiff(image: Image.Image, tile: int = 16) -> bytes:
    """A grey TIFF in square tiles, which Pillow reads and does not write."""
    across, down = -(-image.width // tile), -(-image.height // tile)
    padded = np.zeros((down * tile, across * tile), np.uint8)
    padded[: image.height, : image.width] = np.asarray(image)
    tiles = padded.reshape(down, tile, across, tile).swapaxes(1, 2).tobytes()
    count, size = across * down, tile * tile
    first = 8 + 2 + 12 * 9 + 4
    entries = [(256, 1, image.width), (257, 1, image.height), (258, 1, 8), (259, 1, 1), (262, 1, 1), (322, 1, tile)]
    entries += [(323, 1, tile), (324, count, first), (325, count, first + 4 * count)]
    directory = b"".join(struct.pack("<HHII", tag, 4, number, value) for tag, number, value in entries)
    offsets = struct.pack(f"<{count}I", *(first + 8 * count + n * size for n in range(count)))
    sizes = struct.pack(f"<{count}I", *([size] * count))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + directory + bytes(4) + offsets + sizes + tiles


def with_first_scan_of_one_component(jpeg: bytes) -> bytes:
    """A colour JPEG whose header says that its components come one after another."""
    at = jpeg.index(b"\xff\xda\0\x0c\x03")
    return jpeg[:at] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + jpeg[at + 14 :]


def see_through() -> Image.Image:
    """Ink on the left, clear paper of any colour on the right."""
    image = Image.new("RGBA", (40, 20), (200, 30, 90, 0))
    image.paste((0, 0, 0, 255), (0, 0, 20, 20))
    return image


PAGE = scans.picture()

GOOD = {
    "grey JPEG": scans.encoded(PAGE, "JPEG", quality=95),
    "colour JPEG": scans.encoded(PAGE.convert("RGB"), "JPEG", quality=95),
    "progressive JPEG": scans.encoded(PAGE, "JPEG", quality=95, progressive=True),
    "CMYK JPEG": scans.encoded(PAGE.convert("RGB").convert("CMYK"), "JPEG", quality=95),
    "grey PNG": scans.encoded(PAGE, "PNG"),
    "colour PNG": scans.encoded(PAGE.convert("RGB"), "PNG"),
    "colour PNG with clear paper": scans.encoded(see_through(), "PNG"),
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
    "JPEG in TIFF": scans.encoded(PAGE.convert("RGB"), "TIFF", compression="jpeg", quality=95),
    "tiled TIFF": tiled_tiff(PAGE),
    "BigTIFF": scans.encoded(PAGE, "TIFF", big_tiff=True),
    "WebP": scans.encoded(PAGE.convert("RGB"), "WEBP", lossless=True),
    "lossy WebP": scans.encoded(PAGE, "WEBP", quality=95),
    "JPEG 2000": scans.encoded(PAGE, "JPEG2000"),
    "JPEG 2000 in colour": scans.encoded(PAGE.convert("RGB"), "JPEG2000"),
    "JPEG 2000 codestream": scans.encoded(PAGE, "JPEG2000", no_jp2=True),
    "PDF": scans.pdf(["0 0 100 100"]),
}


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_every_kind_of_scan_gives_the_same_picture(data: bytes) -> None:
    document = open_document(data)
    assert document.page_count == 1
    page = document.decode(0)
    assert page.reduced_by == 1
    assert_left_half_is_ink(page.pixels)


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_every_kind_of_scan_over_the_limit_is_read_at_a_fraction_of_its_size(data: bytes) -> None:
    whole = open_document(data).decode(0)
    for parts in (2, 3, 7, 30):
        limit = whole.pixels.size // parts
        page = open_document(data, Limits(max_pixels=limit)).decode(0)
        assert limit / 8 < page.pixels.size <= limit
        if not data.startswith(b"%PDF"):  # a drawn page has no size of its own
            assert whole.pixels.shape[1] / page.reduced_by == pytest.approx(page.pixels.shape[1], abs=1)
        assert page.pixels[:, 0].max() <= 25 and page.pixels[:, -1].min() >= 230


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD.keys())
def test_a_page_can_be_decoded_twice(data: bytes) -> None:
    document = open_document(data, Limits(max_pixels=400))
    first, second = document.decode(0), document.decode(0)
    assert (first.dpi, first.reduced_by) == (second.dpi, second.reduced_by)
    assert np.array_equal(first.pixels, second.pixels)


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


@pytest.mark.parametrize("format_name", ["JPEG", "JPEG2000", "PNG", "TIFF"])
@pytest.mark.parametrize("width, height", [(61, 67), (40, 300), (101, 33)])
def test_odd_sizes_are_reduced_without_moving_the_ink(format_name: str, width: int, height: int) -> None:
    data = scans.encoded(scans.picture(width, height), format_name, dpi=(600, 600))
    for limit in (width * height // 2, width * height // 9, width * height // 50):
        page = open_document(data, Limits(max_pixels=limit)).decode(0)
        edge = width // 2 / page.reduced_by
        assert page.pixels.shape == (math.ceil(height / page.reduced_by), math.ceil(width / page.reduced_by))
        assert page.pixels[:, : max(0, int(edge) - 1)].max(initial=0) < 60
        assert page.pixels[:, math.ceil(edge) + 1 :].min(initial=255) > 195
        assert page.dpi in (None, pytest.approx(600 / page.reduced_by, abs=0.1))


def test_reduction_is_the_smallest_that_suffices() -> None:
    rng = np.random.default_rng(5)
    for width, height, limit in rng.integers(1, 400, (200, 3)).tolist():
        fits = (f for f in range(1, 500) if math.ceil(width / f) * math.ceil(height / f) <= limit)
        assert reduction(width, height, limit) == next(fits)


HARD = Limits(max_pixels=100, hard_max_pixels=700)


@pytest.mark.parametrize(
    "data",
    [
        scans.encoded(PAGE, "PNG"),
        scans.encoded(PAGE, "TIFF"),
        scans.encoded(PAGE.convert("RGB"), "WEBP"),
        scans.encoded(PAGE, "JPEG", progressive=True),
        with_first_scan_of_one_component(scans.encoded(PAGE.convert("RGB"), "JPEG", subsampling=0)),
        scans.encoded(PAGE, "PDF"),
    ],
    ids=["PNG", "TIFF", "WebP", "progressive JPEG", "JPEG in three scans", "picture in a PDF"],
)
def test_page_over_the_hard_limit_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadablePage, match="40 x 20 pixels are over the limit of 700") as caught:
        open_document(data, HARD).decode(0)
    assert caught.value.reason == "too-many-pixels"


@pytest.mark.parametrize("format_name", ["JPEG", "JPEG2000"])
def test_page_over_the_hard_limit_is_read_where_the_decoder_never_holds_it(format_name: str) -> None:
    assert open_document(scans.encoded(PAGE, format_name), HARD).decode(0).pixels.shape == (5, 10)


FAX = scans.picture(204, 98)


@pytest.mark.parametrize(
    "dpi, shape, told",
    [
        ((204, 98), (204, 204), 204),
        ((98, 204), (98, 424), 204),
        ((204, 196), (98, 204), 204),
        ((1200, 75), (98, 204), 1200),
        ((300, 1), (98, 204), 300),
    ],
    ids=["fax", "fax on its side", "fine fax is square enough", "mistaken", "half unknown"],
)
def test_pixels_of_a_fax_become_square(dpi: tuple[int, int], shape: tuple[int, int], told: float) -> None:
    page = open_document(scans.encoded(FAX.convert("1"), "TIFF", compression="group4", dpi=dpi)).decode(0)
    assert (page.pixels.shape, page.dpi) == (shape, told)
    assert_left_half_is_ink(page.pixels)


def test_turned_fax_is_stretched_along_the_axis_that_the_scanner_moved() -> None:
    document = open_document(scans.encoded(FAX, "TIFF", dpi=(204, 98), tiffinfo={274: 6}))
    for _ in range(2):
        page = document.decode(0)
        assert page.pixels.shape == (204, 204)
        assert page.pixels[:100].max() < 12 and page.pixels[104:].min() > 243


def test_fax_over_the_limit_is_reduced_and_square() -> None:
    page = open_document(scans.encoded(FAX, "TIFF", dpi=(204, 98)), Limits(max_pixels=204 * 204 // 4)).decode(0)
    assert (page.pixels.shape, page.dpi, page.reduced_by) == ((102, 102), 102, 2)


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


@pytest.mark.parametrize("mode", ["L", "1"])
def test_huge_scan_in_a_pdf_is_taken_at_a_fraction_of_its_resolution(mode: str) -> None:
    data = scans.encoded(scans.picture(200, 150).convert(mode), "PDF", resolution=150)
    page = open_document(data, Limits(max_pixels=8_000)).decode(0)
    assert (page.pixels.shape, page.reduced_by) == ((75, 100), 2)
    assert page.dpi == pytest.approx(75, abs=0.5)
    assert_left_half_is_ink(page.pixels)


@pytest.mark.parametrize("media_box", ["0 0 100 141", "0 0 3 500", "0 0 500 0.5"])
def test_drawn_page_is_never_over_the_limit(media_box: str) -> None:
    for limit in (999, 1000, 1023, 5000):
        pixels = grey(scans.pdf([media_box]), limits=Limits(max_pixels=limit))
        assert limit / 2 < pixels.size <= limit


def test_limits_are_checked_when_they_are_made() -> None:
    with pytest.raises(ValueError, match="pdf_dpi 7"):
        Limits(pdf_dpi=7)
    with pytest.raises(ValueError, match="hard_max_pixels 9 is below max_pixels 10"):
        Limits(max_pixels=10, hard_max_pixels=9)


def test_unused_bytes_stay_unread() -> None:
    stream = io.BytesIO(scans.encoded(PAGE, "PNG") + b"trailing garbage")
    assert_left_half_is_ink(grey(stream.getvalue()))
