import json
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.errors import BadInput
from trainer.line_data import (
    BatchStream,
    Bucketer,
    LineBatch,
    LineDataConfig,
    draw_real,
    generate,
    is_validation,
    load_real_lines,
    make_batch,
    recropped,
    source_weights,
    steps_needed,
)
from trainer.synthesis.fonts import find_fonts


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """One source with a page of three lines (one not to be trained) and one with a line image."""
    page = np.full((300, 400), 230, np.uint8)
    page[40:60, 50:350] = 20
    page[140:160, 50:350] = 20
    pages, lines = tmp_path / "books" / "pages", tmp_path / "letters" / "lines"
    pages.mkdir(parents=True)
    lines.mkdir(parents=True)
    cv2.imwrite(str(pages / "p1.png"), page)
    truth = [
        {"bbox": [50, 40, 350, 60], "text": "level"},
        {"bbox": [50, 140, 350, 180], "text": "tilted", "baseline": [[50, 160], [350, 175]]},
        {"bbox": [50, 200, 350, 220], "text": "doubtful", "skip_text": True},
        {"bbox": [50, 240, 350, 260], "text": "漢字"},
    ]
    (pages / "p1.lines.json").write_text(json.dumps(truth))
    cv2.imwrite(str(lines / "doc_1.png"), page[30:70])
    (lines / "doc_1.gt.txt").write_text("a line\n")
    return tmp_path


def has_fonts() -> bool:
    try:
        return bool(find_fonts())
    except BadInput:
        return False


def test_lines_come_from_pages_and_crops_without_those_that_cannot_be_trained(corpus: Path) -> None:
    found = load_real_lines(corpus)
    assert sorted(line.text for line in found) == ["a line", "level", "tilted"]
    assert {line.source for line in found} == {"books", "letters"}


def test_a_folder_without_lines_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no line with truth"):
        load_real_lines(tmp_path)


def test_a_drawn_crop_holds_the_ink_of_its_line(corpus: Path) -> None:
    line = next(r for r in load_real_lines(corpus) if r.text == "level")
    rng = np.random.default_rng(1)
    for _ in range(20):
        crop = draw_real(rng, line)
        assert crop.min() + 60 < crop.max()


def test_other_margins_keep_the_line_and_add_nothing_but_paper() -> None:
    strip = np.full((40, 120), 210, np.uint8)
    strip[10:30, 20:100] = 30
    rng = np.random.default_rng(1)
    drawn = [recropped(rng, strip, 1.0) for _ in range(200)]
    for image in drawn:
        assert (image < 100).sum() == (strip < 100).sum()
        assert {30, 210} <= set(np.unique(image)) <= {30, 210, 255}
    heights = [image.shape[0] for image in drawn]
    assert min(heights) < 40 and max(heights) > 52
    assert recropped(rng, strip, 0.0) is strip


def test_white_is_not_put_around_white_print_on_a_dark_ground() -> None:
    strip = np.full((40, 120), 20, np.uint8)
    strip[10:30, 20:100] = 200
    rng = np.random.default_rng(1)
    assert all(set(np.unique(recropped(rng, strip, 1.0))) == {20, 200} for _ in range(100))


def test_splits_follow_the_document_only() -> None:
    assert is_validation("any", 1.0)
    assert not is_validation("any", 0.0)
    share = sum(is_validation(f"doc {i}", 0.1) for i in range(2000)) / 2000
    assert 0.07 < share < 0.13


@pytest.mark.parametrize(("classes", "steps"), [([], 0), ([1, 2], 2), ([1, 1], 3), ([1, 1, 1, 2], 6)])
def test_repeats_need_a_blank_between_them(classes: list[int], steps: int) -> None:
    assert steps_needed(classes) == steps


def test_a_line_too_short_for_its_text_is_dropped_and_counted() -> None:
    bucketer = Bucketer(LineDataConfig(None, None), DEFAULT_ALPHABET)
    assert bucketer.add(np.full((40, 40), 255, np.uint8), "much too long for this") is None
    assert bucketer.dropped == 1


def test_a_batch_is_padded_with_paper_and_blanks() -> None:
    lines = [(np.full((40, 60), 9, np.uint8), [1, 2, 3]), (np.full((40, 64), 9, np.uint8), [4])]
    batch = make_batch(lines)
    assert batch.images.shape == (2, 40, 64)
    assert batch.images[0, :, 60:].max() == 0
    assert batch.labels.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert batch.widths.tolist() == [60, 64]


def test_a_small_source_is_drawn_more_often_a_line(corpus: Path) -> None:
    lines = load_real_lines(corpus)
    weights = dict(zip([line.text for line in lines], source_weights(lines), strict=True))
    assert weights["a line"] > weights["level"]
    assert sum(weights.values()) == pytest.approx(1)


def test_the_stream_is_the_same_for_the_same_seed(corpus: Path) -> None:
    if not has_fonts():
        pytest.skip("no font of the renderer is installed")
    config = LineDataConfig(corpus, None, batch_px=2000, validation_share=0.0)
    first, second = (next(generate(config, Alphabet(DEFAULT_ALPHABET.characters), 0)) for _ in range(2))
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_a_stream_goes_on_after_any_of_its_batches(corpus: Path) -> None:
    if not has_fonts():
        pytest.skip("no font of the renderer is installed")
    config = LineDataConfig(corpus, None, batch_px=2000, validation_share=0.0)
    whole = list(islice(generate(config, DEFAULT_ALPHABET, 0), 9))
    for taken in (1, 4):
        place = json.loads(json.dumps(whole[taken - 1].place))
        rest = list(islice(generate(config, DEFAULT_ALPHABET, 0, place), 9 - taken))
        for expected, batch in zip(whole[taken:], rest, strict=True):
            np.testing.assert_array_equal(expected.images, batch.images)
            np.testing.assert_array_equal(expected.labels, batch.labels)
            assert expected.examples == batch.examples
            assert len(batch.examples) == len(batch.images)


@pytest.mark.slow
def test_two_processes_give_their_batches_in_turn_and_go_on(corpus: Path) -> None:
    config = LineDataConfig(corpus, None, batch_px=2000, validation_share=0.0, processes=2)

    def taken(count: int, place: object) -> list[LineBatch]:
        stream = BatchStream(config, DEFAULT_ALPHABET, place)  # type: ignore[arg-type]
        try:
            return list(islice(stream, count))
        finally:
            stream.close()

    whole = taken(5, None)
    for expected, batch in zip(whole[3:], taken(2, json.loads(json.dumps(whole[2].place))), strict=True):
        np.testing.assert_array_equal(expected.images, batch.images)
        assert expected.examples == batch.examples
