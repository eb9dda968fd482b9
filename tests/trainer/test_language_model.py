from pathlib import Path

import numpy as np
import pytest

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.bundle import differing_files
from ocr_model.errors import BadModel
from ocr_model.language_model import FILE, START, LanguageModel
from tests.tiny_bundle import drawn, tiny_bundle
from trainer.export import add_language_model, export_bundle
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


@pytest.mark.slow
def test_a_bundle_gets_a_language_model_and_its_copies_keep_it(tmp_path: Path) -> None:
    file = tmp_path / "lm"
    learnt(["ab ba"], Alphabet(" ab"), Config(order=2, entries=9)).save(file)
    lines = [(drawn("ab a"), "ab a")]
    export_bundle(tiny_bundle(), tiny_bundle(), {}, "a card", tmp_path / "new", lines, language_model=file)
    export_bundle(tmp_path / "new", tiny_bundle(), {}, "a card", tmp_path / "copy", lines)
    for name in ("new", "copy"):
        assert (tmp_path / name / FILE).read_bytes() == file.read_bytes()
        assert not differing_files(tmp_path / name)
        assert "beam search" in (tmp_path / name / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_a_language_model_is_taken_from_its_file_or_from_a_bundle_that_has_one(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("with", "copy", "without")]
    for folder in folders:
        folder.mkdir()
    learnt(["ab ba"], Alphabet(" ab"), Config(order=2, entries=9)).save(tmp_path / "lm")
    for target, source in zip(folders, (tmp_path / "lm", folders[0], tiny_bundle()), strict=True):
        add_language_model(target, source)
    assert [(folder / FILE).exists() for folder in folders] == [True, True, False]


def test_what_is_no_language_model_does_not_come_into_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "lm").write_text("a shopping list")
    with pytest.raises(BadModel, match="no language model"):
        export_bundle(tiny_bundle(), tiny_bundle(), {}, "a card", tmp_path / "new", language_model=tmp_path / "lm")
    assert not (tmp_path / "new").exists()
