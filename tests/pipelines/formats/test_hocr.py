import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from ocr_model.document import Box, Line, Page, Region, Word
from ocr_model.errors import UnreadablePage
from pipelines.formats.hocr import HOCR, read_hocr
from pipelines.formats.record import PageRecord
from tests.pipelines.formats.pages import WORDS, page_of, region_of, written

XHTML = "{http://www.w3.org/1999/xhtml}"


def hocr(*records: PageRecord | None) -> etree._Element:
    return etree.fromstring(written(HOCR, records))


def titles(root: etree._Element, kind: str) -> list[str]:
    return [e.get("title") for e in root.iter() if e.get("class") == kind]


def html(body: str) -> bytes:
    return f'<html><body><div class="ocr_page" title="bbox 0 0 100 200">{body}</div></body></html>'.encode()


# ---- writing


def test_hocr_names_what_it_holds() -> None:
    root = hocr(None, PageRecord("a/b.jpg", 2, page_of("Größe <&> Maß"), dpi=299.7))
    assert titles(root, "ocr_page") == ['image "a/b.jpg"; bbox 0 0 100 200; ppageno 1; scan_res 300 300']
    assert titles(root, "ocr_carea") == ["bbox 10 10 90 30"]
    assert titles(root, "ocr_line") == ["bbox 10 10 90 30; baseline 0.050 -6"]
    assert titles(root, "ocrx_word")[0] == "bbox 10 10 35 30; x_wconf 92"
    assert "".join(root.find(f".//{XHTML}span").itertext()) == "Größe <&> Maß"


def test_hocr_names_the_system_with_its_version() -> None:
    content = {e.get("name"): e.get("content") for e in hocr().iter(f"{XHTML}meta")}
    assert content["ocr-system"].startswith("pagemill ")
    assert "ocrx_word" in content["ocr-capabilities"]


def test_line_of_a_page_on_its_side_has_an_angle_and_no_baseline() -> None:
    root = hocr(PageRecord("a.jpg", 1, page_of("side", quarter_turns=3)))
    assert titles(root, "ocr_line") == ["bbox 10 10 90 30; textangle 270"]


def test_hocr_of_an_empty_page_has_no_area() -> None:
    root = hocr(PageRecord("a.jpg", 1, page_of()))
    assert len(titles(root, "ocr_page")) == 1 and titles(root, "ocr_carea") == []


def test_identifiers_are_unique_also_where_every_page_is_the_first_of_its_file() -> None:
    root = hocr(*(PageRecord(path, 1, page_of("a b", "c d")) for path in ("1.jpg", "2.jpg")))
    names = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(set(names)) == len(names) == 2 * (1 + 1 + 2 + 4)


@given(path=st.text(), word=WORDS)
def test_hocr_is_well_formed_whatever_the_names_and_words(path: str, word: str) -> None:
    box = Box(1, 2, 3, 4)
    line = Line((Word(word, box, 0.5),), box, ((1, 3), (3, 3)), ((1, 2), (3, 2), (3, 4)), 0.5)
    root = etree.fromstring(written(HOCR, [PageRecord(path, 1, Page(9, 9, (Region((line,), box),)))], path))
    assert titles(root, "ocrx_word") == ["bbox 1 2 3 4; x_wconf 50"]


# ---- reading


def test_what_is_written_is_read_back() -> None:
    page = Page(100, 200, (region_of("Größe <&> Maß", "zwei"), region_of("drei Wör-", top=80)))
    (truth,) = read_hocr(written(HOCR, [PageRecord("a/b.jpg", 1, page)]))
    assert (truth.width, truth.height, truth.image_name, truth.ordered) == (100, 200, "a/b.jpg", True)
    assert [line.text for line in truth.lines] == [line.text for line in page.lines()]
    assert [line.box for line in truth.lines] == [line.box for line in page.lines()]
    assert [line.region for line in truth.lines] == ["block_1_1", "block_1_1", "block_1_2"]
    assert [w.box for line in truth.lines for w in line.words] == [w.box for line in page.lines() for w in line.words]
    assert truth.lines[0].baseline == ((10.0, 24.0), (90.0, 28.0))


def test_html_that_is_no_xml_is_read() -> None:
    body = "<p class=ocr_par><span class='ocr_line' title='bbox 1 2 30 40'>f&uuml;nf<br>&nbsp;&amp; sechs &mdash; A&B"
    (page,) = read_hocr(b"<!DOCTYPE html>" + html(body))
    assert [line.text for line in page.lines] == ["fünf & sechs — A&B"]
    assert page.lines[0].box == Box(1, 2, 30, 40)


def test_names_of_html_are_known_in_xhtml_too() -> None:
    doctype = b'<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/strict.dtd">'
    (page,) = read_hocr(doctype + html('<span class="ocr_line" title="bbox 1 2 30 40">a&nbsp;b</span>'))
    assert page.text == "a b"


def test_headers_captions_and_floats_are_lines_unless_they_hold_lines() -> None:
    (page,) = read_hocr(
        html(
            '<span class="ocr_header" title="bbox 1 1 9 9">head</span>'
            '<div class="ocr_textfloat"><span class="ocr_line" title="bbox 1 10 9 19">in</span></div>'
            '<span class="ocr_caption" title="bbox 1 20 9 29">below</span>'
        )
    )
    assert [(line.text, line.kind) for line in page.lines] == [("head", "header"), ("in", ""), ("below", "caption")]


def test_words_may_be_parted_by_their_spans_alone() -> None:
    words = '<b class="ocrx_word" title="bbox 1 1 9 9">one</b><b class="ocrx_word" title="bbox 10 1 19 9">two</b>'
    (page,) = read_hocr(html(f'<span class="ocr_line" title="bbox 1 1 20 9">{words}</span>'))
    assert page.text == "one two" and len(page.lines[0].words) == 2


def test_words_outside_of_lines_are_reported() -> None:
    (page,) = read_hocr(html('<p><b class="ocrx_word" title="bbox 1 1 9 9">lost</b> <b class="ocrx_word">word</b></p>'))
    assert [(line.text, line.problem) for line in page.lines] == [("lost word", "no-geometry")]
    assert not page.ordered


def test_text_of_a_page_without_lines_is_reported() -> None:
    (page,) = read_hocr(html("<p>one\ntwo</p>"))
    assert [(line.text, line.problem) for line in page.lines] == [("one", "no-geometry"), ("two", "no-geometry")]


def test_image_name_may_hold_what_parts_properties() -> None:
    title = "image &quot;a;b 'c'.png&quot;; bbox 0 0 5 6"
    (page,) = read_hocr(f"<html><body><div class='ocr_page' title=\"{title}\"/></body></html>".encode())
    assert (page.image_name, page.width, page.height) == ("a;b 'c'.png", 5, 6)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty-file"),
        (b"<html><body>no page</body></html>", "foreign-schema"),
        (b"no markup", "foreign-schema"),
        (b"<div>" * 300 + b"x" + b"<br>", "bad-xml"),
    ],
)
def test_what_is_no_hocr_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadablePage) as caught:
        read_hocr(data)
    assert caught.value.reason == reason


@given(st.text())
def test_any_title_is_read(title: str) -> None:
    page = etree.Element("div", {"class": "ocr_page"})
    line = etree.SubElement(page, "span", {"class": "ocr_line"})
    line.set("title", "".join(c for c in title if c.isprintable() and c.isascii()))
    line.text = "x"
    assert read_hocr(etree.tostring(page))[0].text == "x"
