from pathlib import Path

import pytest

from ocr_model.errors import UnreadablePage
from pipelines.formats.xml_input import parse_html, parse_xml

LAUGHS = b"".join(b'<!ENTITY x%d "%s">' % (n, b"&x%d;" % (n - 1) * 10) for n in range(1, 12))
BOMB = b'<!DOCTYPE a [<!ENTITY x0 "lol">' + LAUGHS + b"]>"


def refusal(data: bytes, max_bytes: int = 2**20) -> str:
    with pytest.raises(UnreadablePage) as caught:
        parse_xml(data, max_bytes)
    return caught.value.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty-file"),
        (b" \n", "empty-file"),
        (b"plain", "bad-xml"),
        (b"<a><b></a>", "bad-xml"),
        (b"<a>", "bad-xml"),
        (b"<a>\x00</a>", "bad-xml"),
        (b"<a>\xff</a>", "bad-xml"),
        (b"<a>" * 300 + b"</a>" * 300, "bad-xml"),
        (BOMB + b"<a>&x11;</a>", "bad-xml"),
        (BOMB + b'<a b="&x11;"/>', "bad-xml"),
        (BOMB + b"<a/>", "entity-declaration"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "entity-declaration"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "http://127.0.0.1:9/x">]><a>&x;</a>', "entity-declaration"),
    ],
    ids=str,
)
def test_bad_xml_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    assert refusal(data) == reason


@pytest.mark.parametrize(
    "declaration", [b'<!ENTITY x SYSTEM "%s">]><a>&x;</a>', b'<!ENTITY %% x SYSTEM "%s"> %%x;]><a/>']
)
def test_no_other_file_is_read(tmp_path: Path, declaration: bytes) -> None:
    (tmp_path / "secret").write_text('<!ENTITY s "secret">')
    data = b"<!DOCTYPE a [" + declaration % (tmp_path / "secret").as_uri().encode()
    assert refusal(data) == "entity-declaration"


def test_document_type_without_entities_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "x.dtd").write_text('<!ATTLIST a b CDATA "from the file">')
    root = parse_xml(f'<!DOCTYPE a SYSTEM "{(tmp_path / "x.dtd").as_uri()}"><a>x</a>'.encode())
    assert root.text == "x" and root.attrib == {}


def test_file_over_the_limit_is_refused_before_it_is_parsed() -> None:
    assert refusal(b"<a>" + b" " * 100, max_bytes=50) == "too-many-bytes"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_declared_encoding_counts(encoding: str) -> None:
    assert parse_xml(f'<?xml version="1.0" encoding="{encoding}"?><a>ä</a>'.encode(encoding)).text == "ä"


def test_200_deep_is_not_too_deep() -> None:
    assert len(list(parse_xml(b"<a>" * 200 + b"</a>" * 200).iter())) == 200


@pytest.mark.parametrize("data", [BOMB + b"<a/>", b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///x">]><a>&x;</a>'])
def test_html_may_not_declare_entities_either(data: bytes) -> None:
    with pytest.raises(UnreadablePage) as caught:
        parse_html(data)
    assert caught.value.reason == "entity-declaration"


def test_html_without_an_encoding_is_utf8_where_it_can_be() -> None:
    assert "".join(parse_html("<p>ä<br>ö".encode()).itertext()) == "äö"
    assert "".join(parse_html("<p>ä<br>ö".encode("latin-1")).itertext()) == "äö"
