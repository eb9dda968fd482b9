import pytest

from ocr_model.ctc import DecodedCharacter
from ocr_model.word_shapes import is_odd, settled, with_figures, with_one_case


@pytest.mark.parametrize(
    ("read", "meant"),
    [
        ("Those after RuBENs (the latter of whom", "Those after Rubens (the latter of whom"),
        ("TARGeT PRICE: US$170 SECTOR", "TARGET PRICE: US$170 SECTOR"),
        (
            "Mr. McDonald of NGOs and URLs, PhD, GmbH, iPhone, LeRoy",
            "Mr. McDonald of NGOs and URLs, PhD, GmbH, iPhone, LeRoy",
        ),
        ("ScoTT", "Scott"),
        ("", ""),
    ],
)
def test_a_word_of_small_capitals_gets_one_case(read: str, meant: str) -> None:
    assert with_one_case(read) == meant


@pytest.mark.parametrize(
    ("read", "meant"),
    [
        ("$O.00", "$0.00"),
        ("(GST O00670224384)", "(GST 000670224384)"),
        ("1142-I162, have", "1142-1162, have"),
        ("40OMG", "400MG"),
        ("the o14 and I-95, 1o and 2o, H2O, CO2, A1O, 12OZ", "the o14 and I-95, 1o and 2o, H2O, CO2, A1O, 12OZ"),
        ("O I l oil 10 Il", "O I l oil 10 Il"),
    ],
)
def test_a_number_has_figures_only(read: str, meant: str) -> None:
    assert with_figures(read) == meant


def test_a_letter_that_becomes_two_in_capitals_is_left() -> None:
    assert is_odd("GroßEN")
    assert with_one_case("GroßEN UND KLEINE TIERE") == "GroßEN UND KLEINE TIERE"


def test_confidences_and_places_stay() -> None:
    read = [DecodedCharacter(c, 0.1 * i, i, i + 1) for i, c in enumerate("O12")]
    assert settled(read) == [DecodedCharacter("0", 0.0, 0, 1), *read[1:]]
    assert settled([]) == []
