import io
import math
import re
import shutil
import struct
import subprocess
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pypdfium2 as pdfium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from ocr_model.document import Box, Line, Page, Region, Word
from ocr_model.images import open_document, sniff
from ocr_model.reader import unturned
from pipelines.formats.pdf import PDF, PDFA, srgb_profile, xmp
from pipelines.formats.pdf_objects import ObjectStream
from pipelines.formats.pdf_picture import jpeg_head, picture_of
from pipelines.formats.pdf_text import Codes, glyphless_font, to_unicode
from pipelines.formats.record import Format, PageRecord, PageScan

SAMPLES = Path(__file__).parents[3] / "samples"
DPI = 150.0
CHARACTERS = st.characters()  # with halves of surrogate pairs
HARD_LINES = (
    "Größe und Maß, ſo daß ﬁnden ﬂ é a",
    "I € 100 – dash — quote „so“ x̂ y",
    "astral 𝔘𝔫𝔦 𐍈 Ελληνικά русский 漢字 end",
)


def line_at(
    text: str, left: int, top: int, angle_deg: float = 0.0, height: int = 30, about: tuple[int, int] = (0, 0)
) -> Line:
    """A line whose characters are half as wide as it is high, turned about a point."""
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))

    def turned(x: float, y: float) -> tuple[float, float]:
        x, y = x - about[0], y - about[1]
        return about[0] + x * cosine - y * sine, about[1] + x * sine + y * cosine

    words, x = [], float(left)
    for word in text.split(" "):
        right = x + len(word) * height / 2
        corners = [turned(x, top), turned(right, top), turned(right, top + height), turned(x, top + height)]
        words.append(Word(word, Box.around(corners), 0.9))
        x = right + height / 2
    polygon = (turned(left, top), turned(x, top), turned(x, top + height), turned(left, top + height))
    baseline = turned(left, top + 0.8 * height), turned(x, top + 0.8 * height)
    return Line(tuple(words), Box.around(polygon), baseline, polygon, 0.9)


def page_of(*lines: str, angle_deg: float = 0.0, width: int = 800, height: int = 600) -> Page:
    made = tuple(line_at(text, 60, 60 + 60 * n, angle_deg, about=(60, 60)) for n, text in enumerate(lines))
    return Page(width, height, (Region(made, Box(60, 60, width, height)),) if made else ())


def on_its_side(page: Page, quarter_turns: int) -> Page:
    """The page as it lies if it takes so many clockwise turns to make it upright."""
    width, height = (page.height, page.width) if quarter_turns % 2 else (page.width, page.height)

    def point(p: tuple[float, float]) -> tuple[float, float]:
        return unturned(p, quarter_turns, width, height)

    def box(b: Box) -> Box:
        return Box.around([point((b.left, b.top)), point((b.right, b.bottom))])

    def line(given: Line) -> Line:
        words = tuple(Word(word.text, box(word.box), word.confidence) for word in given.words)
        baseline, polygon = tuple(map(point, given.baseline)), tuple(map(point, given.polygon))
        return Line(words, box(given.box), baseline, polygon, given.confidence)

    regions = tuple(Region(tuple(map(line, region.lines)), box(region.box)) for region in page.regions)
    return Page(width, height, regions, quarter_turns)


def paper(page: Page) -> PageScan:
    return PageScan(np.full((page.height, page.width), 255, np.uint8))


def written(*pages: Page, format: Format = PDF, scan: PageScan | None = None, title: str = "scan") -> bytes:
    stream = io.BytesIO()
    writer = format.open(stream, title)
    for number, page in enumerate(pages, 1):
        writer.add(PageRecord("scan", number, page, DPI), scan or paper(page))
    writer.finish()
    return stream.getvalue()


def read_lines(pdf: bytes, index: int = 0) -> list[list[str]]:
    """The words of the lines that PDFium finds. It joins what a hyphen parts."""
    text = pdfium.PdfDocument(pdf)[index].get_textpage().get_text_range()
    return [line.split() for line in text.replace("\ufffe", "-\n").splitlines() if line.strip()]


def as_pdfium(page: Page) -> list[list[str]]:
    """The lines of the page's text; PDFium takes ligatures apart."""
    text = page.text.replace("ﬁ", "fi").replace("ﬂ", "fl")
    return [line.split() for line in text.split("\n") if line]


def drawn(pdf: bytes, index: int = 0, dpi: float = DPI) -> np.ndarray:
    page = pdfium.PdfDocument(pdf)[index]
    return np.asarray(page.render(scale=dpi / 72 - 1e-3 / max(page.get_size())).to_pil().convert("RGB"))


def jpeg_of(image: Image.Image, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=95, **options)
    return data.getvalue()


@pytest.fixture(scope="module")
def shades() -> Image.Image:
    """A picture of 80 x 60 without symmetry."""
    y, x = np.mgrid[0:60, 0:80]
    return Image.fromarray(np.stack([3 * x, 4 * y, 255 - 3 * x], -1).astype(np.uint8))


@pytest.mark.parametrize("angle_deg", [0.0, 0.4, -1.0, 1.5, -7.0, 10.0])
def test_text_is_that_of_the_page_line_by_line(angle_deg: float) -> None:
    page = page_of(*HARD_LINES, angle_deg=angle_deg)
    assert read_lines(written(page)) == as_pdfium(page)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs poppler-utils")
@pytest.mark.parametrize("angle_deg", [0.0, -1.0, 4.0])
def test_another_reader_finds_the_same_text(angle_deg: float, tmp_path: Path) -> None:
    page = page_of(*HARD_LINES, "hyphen- at an end-", "ation", angle_deg=angle_deg)
    (tmp_path / "page.pdf").write_bytes(written(page))
    run = subprocess.run(["pdftotext", "-raw", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True)
    assert run.stdout.rstrip("\f\n").split("\n") == page.text.split("\n")


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
def test_page_on_its_side_is_shown_upright_with_its_text(quarter_turns: int) -> None:
    upright = page_of("left cell I am a b c", "I a 1 2 3 - b cd", "one more")
    page = on_its_side(upright, quarter_turns)
    pixels = np.full((600, 800), 255, np.uint8)
    pixels[10:60, 20:300] = 0
    pdf = written(page, scan=PageScan(np.ascontiguousarray(np.rot90(pixels, quarter_turns))))
    assert read_lines(pdf) == as_pdfium(upright)
    assert (drawn(pdf)[:, :, 0] == pixels).all()
    assert pdfium.PdfDocument(pdf)[0].get_size() == (384, 288)


def test_cells_of_a_row_stay_apart() -> None:
    rows = [("one two", "three"), ("four", "5"), ("six", "7 or 8"), ("nine and ten", "XI")]
    cells = [line_at(text, 60 + 250 * x, 60 + 50 * y + x) for y, row in enumerate(rows) for x, text in enumerate(row)]
    page = Page(800, 600, (Region(tuple(cells), Box(60, 60, 600, 300)),))
    assert page.text == "one two\tthree\nfour\t5\nsix\t7 or 8\nnine and ten\tXI"
    assert read_lines(written(page)) == as_pdfium(page)


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="needs poppler-utils")
@pytest.mark.parametrize("gap", [4, 0, -6])
def test_cells_without_a_gap_stay_apart(gap: int, tmp_path: Path) -> None:
    left = line_at("1,500.1", 60, 60)
    end = left.words[0].box.right
    left = replace(left, baseline=(left.baseline[0], (end, left.baseline[1][1])))
    right = line_at("1,550.7", end + gap, 60)
    page = Page(800, 600, (Region((left, right), left.box.union(right.box)),))
    assert page.text == "1,500.1\t1,550.7"
    assert read_lines(written(page)) == as_pdfium(page)
    (tmp_path / "page.pdf").write_bytes(written(page))
    run = subprocess.run(["pdftotext", "-raw", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True)
    assert run.stdout.split() == page.text.split()


def test_words_without_a_gap_stay_apart() -> None:
    boxes = Box(60, 60, 120, 90), Box(120, 60, 180, 90), Box(178, 60, 240, 90)
    words = tuple(Word(text, box, 0.9) for text, box in zip(("fell", "over", "each"), boxes, strict=True))
    line = Line(words, Box(60, 60, 240, 90), ((60, 84), (240, 84)), ((60, 60), (240, 60), (240, 90), (60, 90)), 0.9)
    assert read_lines(written(Page(800, 600, (Region((line,), line.box),)))) == [["fell", "over", "each"]]


def boxes_of_words(pdf: bytes, height_px: int) -> Iterator[Box]:
    """Around the characters of each word, in pixels."""
    text_page = pdfium.PdfDocument(pdf)[0].get_textpage()
    text = text_page.get_text_range()
    for word in re.finditer(r"\S+", text):
        boxes = [text_page.get_charbox(n) for n in range(*word.span())]
        scale = DPI / 72
        left, right = min(b[0] for b in boxes) * scale, max(b[2] for b in boxes) * scale
        top, bottom = height_px - max(b[3] for b in boxes) * scale, height_px - min(b[1] for b in boxes) * scale
        yield Box(round(left), round(top), round(right), round(bottom))


@pytest.mark.parametrize("angle_deg", [0.0, 1.0, -8.0])
def test_characters_lie_in_the_boxes_of_their_words(angle_deg: float) -> None:
    page = page_of("one wide letter l here", "and another line", angle_deg=angle_deg)
    words = [word for line in page.lines() for word in line.words]
    found = list(boxes_of_words(written(page), page.height))
    assert len(found) == len(words)
    assert min(box.iou(word.box) for box, word in zip(found, words, strict=True)) > 0.85


def test_viewer_finds_words_and_phrases() -> None:
    page = page_of("Größe und Maß", "find the needle here")
    text_page = pdfium.PdfDocument(written(page))[0].get_textpage()
    assert text_page.search("the needle").get_next() == (text_page.get_text_range().index("the needle"), 10)
    assert text_page.search("größe").get_next() == (0, 5)
    assert text_page.search("hay").get_next() is None


def test_text_is_not_seen() -> None:
    page = page_of("unseen")
    assert drawn(written(page)).min() == 255
    assert b"3 Tr" in picture_and_text(written(page))


def picture_and_text(pdf: bytes) -> bytes:
    """The first content stream."""
    streams = re.findall(rb"<< /Filter /FlateDecode /Length (\d+)>>\nstream\n", pdf)
    start = re.search(rb"<< /Filter /FlateDecode /Length \d+>>\nstream\n", pdf).end()
    return zlib.decompress(pdf[start : start + int(streams[0])])


def test_every_character_has_its_utf16() -> None:
    codes = Codes()
    text = "aſﬁ€𝔘\u0301"
    operand = codes.strings(text)
    table = dict(re.findall(r"<(\w{4})> <(\w+)>\n", to_unicode(codes)))
    read = b"".join(bytes.fromhex(table[code]) for code in re.findall(r"\w{4}", operand.removesuffix("> Tj")))
    assert read.decode("utf-16-be") == text


def test_characters_without_meaning_share_a_code_and_long_words_are_parted() -> None:
    codes = Codes()
    assert codes.strings("\x00\x1b\ud800\ufffe\ufeff") == "<" + "0001" * 5 + "> Tj"
    assert max(len(part) for part in codes.strings("x" * 100_000).split(" ")) < 32_767


def test_font_has_sound_tables() -> None:
    font = glyphless_font()
    count = struct.unpack(">H", font[4:6])[0]
    assert sum(struct.unpack(f">{len(font) // 4}I", font)) & 0xFFFFFFFF == 0xB1B0AFBA
    names = [font[12 + 16 * n : 16 + 16 * n] for n in range(count)]
    assert names == [b"glyf", b"head", b"hhea", b"hmtx", b"loca", b"maxp"]
    for n in range(count):
        place, length = struct.unpack(">II", font[20 + 16 * n : 28 + 16 * n])
        assert place % 4 == 0 and place + length <= len(font)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_taken_as_it_is(mode: str, progressive: bool, shades: Image.Image) -> None:
    jpeg = jpeg_of(shades.convert(mode), progressive=progressive)
    pdf = written(Page(80, 60), scan=PageScan(np.asarray(shades.convert("L")), jpeg))
    assert jpeg in pdf
    expected = np.asarray(shades.convert("L" if mode == "L" else "RGB").convert("RGB")).astype(int)
    tolerance = 40 if mode == "CMYK" else 12  # viewers have inks of their own; an inverted picture is over 100 off
    assert np.abs(drawn(pdf) - expected).mean() < tolerance


def test_jpeg_in_cmyk_becomes_rgb_in_an_archival_file(shades: Image.Image) -> None:
    jpeg = jpeg_of(shades.convert("CMYK"))
    pdf = written(Page(80, 60), scan=PageScan(np.asarray(shades.convert("L")), jpeg), format=PDFA)
    assert b"/DeviceCMYK" not in pdf
    assert np.abs(drawn(pdf) - np.asarray(shades).astype(int)).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_that_lies_otherwise_is_shown_as_exif_says(orientation: int, shades: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg = jpeg_of(shades, exif=exif)
    pixels = open_document(jpeg).decode(0).pixels
    pdf = written(Page(pixels.shape[1], pixels.shape[0]), scan=PageScan(pixels, jpeg))
    assert jpeg in pdf
    grey = np.asarray(Image.fromarray(drawn(pdf)).convert("L")).astype(int)
    assert grey.shape == pixels.shape and np.abs(grey - pixels).mean() < 4


@pytest.mark.parametrize(
    "profile, is_kept", [(srgb_profile(), True), (srgb_profile()[:-1], False), (b"x" * 200, False)]
)
def test_colour_profile_of_a_jpeg_is_kept_once_if_it_is_sound(
    profile: bytes, is_kept: bool, shades: Image.Image
) -> None:
    scan = PageScan(np.asarray(shades.convert("L")), jpeg_of(shades, icc_profile=profile))
    pdf = written(Page(80, 60), Page(80, 60), scan=scan)
    assert (pdf.count(b"/N 3"), pdf.count(b"/ICCBased"), pdf.count(b"/DeviceRGB")) == (
        (1, 2, 0) if is_kept else (0, 0, 2)
    )
    assert np.abs(drawn(pdf) - np.asarray(shades).astype(int)).mean() < 12


def test_profile_of_another_colour_space_is_left_out(shades: Image.Image) -> None:
    grey = shades.convert("L")
    assert picture_of(PageScan(np.asarray(grey), jpeg_of(grey, icc_profile=srgb_profile())), 80, 60).profile == b""


def test_jpeg_stored_as_rgb_keeps_its_colours(shades: Image.Image) -> None:
    jpeg = jpeg_of(shades, keep_rgb=True)
    pdf = written(Page(80, 60), scan=PageScan(np.asarray(shades.convert("L")), jpeg))
    assert b"/ColorTransform 0" in pdf and np.abs(drawn(pdf) - np.asarray(shades).astype(int)).mean() < 4


def replaced(jpeg: bytes, marker: int, by: int) -> bytes:
    return jpeg.replace(bytes((0xFF, marker)), bytes((0xFF, by)), 1)


@pytest.mark.parametrize(
    "damage", ["arithmetic", "twelve bits", "no end", "no scan", "another size", "no jpeg", "empty"]
)
def test_jpeg_that_viewers_may_not_decode_is_coded_anew(damage: str, shades: Image.Image) -> None:
    pixels = np.asarray(shades.convert("L"))
    jpeg = jpeg_of(shades)
    frame = jpeg.index(b"\xff\xc0")
    bad = {
        "arithmetic": replaced(jpeg, 0xC0, 0xC9),
        "twelve bits": jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :],
        "no end": jpeg[:-2],
        "no scan": jpeg[: jpeg.index(b"\xff\xda")],
        "another size": jpeg_of(shades.resize((40, 60))),
        "no jpeg": b"%PDF-1.7",
        "empty": b"",
    }[damage]
    picture = picture_of(PageScan(pixels, bad), 80, 60)
    assert picture.data != bad and picture.components == 1 and "/Width 80 /Height 60" in picture.entries
    pdf = written(Page(80, 60), scan=PageScan(pixels, bad))
    assert np.abs(drawn(pdf)[:, :, 0].astype(int) - pixels).mean() < 4


@given(st.binary(max_size=60), st.integers(0, 700))
def test_jpeg_with_holes_is_read_or_refused(noise: bytes, at: int) -> None:
    jpeg = jpeg_of(Image.new("RGB", (8, 8)))
    head = jpeg_head(jpeg[:at] + noise + jpeg[at + len(noise) :])
    assert head is None or (head.width and head.height and head.components in (1, 3, 4))


@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (64, 2000)])
def test_picture_of_black_and_white_stays_exact(shape: tuple[int, int]) -> None:
    pixels = np.where(np.random.default_rng(1).random(shape) < 0.3, 0, 255).astype(np.uint8)
    picture = picture_of(PageScan(pixels), shape[1], shape[0])
    assert "/CCITTFaxDecode" in picture.entries
    pdf = written(Page(shape[1], shape[0]), scan=PageScan(pixels))
    (shown,) = pdfium.PdfDocument(pdf)[0].get_objects()
    assert (np.asarray(shown.get_bitmap().to_pil().convert("L")) == pixels).all()


def test_picture_too_long_for_a_jpeg_is_written_all_the_same() -> None:
    pixels = np.full((2, 70_000), 128, np.uint8)
    assert "/FlateDecode" in picture_of(PageScan(pixels), 70_000, 2).entries


def test_picture_that_was_read_smaller_fills_the_page() -> None:
    pixels = np.full((300, 400), 255, np.uint8)
    pixels[:100, :200] = 0
    shown = drawn(written(Page(800, 600), scan=PageScan(pixels)))[:, :, 0]
    assert shown.shape == (600, 800) and shown[:190, :390].max() == 0 and shown[210:, 410:].min() == 255


def test_page_is_as_large_as_its_resolution_says() -> None:
    stream = io.BytesIO()
    writer = PDF.open(stream, "scan")
    page = Page(600, 300)
    for number, dpi in enumerate((150.0, None), 1):
        writer.add(PageRecord("scan", number, page, dpi), paper(page))
    writer.finish()
    assert [page.get_size() for page in pdfium.PdfDocument(stream.getvalue())] == [(288, 144), (144, 72)]


@pytest.mark.parametrize("size", [(1, 1), (3, 60_000)])
def test_page_keeps_to_the_sizes_of_pdf(size: tuple[int, int]) -> None:
    page = Page(*size)
    width, height = pdfium.PdfDocument(written(page))[0].get_size()
    assert 3 <= width <= 14_400 and 3 <= height <= 14_400


def test_page_that_could_not_be_read_keeps_its_place() -> None:
    stream = io.BytesIO()
    writer = PDF.open(stream, "scan")
    writer.skip(1)
    writer.add(PageRecord("scan", 2, page_of("here"), DPI), paper(page_of()))
    writer.skip(3)
    writer.finish()
    sizes = [page.get_size() for page in pdfium.PdfDocument(stream.getvalue())]
    assert [tuple(map(round, size)) for size in sizes] == [(595, 842), (384, 288), (384, 288)]
    assert [read_lines(stream.getvalue(), n) for n in range(3)] == [[], [["here"]], []]


def test_page_tree_of_many_pages_is_in_order() -> None:
    pages = [page_of(f"page {n}", width=300, height=200) for n in range(150)]
    pdf = written(*pages)
    assert [read_lines(pdf, n) for n in (0, 63, 64, 149)] == [[["page", str(n)]] for n in (0, 63, 64, 149)]


@pytest.mark.parametrize("format", [PDF, PDFA])
def test_same_pages_give_the_same_bytes(format: Format) -> None:
    assert written(page_of("one"), format=format) == written(page_of("one"), format=format)
    identifiers = [re.search(rb"/ID \[<(\w{32})> <(\w{32})>\]", written(page_of(t))).groups() for t in ("one", "two")]
    assert identifiers[0][0] == identifiers[0][1] != identifiers[1][0]


@settings(max_examples=40, deadline=None)
@given(
    title=st.text(CHARACTERS, max_size=50),
    word=st.text(CHARACTERS, min_size=1, max_size=30).filter(lambda w: not any(map(str.isspace, w))),
)
def test_hostile_names_and_words_break_nothing(title: str, word: str) -> None:
    box = Box(1, 2, 3, 4)
    line = Line((Word(word, box, 0.5),), box, ((1, 3), (1, 3)), ((1, 2), (3, 2), (3, 4)), 0.5)
    pdf = written(Page(9, 9, (Region((line,), box),)), title=title, format=PDFA)
    assert len(pdfium.PdfDocument(pdf)) == 1
    ElementTree.fromstring(re.search(rb"<x:xmpmeta.*</x:xmpmeta>", pdf, re.S).group())


def test_title_is_the_name_of_the_document() -> None:
    assert pdfium.PdfDocument(written(page_of(), title="Größe/<&>\x07\udcff")).get_metadata_value("Title") == (
        "Größe/<&>\\udcff"
    )


def test_colour_profile_is_the_same_whenever_it_is_made() -> None:
    profile = srgb_profile()
    assert profile[24:36] == struct.pack(">6H", 2000, 1, 1, 0, 0, 0) and profile[84:100] == bytes(16)
    assert ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).startswith("sRGB")


def test_archival_file_says_what_it_is_and_what_its_colours_mean() -> None:
    pdf = written(page_of("one"), format=PDFA)
    assert b"<pdfaid:part>2</pdfaid:part><pdfaid:conformance>B</pdfaid:conformance>" in pdf
    assert b"/S /GTS_PDFA1" in pdf and b"/Encrypt" not in pdf and b"/SMask" not in pdf
    assert b"pdfaid:part" not in written(page_of("one")) and b"pdfaid:part" not in xmp("t", False)


def test_reserved_objects_must_be_written() -> None:
    objects = ObjectStream(io.BytesIO())
    objects.reserve()
    with pytest.raises(ValueError, match=r"objects \[1\] of the PDF were reserved"):
        objects.finish(1, 1)


def test_own_files_are_read_as_scans(shades: Image.Image) -> None:
    pixels = np.asarray(shades.convert("L"))
    jpeg = jpeg_of(shades.convert("L"))
    image = open_document(written(Page(80, 60), scan=PageScan(pixels, jpeg))).decode(0)
    assert image.pixels.shape == (60, 80) and image.dpi == DPI


class Nowhere(io.RawIOBase):
    def write(self, data: object) -> int:
        return 0


def test_memory_does_not_grow_with_the_pages() -> None:
    pixels = np.zeros((60, 80), np.uint8)
    picture = jpeg_of(Image.fromarray(pixels))

    def peak_bytes(pages: int) -> int:
        tracemalloc.start()
        writer = PDF.open(Nowhere(), "long")  # type: ignore[arg-type]
        for number in range(1, pages + 1):
            jpeg = picture[:-2] + bytes(20_000) + picture[-2:]
            writer.add(PageRecord("long", number, page_of("one two three")), PageScan(pixels, jpeg))
        writer.finish()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(2)
    assert peak_bytes(220) - peak_bytes(20) < 100_000  # the pictures between them are four million


def verapdf() -> list[str] | None:
    """The command line of veraPDF, from the path or from Maven's repository.

    `mvn dependency:get -Dartifact=org.verapdf.apps:greenfield-apps:1.28.2` brings it there.
    """
    if found := shutil.which("verapdf"):
        return [found]
    jars = sorted(Path.home().glob(".m2/repository/org/verapdf/apps/greenfield-apps/*/greenfield-apps-*.jar"))
    if jars and (java := shutil.which("java")):
        return [java, "-cp", str(jars[-1]), "org.verapdf.apps.GreenfieldCliWrapper"]
    return None


@pytest.mark.slow
@pytest.mark.skipif(verapdf() is None, reason="needs veraPDF")
def test_archival_files_pass_verapdf(tmp_path: Path, shades: Image.Image) -> None:
    grey = np.asarray(shades.convert("L"))
    scans = [PageScan(grey)] + [PageScan(grey, jpeg_of(shades.convert(mode))) for mode in ("L", "RGB", "CMYK")]
    scans.append(PageScan(grey, jpeg_of(shades, icc_profile=srgb_profile())))
    scans.append(PageScan(grey, jpeg_of(shades, keep_rgb=True)))
    for n, scan in enumerate(scans):
        (tmp_path / f"{n}.pdf").write_bytes(written(Page(80, 60), scan=scan, format=PDFA))
    side = [on_its_side(page_of(*HARD_LINES), turns) for turns in range(4)]
    hostile = page_of("\x01\ud800\ufffe \ufeff", "x" * 40_000)
    pages = [*side, page_of(*HARD_LINES, angle_deg=7), hostile, Page(1, 1), Page(3, 60_000)]
    (tmp_path / "text.pdf").write_bytes(written(*pages, format=PDFA, title="a<b>\x02\udcff"))
    stream = io.BytesIO()
    writer = PDFA.open(stream, "")
    writer.skip(1)
    writer.finish()
    (tmp_path / "empty.pdf").write_bytes(stream.getvalue())
    files = sorted(map(str, tmp_path.glob("*.pdf")))
    command = [*(verapdf() or []), "--flavour", "2b", "--format", "text", "-v", *files]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout.splitlines() == [f"PASS {file} 2b" for file in files]


@pytest.mark.slow
@pytest.mark.parametrize("sample", sorted(p for p in SAMPLES.iterdir() if p.suffix in (".jpg", ".png", ".pdf", ".tif")))
def test_text_of_real_pages_is_found_again(sample: Path) -> None:
    from ocr_model.reader import Reader

    data = sample.read_bytes()
    image = open_document(data).decode(0)
    (page,) = Reader.load().read([image.pixels])
    pdf = written(page, scan=PageScan(image.pixels, data if sniff(data) == "jpeg" else None))
    found, expected = ([word for line in lines for word in line] for lines in (read_lines(pdf), as_pdfium(page)))
    # Where a line begins at the height of one in the margin, PDFium takes the two for one.
    assert sorted(found) == sorted(expected)
    assert sum(a == b for a, b in zip(found, expected, strict=True)) > 0.9 * len(expected)
