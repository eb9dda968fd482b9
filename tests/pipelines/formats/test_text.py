from pipelines.formats.record import PageRecord
from pipelines.formats.text import TXT
from tests.pipelines.formats.pages import page_of, written


def test_text_has_a_form_feed_before_every_page_but_the_first() -> None:
    records = [PageRecord("b.pdf", n, page) for n, page in enumerate([page_of("one"), page_of(), page_of("three")], 1)]
    assert written(TXT, records) == b"one\n\f\fthree\n"


def test_page_that_could_not_be_read_keeps_its_place() -> None:
    record = PageRecord("b.pdf", 3, page_of("three"))
    assert written(TXT, [None, None, record, None]) == b"\f\fthree\n\f"
