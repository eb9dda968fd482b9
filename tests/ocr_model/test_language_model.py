from pathlib import Path

import numpy as np
import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.errors import BadModel
from ocr_model.language_model import START, STEPS_PER_NAT, LanguageModel, hashed_table, key_of

AB = Alphabet("ab")
A, B = 1, 2


def of(entries: dict[tuple[int, ...], tuple[float, float]], **options: float) -> LanguageModel:
    keys = np.array([key_of(gram) for gram in entries], np.uint64)
    logs, weights = (np.array(values) for values in zip(*entries.values(), strict=True))
    return LanguageModel(hashed_table(keys, logs, weights), AB.characters, 3, **options)


SMALL = of({(A,): (-1.0, -0.5), (B,): (-2.0, 0.0), (A, B): (-0.25, -0.75), (START, A): (-0.125, 0.0)})


@pytest.mark.parametrize(
    ("classes", "begin", "expected"),
    [
        ((A,), 0, -1.0),
        ((A, B), 1, -0.25),
        ((A, A), 1, -0.5 - 1.0),  # no such pair: weight of the context, then the character alone
        ((A, B, A), 2, -0.75 - 1.0),  # weight of "ab", none of "b"
        ((B, A, B), 1, -1.0 - 0.25),
        ((START, A, B), 1, -0.125 - 0.25),
    ],
)
def test_the_longest_n_gram_counts_and_contexts_without_it_weigh(
    classes: tuple[int, ...], begin: int, expected: float
) -> None:
    assert SMALL.log_probability(classes, begin) == pytest.approx(expected)


def test_what_no_n_gram_knows_is_as_unlikely_as_can_be_said() -> None:
    assert SMALL.log_probability((7,)) == pytest.approx(-255 / STEPS_PER_NAT)


def test_a_table_gives_back_every_entry() -> None:
    rng = np.random.default_rng(1)
    grams = sorted({tuple(rng.integers(0, 292, int(rng.integers(1, 4))).tolist()) for _ in range(5000)})
    logs = -rng.integers(0, 255, len(grams)) / STEPS_PER_NAT
    model = of({gram: (log, 0.0) for gram, log in zip(grams, logs.tolist(), strict=True)})
    wrong = [g for g, log in zip(grams, logs, strict=True) if model.log_probability(g, len(g) - 1) != log]
    assert len(wrong) <= 2  # two n-grams may share slot and hash


def test_a_saved_model_is_the_same_again(tmp_path: Path) -> None:
    model = of({(A,): (-1.0, 0.0), (A, B): (-3.0, 0.0)}, weight=0.25, bonus=0.5)
    model.save(tmp_path / "a")
    loaded = LanguageModel.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (loaded.order, loaded.weight, loaded.bonus, loaded.characters) == (3, 0.25, 0.5, "ab")
    assert loaded.log_probability((A, B), 1) == -3.0


def test_a_model_speaks_another_alphabet() -> None:
    other = SMALL.speaking(Alphabet("xba"))
    assert other.log_probability((3, 2)) == SMALL.log_probability((A, B))
    assert other.log_probability((1,)) == pytest.approx(-255 / STEPS_PER_NAT)
    assert other.speaking(AB).log_probability((A, B)) == SMALL.log_probability((A, B))


@pytest.mark.parametrize("content", [b"", b"something else", b"\x93NUMPY\x01\x00" + b"x" * 40])
def test_another_file_is_no_language_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lm").write_bytes(content)
    with pytest.raises(BadModel, match="no language model"):
        LanguageModel.load(tmp_path / "lm")
    with pytest.raises(BadModel, match="no language model"):
        LanguageModel.load(tmp_path / "none")
