"""What the default model makes of blank leaves, turned pages, columns and batches of pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ocr_model.reader import Reader
from tests.figures import pages
from tests.papers import SAMPLES, Grey, blank_page, ink_of, paper_of, scans_of


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.load()


@pytest.fixture(scope="module")
def scans() -> list[Grey]:
    return scans_of(SAMPLES)


def test_paper_keeps_its_tone_and_loses_its_print(scans: list[Grey]) -> None:
    scan = scans[-1]
    paper = paper_of(scan, np.random.default_rng(1))
    assert abs(float(np.median(paper)) - float(np.median(scan))) < 10
    assert (ink_of(paper) > 60).mean() < 0.1 * (ink_of(scan) > 60).mean()


@pytest.mark.slow
def test_print_that_shows_through_is_not_read(reader: Reader, scans: list[Grey]) -> None:
    leaf = blank_page(np.random.default_rng([1, 23]), scans)  # the print of the back is clear, and mirrored
    assert reader.find(leaf).regions
    assert reader.read([leaf])[0].text == ""


@pytest.mark.slow
def test_blank_leaves_give_no_characters(reader: Reader, scans: list[Grey]) -> None:
    assert "".join(pages.characters_on_blank(reader, scans, 200)) == ""


@pytest.mark.slow
def test_turned_scans_are_read_upright(reader: Reader, scans: list[Grey]) -> None:
    assert np.mean(pages.turned_right(reader, scans)) >= 0.99


@pytest.mark.slow
def test_three_columns_are_read_one_after_the_other(reader: Reader, tmp_path: Path) -> None:
    from trainer.synthesis.text import TextSource

    words = " ".join(path.read_text(encoding="utf-8") for path in sorted(SAMPLES.glob("book-*.gt.txt"))).split()
    drawn = np.random.default_rng(1).choice(words, (400, 70))  # no two lines are alike
    (tmp_path / "en_words.txt").write_text("\n".join(map(" ".join, drawn)), encoding="utf-8")
    shares = pages.order_of_columns(reader, TextSource.load(tmp_path), 20)
    assert len(shares) >= 15
    assert np.mean(shares) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_scans_read_the_same_alone_and_among_64(scans: list[Grey], precision: str) -> None:
    assert pages.differing_pages(Reader.load(precision=precision), scans) == 0


def test_pairs_of_lines_are_counted() -> None:
    lines = ["first line of it", "second words here", "third one at the end"]
    assert pages.pairs_in_order(lines, "\n".join(lines)) == (3, 3)
    assert pages.pairs_in_order(lines, "\n".join(reversed(lines))) == (0, 3)
    assert pages.pairs_in_order(lines, "") == (0, 0)
