import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from ocr_model.document import Box, Line, Page, Region, Word
from ocr_model.errors import UnreadablePage
from pipelines.formats.page_xml import EPOCH, NAMESPACE, NAMESPACES, PAGE, read_page_xml
from pipelines.formats.record import PageRecord
from tests.pipelines.formats.pages import WORDS, page_of, region_of, written
from tests.pipelines.formats.schemas import faults

NS = f"{{{NAMESPACE}}}"
COORDS = '<Coords points="10,20 60,20 60,30 10,30"/>'


def page_faults(data: bytes) -> list[str]:
    return faults(data, "pagecontent-2019-07-15.xsd")


def page_file(body: str, namespace: str = NAMESPACE) -> bytes:
    return (
        f'<PcGts xmlns="{namespace}"><Metadata><Creator>x</Creator><Created>{EPOCH}</Created>'
        f"<LastChange>{EPOCH}</LastChange></Metadata>"
        f'<Page imageFilename=" a/b.jpg " imageWidth="100" imageHeight="200">{body}</Page></PcGts>'
    ).encode()


def text(value: str, attributes: str = "") -> str:
    return f"<TextEquiv {attributes}><Unicode>{value}</Unicode></TextEquiv>"


def region(name: str, inside: str = "", attributes: str = "") -> str:
    """A region with one line that says its name."""
    return (
        f'<TextRegion id="{name}" {attributes}>{COORDS}{inside}'
        f'<TextLine id="l{name}">{COORDS}{text(name)}</TextLine></TextRegion>'
    )


def order(*names: str) -> str:
    refs = "".join(f'<RegionRefIndexed index="{n}" regionRef="{name}"/>' for n, name in reversed([*enumerate(names)]))
    return f'<ReadingOrder><OrderedGroup id="o">{refs}</OrderedGroup></ReadingOrder>'


# ---- writing


@pytest.mark.parametrize(
    "page",
    [
        page_of(),
        page_of("a b", "Wör-"),
        page_of("side", quarter_turns=3),
        Page(100, 200, (region_of("head", kind="heading"), Region((), Box(1, 1, 2, 2)), region_of("t", kind="table"))),
        Page(50, 15, (region_of("beyond the edges"),), skew_deg=-1.5),
    ],
    ids=["empty", "text", "turned", "kinds", "outside"],
)
def test_every_page_is_valid(page: Page) -> None:
    record = PageRecord("a.jpg", 1, page, dpi=300, run={"date": "2024-05-06T07:08:09Z"})
    assert page_faults(written(PAGE, [record])) == []


def test_page_tells_image_order_model_and_confidence() -> None:
    page = Page(100, 200, (region_of("one", kind="heading"), region_of("two")), 1, provenance={"model": "m1"})
    root = etree.fromstring(written(PAGE, [PageRecord("a/b.pdf", 7, page, dpi=300)]))
    element = root.find(f"{NS}Page")
    assert [element.get(f"image{name}") for name in ("Filename", "Width", "XResolution")] == ["a/b.pdf", "100", "300"]
    assert element.get("orientation") == "90.00"
    assert [e.get("regionRef") for e in root.iter(f"{NS}RegionRefIndexed")] == ["region_1", "region_2"]
    assert [e.get("type") for e in root.iter(f"{NS}TextRegion")] == ["heading", None]
    assert [(e.get("type"), e.get("value")) for e in root.iter(f"{NS}Label")] == [("model", "m1")]
    assert {e.get("name"): e.get("value") for e in root.iter(f"{NS}MetadataItem")}["page"] == "7"
    assert [e.get("conf") for e in root.iter(f"{NS}TextEquiv")] == ["0.925", "0.900", None, "0.925", "0.900", None]


def test_bytes_do_not_depend_on_the_time() -> None:
    data = written(PAGE, [PageRecord("a.jpg", 1, page_of("a"))])
    assert data.count(EPOCH.encode()) == 2


@given(path=st.text(), word=WORDS, kind=st.text(min_size=1))
def test_page_is_valid_whatever_the_names_and_words(path: str, word: str, kind: str) -> None:
    box = Box(1, 2, 3, 4)
    made = Line((Word(word, box, 0.5),), box, ((1, 3), (3, 3)), ((-1, 2), (3, 2), (3, 40)), 0.5)
    page = Page(9, 9, (Region((made,), box, kind),), provenance={"model": word})
    assert page_faults(written(PAGE, [PageRecord(path, 1, page)], path)) == []


# ---- reading


def test_what_is_written_is_read_back() -> None:
    regions = (region_of("Größe <&> Maß", "]]> \"zwei'", kind="stamp"), region_of("drei Wör-", top=80, kind="heading"))
    page = Page(100, 200, regions)
    truth = read_page_xml(written(PAGE, [PageRecord("a/b.jpg", 1, page)]))
    assert (truth.width, truth.height, truth.image_name, truth.ordered) == (100, 200, "a/b.jpg", True)
    assert [t.text for t in truth.lines] == [made.text for made in page.lines()]
    assert [t.box for t in truth.lines] == [made.box for made in page.lines()]
    assert [t.polygon for t in truth.lines] == [made.polygon for made in page.lines()]
    assert [t.baseline for t in truth.lines] == [made.baseline for made in page.lines()]
    assert [t.region_kind for t in truth.lines] == ["stamp", "stamp", "heading"]
    assert [w.box for t in truth.lines for w in t.words] == [w.box for made in page.lines() for w in made.words]


@pytest.mark.parametrize("namespace", sorted(NAMESPACES))
def test_older_versions_are_read(namespace: str) -> None:
    page = read_page_xml(page_file(region("r"), namespace))
    assert (page.text, page.image_name, page.lines[0].box) == ("r", "a/b.jpg", Box(10, 20, 60, 30))


def test_reading_order_counts_before_the_order_of_the_document() -> None:
    page = read_page_xml(page_file(order("c", "a", "b") + region("a") + region("b") + region("c")))
    assert page.text.split() == ["c", "a", "b"] and page.ordered


def test_without_a_reading_order_the_document_is_followed_but_not_trusted() -> None:
    page = read_page_xml(page_file(region("a") + region("b")))
    assert page.text.split() == ["a", "b"] and not page.ordered


def test_region_that_the_order_leaves_out_comes_last() -> None:
    page = read_page_xml(page_file(order("c", "b") + region("a") + region("b") + region("c")))
    assert page.text.split() == ["c", "b", "a"] and not page.ordered


def test_groups_of_a_reading_order_nest() -> None:
    groups = (
        '<ReadingOrder><UnorderedGroup id="u"><OrderedGroup id="o"><RegionRefIndexed index="1" regionRef="a"/>'
        '<RegionRefIndexed index="0" regionRef="b"/></OrderedGroup><RegionRef regionRef="c"/></UnorderedGroup>'
        "</ReadingOrder>"
    )
    page = read_page_xml(page_file(groups + region("c") + region("a") + region("b")))
    assert page.text.split() == ["b", "a", "c"] and not page.ordered


def test_nested_regions_follow_the_one_that_they_are_in() -> None:
    page = read_page_xml(page_file(order("b", "a") + region("a", region("inner")) + region("b")))
    assert page.text.split() == ["b", "a", "inner"] and page.ordered


def test_cells_of_a_table_are_read_row_by_row() -> None:
    def cell(name: str, row: int, column: int) -> str:
        line = f'<TextLine id="l{name}">{COORDS}{text(name)}</TextLine>'
        return f'<TableCell id="{name}" row="{row}" col="{column}">{COORDS}{line}</TableCell>'

    def role(row: int, column: int) -> str:
        return f'<Roles><TableCellRole rowIndex="{row}" columnIndex="{column}"/></Roles>'

    transkribus = f'<TableRegion id="t">{COORDS}{cell("c", 1, 0)}{cell("b", 0, 1)}{cell("a", 0, 0)}</TableRegion>'
    prima = f'<TableRegion id="u">{COORDS}{region("e", role(0, 1))}{region("d", role(0, 0))}</TableRegion>'
    page = read_page_xml(page_file(order("t", "u") + transkribus + prima))
    assert page.text.split() == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        (text("two", 'index="2"') + text("one", 'index="1"'), "one"),
        (text("two", 'index="0"') + text("one"), "one"),
        (f'<Word id="w1">{COORDS}{text("a")}</Word><Word id="w2">{COORDS}{text("b")}</Word>', "a b"),
        (f'<Word id="w1">{COORDS}{text("a")}</Word>{text("line")}', "line"),
        ("<TextEquiv><PlainText>plain</PlainText><Unicode>fraktur ſ</Unicode></TextEquiv>", "fraktur ſ"),
        (text("Zei\u00ad"), "Zei-"),
    ],
)
def test_text_is_the_first_reading_or_the_words(inside: str, expected: str) -> None:
    body = f'<TextRegion id="r">{COORDS}<TextLine id="l">{COORDS}{inside}</TextLine></TextRegion>'
    assert read_page_xml(page_file(body)).text == expected


def test_kind_of_a_line_is_what_the_file_calls_it() -> None:
    body = region("a", attributes='type="heading" production="printed"') + region(
        "b", attributes='''type="other" custom="readingOrder {index:1;} structure {type:stamp;}"'''
    )
    assert [(t.kind, t.region_kind) for t in read_page_xml(page_file(body)).lines] == [
        ("printed", "heading"),
        ("", "stamp"),
    ]


def test_text_of_a_region_without_lines_is_kept_without_geometry() -> None:
    page = read_page_xml(page_file(f'<TextRegion id="r">{COORDS}{text("one&#10;two")}</TextRegion>'))
    assert [(t.text, t.problem) for t in page.lines] == [("one", "no-geometry"), ("two", "no-geometry")]


@pytest.mark.parametrize(
    ("coords", "problem"),
    [
        ("", "no-geometry"),
        ('<Coords points="1,2"/>', "no-geometry"),
        ('<Coords points="500,1 600,1 600,9"/>', "outside-page"),
    ],
)
def test_line_that_is_nowhere_is_kept_with_the_reason(coords: str, problem: str) -> None:
    line = f'<TextLine id="l">{coords}{text("x")}</TextLine>'
    page = read_page_xml(page_file(f'<TextRegion id="r">{COORDS}{line}</TextRegion>'))
    assert [(t.text, t.box, t.problem) for t in page.lines] == [("x", None, problem)]


@pytest.mark.parametrize("data", [b"<PcGts/>", f'<PcGts xmlns="{NAMESPACE}"/>'.encode(), b'<alto xmlns="x"/>'])
def test_what_is_no_page_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadablePage) as caught:
        read_page_xml(data)
    assert caught.value.reason == "foreign-schema"


def test_regions_200_deep_are_read() -> None:
    body = f'<TextRegion id="r">{COORDS}' * 200 + text("deep") + "</TextRegion>" * 200
    assert read_page_xml(page_file(body)).text == "deep"


@given(st.sampled_from(["points", "custom", "index"]), st.text(st.characters(max_codepoint=0x7F, min_codepoint=32)))
def test_no_value_of_an_attribute_breaks_the_reader(name: str, value: str) -> None:
    root = etree.fromstring(page_file(order("r") + region("r")))
    for element in root.iter(f"{NS}Coords", f"{NS}TextLine", f"{NS}RegionRefIndexed", f"{NS}TextEquiv"):
        element.set(name, value)
    assert read_page_xml(etree.tostring(root)).text == "r"
