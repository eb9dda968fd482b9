import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocr_model.text import normalise_line


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("e\u0301", "é"),
        ("a\u00a0b", "a b"),
        ("\ufeffa\u200bb\u00ad", "ab"),
        (" a \t\n b ", "a b"),
        ("a\x00b", "ab"),
        ("", ""),
    ],
)
def test_normalise_line(given_text: str, expected: str) -> None:
    assert normalise_line(given_text) == expected


@given(st.text())
def test_normalising_leaves_nfc_and_no_control_character(text: str) -> None:
    line = normalise_line(text)
    assert unicodedata.is_normalized("NFC", line)
    assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in line)
    assert "  " not in line
