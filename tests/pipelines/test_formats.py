import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from ocr_model.document import Box, Line, Page, Region, Word, page_from_json
from pipelines.formats import (
    HOCR_FOOT,
    PageRecord,
    hocr_head,
    page_as_hocr,
    page_as_json_line,
    page_as_picture,
    page_as_text,
)

XHTML = "{http://www.w3.org/1999/xhtml}"


def line_of(text: str, top: int = 10) -> Line:
    box = Box(10, top, 90, top + 20)
    words = tuple(Word(w, box, 0.925) for w in text.split())
    baseline = ((10.0, top + 14.0), (90.0, top + 18.0))
    return Line(words, box, baseline, ((10, top), (90, top), (90, top + 20), (10, top + 20)), 0.9)


def page_of(*lines: str, quarter_turns: int = 0) -> Page:
    made = tuple(line_of(text, 10 + 25 * n) for n, text in enumerate(lines))
    return Page(100, 200, (Region(made, Box(10, 10, 90, 100)),) if made else (), quarter_turns)


def hocr(record: PageRecord) -> etree._Element:
    return etree.fromstring((hocr_head(record.path) + page_as_hocr(record) + HOCR_FOOT).encode())


def titles(root: etree._Element, kind: str) -> list[str]:
    return [e.get("title") for e in root.iter() if e.get("class") == kind]


def test_text_has_a_form_feed_before_every_page_but_the_first() -> None:
    pages = [PageRecord("b.pdf", n, page) for n, page in enumerate([page_of("one"), page_of(), page_of("three")], 1)]
    assert "".join(map(page_as_text, pages)) == "one\n\f\fthree\n"


def test_json_line_gives_the_page_back() -> None:
    page = page_of("Größe & <Maß>", "zwei")
    text = page_as_json_line(PageRecord("a/b.jpg", 3, page, dpi=300.0))
    value = json.loads(text)
    assert text.count("\n") == 1 and "Größe" in text
    assert (value["path"], value["page"], value["dpi"], value["reduced_by"]) == ("a/b.jpg", 3, 300.0, 1)
    assert page_from_json(value).text == page.text


def test_hocr_names_what_it_holds() -> None:
    root = hocr(PageRecord("a/b.jpg", 2, page_of("Größe <&> Maß"), dpi=299.7))
    assert titles(root, "ocr_page") == ['image "a/b.jpg"; bbox 0 0 100 200; ppageno 1; scan_res 300 300']
    assert titles(root, "ocr_carea") == ["bbox 10 10 90 100"]
    assert titles(root, "ocr_line") == ["bbox 10 10 90 30; baseline 0.050 -6"]
    assert titles(root, "ocrx_word") == ["bbox 10 10 90 30; x_wconf 92"] * 3
    assert "".join(root.find(f".//{XHTML}span").itertext()) == "Größe <&> Maß"


def test_hocr_tells_the_angle_of_a_page_on_its_side() -> None:
    root = hocr(PageRecord("a.jpg", 1, page_of("side", quarter_turns=3)))
    assert titles(root, "ocr_line")[0].endswith("textangle 270")


def test_hocr_of_an_empty_page_has_no_area() -> None:
    root = hocr(PageRecord("a.jpg", 1, page_of()))
    assert len(titles(root, "ocr_page")) == 1 and titles(root, "ocr_carea") == []


def test_identifiers_of_a_document_are_unique() -> None:
    body = "".join(page_as_hocr(PageRecord("a", n, page_of("a b", "c d"))) for n in (1, 2))
    root = etree.fromstring((hocr_head("a") + body + HOCR_FOOT).encode())
    names = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(set(names)) == len(names) == 2 * (1 + 1 + 2 + 4)


@given(path=st.text(), word=st.text(min_size=1).filter(lambda w: not any(c.isspace() for c in w)))
def test_hocr_is_well_formed_whatever_the_names_and_words(path: str, word: str) -> None:
    box = Box(1, 2, 3, 4)
    line = Line((Word(word, box, 0.5),), box, ((1, 3), (3, 3)), ((1, 2), (3, 2), (3, 4)), 0.5)
    root = hocr(PageRecord(path, 1, Page(9, 9, (Region((line,), box),))))
    assert titles(root, "ocrx_word") == ["bbox 1 2 3 4; x_wconf 50"]


@pytest.mark.parametrize("shape", [(200, 100), (1, 1)])
def test_picture_is_a_jpeg_of_page_and_text(shape: tuple[int, int]) -> None:
    image = np.full(shape, 255, np.uint8)
    page = page_of("word") if shape == (200, 100) else Page(1, 1)
    picture = cv2.imdecode(np.frombuffer(page_as_picture(image, page), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (shape[0], 2 * shape[1], 3)
