import json
import unicodedata
from pathlib import Path

import pytest

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.errors import BadModel


def test_encoding_and_decoding_are_inverse() -> None:
    assert DEFAULT_ALPHABET.decode(DEFAULT_ALPHABET.encode("Straße – £5 “ſo” œuvre")) == "Straße – £5 “ſo” œuvre"


def test_class_0_is_left_to_the_blank() -> None:
    assert min(DEFAULT_ALPHABET.encode(DEFAULT_ALPHABET.characters)) == 1


def test_a_character_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Alphabet("aba")


def test_every_character_is_nfc() -> None:
    assert all(unicodedata.is_normalized("NFC", c) for c in DEFAULT_ALPHABET.characters)


def test_unknown_characters_are_counted() -> None:
    assert Alphabet("ab").unknown(["abc", "cc"]) == {"c": 3}


def test_an_alphabet_survives_its_file(tmp_path: Path) -> None:
    DEFAULT_ALPHABET.save(tmp_path / "alphabet.json")
    assert Alphabet.load(tmp_path / "alphabet.json") == DEFAULT_ALPHABET


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot read"),
        ("[]", "not an alphabet"),
        (json.dumps({"format": "pagemill-alphabet", "version": 99, "characters": "a"}), "version 99"),
    ],
)
def test_a_file_that_is_no_alphabet_of_this_version_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(BadModel, match=message):
        Alphabet.load(tmp_path / "a.json")
