"""A page as a notebook shows it."""

from __future__ import annotations

from html import escape

from ocr_model.document import Line, Page

DOUBTFUL = 0.85
_NOT_XML = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF, *range(0xD800, 0xE000)])


def page_as_html(page: Page) -> str:
    """An SVG in which every line stands where it stood on the page; doubtful ones are red, and tell their confidence.

    >>> page_as_html(Page(20, 10)).startswith("<svg viewBox='0 0 20 10'")
    True
    """
    lines = "".join(_line(line) for line in page.lines())
    style = "width:100%;max-width:900px;background:#fff;border:1px solid #bbb"
    return f"<svg viewBox='0 0 {page.width} {page.height}' style='{style}' font-family='serif'>{lines}</svg>"


def _line(line: Line) -> str:
    (x0, y0), (x1, _) = line.baseline[0], line.baseline[-1]
    colour = "#b00" if line.confidence < DOUBTFUL else "#111"
    height = max(line.box.height * 0.7, 1.0)
    length = max(x1 - x0, 1.0)
    return (
        f"<text x='{x0:.0f}' y='{y0:.0f}' font-size='{height:.0f}' textLength='{length:.0f}'"
        f" lengthAdjust='spacingAndGlyphs' fill='{colour}'>"
        f"<title>{line.confidence:.2f}</title>{escape(line.text.translate(_NOT_XML))}</text>"
    )
