from pathlib import Path

import numpy as np
import pytest

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.language_model import FILE, START, LanguageModel
from trainer.language_model import Config, counted, encoded, learnt, main, probabilities

AB = Alphabet(" abc")
LINES = ["abc abc", "ab ab ab", "cab", "bcabc aabb"] * 20


def test_n_grams_do_not_reach_over_the_beginning_of_a_line() -> None:
    row = encoded(["ab", "c"], AB)
    assert row.tolist() == [0, 2, 3, 0, 4]
    pairs = counted(row, 2)
    assert [(int(k) >> 10 & 1023, int(k) & 1023) for k in pairs.keys] == [(0, 2), (0, 4), (2, 3)]


def test_probabilities_of_what_follows_a_context_are_at_most_one() -> None:
    row = encoded(LINES, AB)
    grams = [counted(row, n) for n in (1, 2, 3)]
    for g, p in list(zip(grams, probabilities(grams, AB.classes), strict=True))[1:]:
        contexts, groups = np.unique(g.keys >> np.uint64(10), return_inverse=True)
        sums = np.bincount(groups, p)
        assert len(sums) == len(contexts) and (sums > 0.3).all() and (sums < 1).all()


@pytest.mark.parametrize("entries", [1000, 25])
def test_probabilities_of_all_characters_sum_to_one_whatever_is_pruned(entries: int) -> None:
    model = learnt(LINES, AB, Config(order=3, entries=entries))
    for context in ((START,), (2,), (2, 3), (START, 2), (4, 4)):
        total = sum(np.exp(model.log_probability((*context, c), len(context))) for c in range(AB.classes))
        assert 0.85 < total < 1.15  # eight bits


def test_a_smaller_model_knows_less() -> None:
    text = (START, *AB.encode("abc abc"))
    sizes = (5, 15, 1000)
    known = [learnt(LINES, AB, Config(order=3, entries=n)).log_probability(text, 1) for n in sizes]
    assert known == sorted(known)
    assert known[0] < known[-1]


def test_the_command_makes_the_same_model_again(tmp_path: Path) -> None:
    texts = tmp_path / "text"
    texts.mkdir()
    (texts / "en_a.txt").write_text("It was the best of times, it was the worst of times.\n" * 30)
    arguments = ["--text", str(texts), "--lines", "300", "--entries", "2000", "--output"]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert main([*arguments, str(tmp_path / name)]) == 0
    first, second = ((tmp_path / name / FILE).read_bytes() for name in ("a", "b"))
    assert first == second
    model = LanguageModel.load(tmp_path / "a" / FILE)

    def likely(text: str) -> float:
        return model.log_probability((START, *DEFAULT_ALPHABET.encode(text)), 1)

    assert likely("the times") > likely("tne tirnes") + 5
