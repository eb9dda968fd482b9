import json
import threading
import unicodedata
from pathlib import Path

import pytest
from lxml import etree

from ocr_model.document import Box
from ocr_model.errors import UnreadablePage
from pipelines.formats.alto import ALTO
from pipelines.formats.hocr import HOCR
from pipelines.formats.page_xml import PAGE
from pipelines.formats.record import Format, PageRecord
from pipelines.truth_files import TruthListing, TruthPair, Unpaired, pair_truth, read_truth
from tests.pipelines.formats.pages import page_of, written
from tests.pipelines.formats.schemas import faults

DATA = Path(__file__).parents[1] / "data" / "xml"


def truth(format: Format, image: str = "") -> bytes:
    return written(format, [PageRecord(image, 1, page_of("word"))])


def listing(files: dict[str, bytes]) -> TruthListing:
    return pair_truth(files, files.__getitem__)


def paired(files: dict[str, bytes]) -> list[tuple[str, str, str]]:
    return [(pair.image, pair.truth, pair.kind) for pair in listing(files).pairs]


# ---- pairing


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a/scan.gt.txt", b"word", "gt.txt"),
        ("a/scan.lines.json", b"[]", "lines.json"),
        ("a/scan.xml", truth(ALTO), "alto"),
        ("a/scan.xml", truth(PAGE), "page"),
        ("a/scan.xml", truth(HOCR), "hocr"),
        ("a/scan.hocr", truth(HOCR), "hocr"),
        ("a/scan.html", truth(HOCR), "hocr"),
    ],
)
def test_truth_is_told_by_what_is_in_it(name: str, data: bytes, kind: str) -> None:
    assert paired({"a/scan.jpg": b"", name: data, "a/notes.txt": b""}) == [("a/scan.jpg", name, kind)]


@pytest.mark.parametrize("format", [ALTO, PAGE, HOCR])
@pytest.mark.parametrize(
    ("image", "named"),
    [
        ("x/y/other.png", "other.png"),
        ("x/y/img/other.png", "img/other.png"),
        ("x/img/other.png", "../img/other.png"),
        ("x/other.png", "other.png"),  # relative to a folder above, as some corpora have it
        ("x/y/other.png", "y/other.png"),
        ("x/y/other.png", "/scans/other.png"),
        ("x/y/other.png", "C:\\scans\\other.png"),
        ("x/y/other.png", "https://example.org/iiif/other.png"),
    ],
)
def test_image_is_the_one_that_the_file_names(format: Format, image: str, named: str) -> None:
    name = f"x/y/truth{format.extension}"
    files = {image: b"", "x/y/truth.jpg": b"", name: truth(format, named)}
    found = listing(files)
    assert [(pair.image, pair.truth) for pair in found.pairs] == [(image, name)]
    assert found.images_without_truth == (Unpaired("x/y/truth.jpg", "no-truth"),)


def test_image_with_the_same_stem_stands_in_for_one_that_is_not_there() -> None:
    assert paired({"a/scan.jpg": b"", "a/scan.xml": truth(ALTO, "renamed.tif")}) == [
        ("a/scan.jpg", "a/scan.xml", "alto")
    ]


@pytest.mark.parametrize(
    "named", ["../../secret.png", "/etc/secret.png", "../..", "a/../../../secret.png", "C:\\secret.png"]
)
def test_path_that_leads_out_of_the_corpus_is_never_taken(named: str) -> None:
    files = {"../../secret.png": b"", "../secret.png": b"", "/etc/secret.png": b"", "a/scan.xml": truth(PAGE, named)}
    assert listing(files).truth_without_image == (Unpaired("a/scan.xml", "image-outside-root"),)


def test_truths_are_read_several_at_a_time_and_paired_in_order() -> None:
    """Sixteen readers wait for each other: one after the other they would wait for ever."""
    together = threading.Barrier(16, timeout=20)
    names = [f"{n:02}.xml" for n in range(32)]

    def read(name: str) -> bytes:
        together.wait()
        return truth(ALTO, name.replace("xml", "jpg"))

    found = pair_truth([*names, *(name.replace("xml", "jpg") for name in names)], read)
    assert [pair.truth for pair in found.pairs] == names


def test_what_is_left_over_has_a_reason() -> None:
    files = {
        "alone.jpg": b"",
        "alone.xml.jpg": b"",
        "bad.jpg": b"",
        "bad.xml": b"<a>",
        "mets.xml": b"<mets/>",
        "page.html": b"<p>no hOCR</p>",
        "twice.jpg": b"",
        "twice.tif": b"",
        "twice.gt.txt": b"x",
        "widow.gt.txt": b"x",
    }
    found = listing(files)
    assert found.pairs == ()
    assert {left.path: left.reason for left in found.images_without_truth} == {
        "alone.jpg": "no-truth",
        "alone.xml.jpg": "no-truth",
        "bad.jpg": "unreadable-truth",
        "twice.jpg": "ambiguous",
        "twice.tif": "ambiguous",
    }
    assert {left.path: left.reason for left in found.truth_without_image} == {
        "bad.xml": "bad-xml",
        "mets.xml": "foreign-schema",
        "page.html": "foreign-schema",
        "twice.gt.txt": "ambiguous",
        "widow.gt.txt": "no-image",
    }


def test_best_truth_of_an_image_counts_and_the_others_are_named() -> None:
    files = {"s.jpg": b"", "s.gt.txt": b"x", "s.lines.json": b"[]", "s.xml": truth(PAGE), "s.hocr": truth(HOCR)}
    assert listing(files).pairs == (TruthPair("s.jpg", "s.xml", "page", ("s.lines.json", "s.hocr", "s.gt.txt")),)


def test_file_in_other_units_is_paired_without_its_resolution() -> None:
    data = truth(ALTO, "scan.jpg").replace(b"<MeasurementUnit>pixel", b"<MeasurementUnit>mm10")
    files = {"scan.jpg": b"", "x.xml": data}
    assert paired(files) == [("scan.jpg", "x.xml", "alto")]
    assert len(read_truth("x.xml", files.__getitem__, dpi=254)) == 1


def test_real_names_find_their_images() -> None:
    names = [path.name for path in DATA.glob("*.xml")]
    images = [name.replace(".xml", ".png" if "https" in name else ".jpg") for name in names]
    found = pair_truth([*names, *images], lambda name: (DATA / name).read_bytes())
    assert len(found.pairs) == len(names) and not found.images_without_truth and not found.truth_without_image


# ---- reading


REAL = sorted(DATA.glob("*.xml"))


@pytest.mark.parametrize("path", REAL, ids=[path.stem[:12] for path in REAL])
def test_published_truth_is_valid_by_its_schema_and_keeps_every_line(path: Path) -> None:
    data = path.read_bytes()
    assert faults(data, "alto-4-4.xsd") == []
    (page,) = read_truth(path.name, lambda name: data)
    root = etree.fromstring(data)
    strings = [" ".join(s.get("CONTENT").split()) for s in root.iter("{*}String")]
    assert [line.text for line in page.lines] == [unicodedata.normalize("NFC", text) for text in strings]
    assert all(line.baseline for line in page.lines if line.box) and all(
        line.polygon for line in page.lines if line.box
    )


@pytest.mark.parametrize("version", [2, 3])
def test_older_versions_of_alto_say_the_same(version: int) -> None:
    data = REAL[0].read_bytes()
    older = data.replace(b"alto/ns-v4#", f"alto/ns-v{version}#".encode())
    assert older != data and read_truth("a.xml", lambda name: older) == read_truth("a.xml", lambda name: data)


def test_text_becomes_lines_without_geometry() -> None:
    (page,) = read_truth("a.gt.txt", lambda name: "\ufeffone  two\r\n\n\nthree\n".encode())
    assert [(line.text, line.region, line.problem) for line in page.lines] == [
        ("one two", "1", "no-geometry"),
        ("three", "2", "no-geometry"),
    ]


def test_lines_of_json_keep_geometry_and_what_is_said_of_them() -> None:
    records = [
        {"bbox": [1, 2, 30.5, 9], "text": "a", "polygon": [[1, 2], [30, 2], [30, 9]], "baseline": [[1, 8], [30, 8]]},
        {"bbox": [1, 12, 30, 19], "text": "b", "hand": True},
        {"bbox": [1, 22, 30, 29], "text": "c", "type": "Print", "skip_text": True},
        {"bbox": [30, 22, 1, 29], "text": "d", "polygon": "x"},
        {"text": "e"},
    ]
    (page,) = read_truth("a.lines.json", lambda name: json.dumps(records).encode())
    assert [line.box for line in page.lines[:2]] == [Box(1, 2, 31, 9), Box(1, 12, 30, 19)]
    assert (page.lines[0].polygon, page.lines[0].baseline) == (((1, 2), (30, 2), (30, 9)), ((1, 8), (30, 8)))
    assert [line.kind for line in page.lines] == ["", "handwritten", "Print", "", ""]
    assert [line.problem for line in page.lines] == ["", "", "skip-text", "no-geometry", "no-geometry"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.gt.txt", b" \n", "empty-file"),
        ("a.gt.txt", b"\xff", "bad-encoding"),
        ("a.lines.json", b"{", "bad-json"),
        ("a.lines.json", b"{}", "bad-json"),
        ("a.lines.json", b"[1]", "bad-json"),
        ("a.lines.json", b"[" * 100_000, "bad-json"),
        ("a.xml", b"<mets/>", "foreign-schema"),
        ("a.html", b"<p>", "foreign-schema"),
    ],
)
def test_bad_truth_is_refused_with_a_reason(name: str, data: bytes, reason: str) -> None:
    with pytest.raises(UnreadablePage) as caught:
        read_truth(name, lambda path: data)
    assert caught.value.reason == reason
