import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from ocr_model.document import Box, Line, Page, Region, Word
from ocr_model.errors import UnreadablePage
from ocr_model.truth import GroundTruthPage
from pipelines.formats.alto import ALTO, NAMESPACE, read_alto
from pipelines.formats.record import PageRecord
from tests.pipelines.formats.pages import NO_SCAN, WORDS, page_of, region_of, written
from tests.pipelines.formats.schemas import faults

DATA = Path(__file__).parents[2] / "data" / "xml"
NS = f"{{{NAMESPACE}}}"
PLACE = 'HPOS="10" VPOS="20" WIDTH="50" HEIGHT="10"'


def alto_faults(data: bytes) -> list[str]:
    return faults(data, "alto-4-4.xsd")


def alto(
    lines: str, unit: str = "pixel", version: int = 4, tags: str = "", page: str = 'WIDTH="100" HEIGHT="200"'
) -> bytes:
    """A file with one block of those lines."""
    return (
        f'<alto xmlns="http://www.loc.gov/standards/alto/ns-v{version}#"><Description>'
        f"<MeasurementUnit>{unit}</MeasurementUnit><sourceImageInformation><fileName> a.jpg </fileName>"
        f"</sourceImageInformation></Description><Tags>{tags}</Tags><Layout>"
        f'<Page ID="p" PHYSICAL_IMG_NR="1" {page}><PrintSpace><TextBlock ID="b">{lines}</TextBlock></PrintSpace></Page>'
        "</Layout></alto>"
    ).encode()


def line(content: str, attributes: str = PLACE) -> str:
    return f"<TextLine {attributes}>{content}</TextLine>"


def only(data: bytes) -> GroundTruthPage:
    (page,) = read_alto(data)
    return page


# ---- writing


def test_several_pages_are_valid_and_have_identifiers_of_their_own() -> None:
    records = [PageRecord(path, 1, page_of("a b", "Wör-"), dpi=300) for path in ("1.jpg", "2.jpg")]
    data = written(ALTO, [None, records[0], None, records[1], None])
    assert alto_faults(data) == []
    pages = list(etree.fromstring(data).iter(f"{NS}Page"))
    assert [page.get("PHYSICAL_IMG_NR") for page in pages] == ["1", "2", "3", "4", "5"]
    assert [page.get("QUALITY") for page in pages] == ["Missing", None, "Missing", None, "Missing"]


@pytest.mark.parametrize(
    "page",
    [
        page_of(),
        page_of("side", quarter_turns=3),
        Page(100, 200, (region_of("head", kind="heading"), Region((), Box(1, 1, 2, 2)), region_of("body", top=60))),
        Page(
            9,
            9,
            (Region((Line((), Box(0, 0, 9, 9), ((0, 9), (9, 9)), ((0, 0), (9, 0), (9, 9)), 1),), Box(0, 0, 9, 9)),),
        ),
    ],
    ids=["empty", "turned", "kinds", "line without words"],
)
def test_every_page_is_valid(page: Page) -> None:
    assert alto_faults(written(ALTO, [PageRecord("a.jpg", 1, page)])) == []


def test_document_without_a_readable_page_is_valid() -> None:
    assert alto_faults(written(ALTO, [None, None])) == []


def test_alto_tells_image_model_and_confidence() -> None:
    provenance = {"model": "m1", "pagemill": "0.1.0"}
    page = Page(100, 200, (region_of("word"),), quarter_turns=1, provenance=provenance)
    root = etree.fromstring(written(ALTO, [PageRecord("a/b.jpg", 1, page, run={"config": "c1", "date": "2024-01-01"})]))
    assert root.findtext(f".//{NS}fileName") == "a/b.jpg"
    assert root.findtext(f".//{NS}softwareVersion") == "0.1.0"
    assert root.findtext(f".//{NS}processingStepSettings") == '{"config": "c1", "model": "m1"}'
    element = root.find(f".//{NS}Page")
    assert (element.get("PC"), element.get("ROTATION")) == ("0.925", "90")
    assert root.find(f".//{NS}String").attrib == {
        "ID": "string_1_1_1_1",
        "CONTENT": "word",
        "WC": "0.925",
        "HPOS": "10",
        "VPOS": "10",
        "WIDTH": "79",
        "HEIGHT": "20",
    }


def test_pages_are_written_as_they_come() -> None:
    stream = io.BytesIO()
    writer = ALTO.open(stream, "a")
    sizes = []
    for number in range(1, 4):
        writer.add(PageRecord("a.pdf", number, page_of("word")), NO_SCAN)
        sizes.append(len(stream.getvalue()))
    assert sizes[0] > 0 and sizes[2] - sizes[1] == sizes[1] - sizes[0]


@given(path=st.text(), word=WORDS, kind=st.text(min_size=1))
def test_alto_is_valid_whatever_the_names_and_words(path: str, word: str, kind: str) -> None:
    box = Box(1, 2, 3, 4)
    made = Line((Word(word, box, 0.5),), box, ((1, 3), (3, 3)), ((1, 2), (3, 2), (3, 4)), 0.5)
    page = Page(9, 9, (Region((made,), box, kind),), provenance={"model": word})
    data = written(ALTO, [PageRecord(path, 1, page)], path)
    assert alto_faults(data) == []


# ---- reading


def test_what_is_written_is_read_back() -> None:
    page = Page(100, 200, (region_of("Größe <&> Maß", "]]> \"zwei'", kind="heading"), region_of("drei Wör-", top=80)))
    truth = only(written(ALTO, [PageRecord("a/b.jpg", 1, page)]))
    assert (truth.width, truth.height, truth.image_name, truth.ordered) == (100, 200, "a/b.jpg", True)
    assert [t.text for t in truth.lines] == [made.text for made in page.lines()]
    assert [t.box for t in truth.lines] == [made.box for made in page.lines()]
    assert [t.polygon for t in truth.lines] == [made.polygon for made in page.lines()]
    assert [t.baseline for t in truth.lines] == [made.baseline for made in page.lines()]
    assert [t.region_kind for t in truth.lines] == ["heading", "heading", ""]
    assert [w.box for t in truth.lines for w in t.words] == [w.box for made in page.lines() for w in made.words]


def test_real_file_is_read() -> None:
    page = only((DATA / "EHRI-BF-19380810_EN_01.xml").read_bytes())
    assert (page.width, page.height, page.image_name) == (1209, 1653, "EHRI-BF-19380810_EN_01.jpg")
    assert len(page.lines) == 19 and not page.problems() and page.ordered
    first = page.lines[0]
    assert (first.text, first.box, first.kind) == ("10th August, 1938.", Box(413, 355, 686, 404), "default")
    assert first.baseline == ((414.0, 377.0), (686.0, 381.0))
    assert first.words == ()  # eScriptorium keeps the whole line as one string


def test_kinds_and_lines_without_text_of_a_real_file_are_kept() -> None:
    page = only((DATA / "FRAN_0011_11082_L-medium.xml").read_bytes())
    assert {(t.kind, t.region_kind) for t in page.lines} == {("DefaultLine:Typewritten", "MainZone")}
    assert page.problems() == {"no-text": 4}
    assert len(page.usable()) == len(page.lines) - 4


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.glob("*.xml")))
def test_real_files_are_valid_by_the_newer_schema(name: str) -> None:
    assert alto_faults((DATA / name).read_bytes()) == []


@pytest.mark.parametrize("version", [2, 3, 4])
def test_older_versions_are_read(version: int) -> None:
    assert only(alto(line('<String CONTENT="x"/>'), version=version)).text == "x"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('<String CONTENT="a"/><SP/><String CONTENT="b"/>', "a b"),
        ('<String CONTENT="a"/><String CONTENT="b"/>', "a b"),  # no spaces in the file: every string is a word
        ('<String CONTENT="a"/><String CONTENT="b"/><SP/><String CONTENT="c"/>', "ab c"),
        ('<String CONTENT="Zei"/><HYP CONTENT="-"/>', "Zei-"),
        ('<String CONTENT="Zei"/><HYP CONTENT="&#xad;"/>', "Zei-"),
        ('<String CONTENT="Zei&#xad;"/>', "Zei-"),
        ('<String CONTENT="Zei" SUBS_TYPE="HypPart1" SUBS_CONTENT="Zeitung"/><HYP CONTENT="⸗"/>', "Zei⸗"),
        ('<String CONTENT="tung" SUBS_TYPE="HypPart2" SUBS_CONTENT="Zeitung"/>', "tung"),
        ('<String CONTENT="Dr." SUBS_TYPE="Abbreviation" SUBS_CONTENT="Doktor"/>', "Dr."),
        ('<String CONTENT="cafe&#x301; &#xa0;x"/>', "café x"),
        ('<String CONTENT="a"><ALTERNATIVE>b</ALTERNATIVE></String>', "a"),
    ],
)
def test_text_is_what_is_printed(content: str, text: str) -> None:
    assert only(alto(line(content))).lines[0].text == text


def test_hyphen_belongs_to_the_last_word() -> None:
    content = f'<String CONTENT="a" {PLACE}/><SP/><String CONTENT="Zei" {PLACE}/><HYP CONTENT="-"/>'
    assert [word.text for word in only(alto(line(content))).lines[0].words] == ["a", "Zei-"]


@pytest.mark.parametrize(
    ("baseline", "points"),
    [
        ("28", ((10.0, 28.0), (60.0, 28.0))),
        ("10 28 60 29", ((10.0, 28.0), (60.0, 29.0))),
        ("10,28 60,29.5", ((10.0, 28.0), (60.0, 29.5))),
        ("10,28 60", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_baseline_is_read_in_every_notation(baseline: str, points: object) -> None:
    found = only(alto(line('<String CONTENT="x"/>', f'{PLACE} BASELINE="{baseline}"'))).lines[0]
    assert found.baseline == points and not found.problem


@pytest.mark.parametrize(("unit", "scale"), [("mm10", 300 / 254), ("inch1200", 0.25)])
def test_other_units_become_pixels_by_the_resolution(unit: str, scale: float) -> None:
    data = alto(line('<String CONTENT="x"/>', f'{PLACE} BASELINE="10,28 60,28"'), unit)
    (page,) = read_alto(data, dpi=300)
    assert (page.width, page.height) == (round(100 * scale), round(200 * scale))
    assert page.lines[0].baseline == ((10 * scale, 28 * scale), (60 * scale, 28 * scale))
    with pytest.raises(UnreadablePage) as caught:
        read_alto(data)
    assert caught.value.reason == "no-resolution"


def test_box_is_cut_off_at_the_page_and_counted() -> None:
    page = only(alto(line('<String CONTENT="x"/>', 'HPOS="90" VPOS="-5" WIDTH="50" HEIGHT="10"')))
    assert page.lines[0].box == Box(90, 0, 100, 5)
    assert page.problems() == {"clipped": 1} and len(page.usable()) == 1


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ("", "no-geometry"),
        ('HPOS="10" VPOS="20" WIDTH="0" HEIGHT="10"', "no-geometry"),
        ('HPOS="nan" VPOS="20" WIDTH="1e999" HEIGHT="10"', "no-geometry"),
        ('HPOS="300" VPOS="20" WIDTH="5" HEIGHT="10"', "outside-page"),
    ],
)
def test_line_that_is_nowhere_is_kept_with_the_reason(attributes: str, problem: str) -> None:
    page = only(alto(line('<String CONTENT="x"/>', attributes)))
    assert [(t.text, t.box, t.problem) for t in page.lines] == [("x", None, problem)]
    assert page.usable() == []


def test_box_comes_from_the_polygon_or_the_words_where_the_line_has_none() -> None:
    polygon = '<Shape><Polygon POINTS="10,20 60,20 60,30"/></Shape>'
    page = only(alto(line(f'{polygon}<String CONTENT="x"/>', "") + line(f'<String CONTENT="y" {PLACE}/>', "")))
    assert [t.box for t in page.lines] == [Box(10, 20, 60, 30)] * 2


def test_lines_in_composed_blocks_and_margins_are_read_in_order() -> None:
    def block(name: str) -> str:
        return f'<TextBlock ID="{name}">{line(f"""<String CONTENT="{name}"/>""")}</TextBlock>'

    spaces = (
        f"<TopMargin>{block('top')}</TopMargin><BottomMargin>{block('bottom')}</BottomMargin><PrintSpace>"
        f'<ComposedBlock ID="c" TYPE="table"><ComposedBlock ID="d">{block("cell")}</ComposedBlock></ComposedBlock>'
        f"{block('body')}</PrintSpace>"
    )
    data = (
        f'<alto xmlns="{NAMESPACE}"><Layout><Page ID="p" PHYSICAL_IMG_NR="1">{spaces}</Page></Layout></alto>'.encode()
    )
    page = only(data)
    assert [t.text for t in page.lines] == ["top", "cell", "body", "bottom"]
    assert [t.region_kind for t in page.lines] == ["", "table", "", ""]
    assert (page.width, page.height) == (None, None)


def test_tags_of_a_line_are_its_kind() -> None:
    tags = '<OtherTag ID="t1" LABEL="Handwritten"/><LayoutTag ID="t2" LABEL="Signature"/>'
    page = only(alto(line('<String CONTENT="x"/>', f'{PLACE} TAGREFS="t1 t2 t3"'), tags=tags))
    assert page.lines[0].kind == "Handwritten Signature"


def test_file_with_another_reading_order_says_that_it_is_not_in_order() -> None:
    data = alto(line('<String CONTENT="x"/>')).replace(b'TextBlock ID="b"', b'TextBlock ID="b" IDNEXT="b"')
    assert not only(data).ordered


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"<alto/>", "foreign-schema"),
        (b'<alto xmlns="http://www.loc.gov/standards/alto/ns-v1#"/>', "foreign-schema"),
        (b'<html xmlns="http://www.w3.org/1999/xhtml"/>', "foreign-schema"),
        (alto("", unit="furlong"), "foreign-schema"),
    ],
)
def test_what_is_no_alto_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadablePage) as caught:
        read_alto(data)
    assert caught.value.reason == reason


@given(
    st.sampled_from(["HPOS", "WIDTH", "BASELINE", "TAGREFS"]),
    st.text(st.characters(max_codepoint=0x7F, min_codepoint=32)),
)
def test_no_value_of_an_attribute_breaks_the_reader(name: str, value: str) -> None:
    root = etree.fromstring(alto(line('<String CONTENT="x"/>')))
    next(root.iter("{*}TextLine")).set(name, value)
    assert only(etree.tostring(root)).text == "x"
