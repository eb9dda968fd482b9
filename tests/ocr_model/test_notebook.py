from lxml import etree

from ocr_model.document import Box, Line, Page, Region, Word


def test_notebook_shows_every_line_where_it_stood() -> None:
    box = Box(10, 20, 90, 40)
    corners = ((10, 20), (90, 20), (90, 40), (10, 40))
    line = Line((Word("<Größe>&\x00", box, 0.5),), box, ((10, 36), (90, 36)), corners, 0.5)
    root = etree.fromstring(Page(100, 200, (Region((line,), box),))._repr_html_())
    (text,) = root
    assert (text.get("x"), text.get("y"), text.get("textLength"), text.get("fill")) == ("10", "36", "80", "#b00")
    assert "".join(text.itertext()) == "0.50<Größe>&"
