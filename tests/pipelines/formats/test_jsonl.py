import json

from ocr_model.document import page_from_json
from pipelines.formats.jsonl import JSONL
from pipelines.formats.record import PageRecord
from tests.pipelines.formats.pages import page_of, written


def test_json_line_gives_the_page_back() -> None:
    page = page_of("Größe & <Maß>", "zwei")
    text = written(JSONL, [PageRecord("a/b.jpg", 3, page, dpi=300.0)]).decode()
    value = json.loads(text)
    assert text.count("\n") == 1 and "Größe" in text
    assert (value["path"], value["page"], value["dpi"], value["reduced_by"]) == ("a/b.jpg", 3, 300.0, 1)
    assert page_from_json(value).text == page.text


def test_json_line_tells_what_made_the_page() -> None:
    (line,) = written(JSONL, [None, PageRecord("a.jpg", 2, page_of("x"), run={"config": "c1"})]).splitlines()
    assert json.loads(line)["provenance"] == {"config": "c1"}
