import cv2
import numpy as np
import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.ctc import DecodedCharacter
from ocr_model.document import Page
from ocr_model.reader import Reader, Strip, batch_size, legibility, split_words, unturned


def characters(text: str) -> list[DecodedCharacter]:
    return [DecodedCharacter(c, 0.9, 2 * i, 2 * i + 1) for i, c in enumerate(text)]


@pytest.mark.parametrize("text", ["", " ", "one", "one two", " one  two "])
def test_words_are_split_at_spaces(text: str) -> None:
    words = ["".join(c.character for c in word) for word, _, _ in split_words(characters(text))]
    assert words == text.split()


def test_a_word_may_span_from_space_to_space() -> None:
    ((_, begin_a, end_a), (_, begin_b, end_b)) = split_words(characters("ab c"))
    assert (begin_a, end_a) == (0, 4)
    assert (begin_b, end_b) == (5, -1)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_unturning_finds_the_pixel_of_the_image_as_given(turns: int) -> None:
    image = np.arange(12).reshape(3, 4)
    upright = np.rot90(image, -turns)
    for y, x in np.ndindex(upright.shape):
        given_x, given_y = unturned((x + 0.5, y + 0.5), turns, width=4, height=3)
        assert image[int(given_y), int(given_x)] == upright[y, x]


@pytest.mark.parametrize("width", [32, 640, 4096])
def test_batches_hold_all_lines_and_are_at_most_half_empty_until_a_quarter(width: int) -> None:
    full = batch_size(width)
    for lines in range(1, full + 1):
        size = batch_size(width, lines)
        assert lines <= size <= full and (size <= 2 * lines or size <= max(1, full // 4))
    assert batch_size(width, 1000) == full


def test_a_faint_mark_does_not_make_a_page_illegible() -> None:
    sure, faint = (Strip(np.zeros((40, 8), np.uint8), np.eye(2, 3), (8, 40), is_faint) for is_faint in (False, True))
    rubbish = [DecodedCharacter("~", 0.1, 0, 1)] * 20
    assert legibility([(sure, characters("page")), (faint, rubbish)]) == pytest.approx(0.9)
    assert legibility([(faint, characters("3"))]) == 0


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.load()


def typed_page(lines: list[str], width: int = 1000, height: int = 700) -> np.ndarray:
    image = np.full((height, width), 245, np.uint8)
    for i, line in enumerate(lines):
        cv2.putText(image, line, (70, 100 + 60 * i), cv2.FONT_HERSHEY_COMPLEX, 1.0, 20, 2, cv2.LINE_AA)
    return image


LINES = [
    "The first page of the letter",
    "was written in the winter of",
    "the year before the others and",
    "sent to London by the next mail",
]


def words_of(page: Page) -> list[str]:
    return page.text.split()


def test_a_plain_page_is_read_in_order(reader: Reader) -> None:
    (page,) = reader.read([typed_page(LINES)])
    assert page.text.splitlines() == LINES


def test_word_boxes_hold_the_ink_of_their_words(reader: Reader) -> None:
    image = typed_page(LINES)
    (page,) = reader.read([image])
    for line in page.lines():
        for word in line.words:
            assert line.box.intersection_area(word.box) == word.box.area
            assert (image[word.box.top : word.box.bottom, word.box.left : word.box.right] < 128).any()
    first = next(page.lines()).words[0].box
    columns = np.flatnonzero((image[60:120] < 128).any(axis=0))
    assert abs(first.left - columns[0]) <= 8


def test_a_page_reads_the_same_alone_and_among_others(reader: Reader) -> None:
    pages = [typed_page(LINES), typed_page(LINES[:2], 800, 300), typed_page(LINES[1:], 1200, 900)]
    assert reader.read(pages) == [reader.read([page])[0] for page in pages]


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_line_reads_the_same_alone_and_in_a_batch_of_64(precision: str) -> None:
    reader = Reader.load(precision=precision)
    rng = np.random.default_rng(1)
    widths = rng.integers(20, 900, 64)
    lines = [typed_page([LINES[i % 4][: 2 + w // 25]], int(w) + 120, 160)[60:120] for i, w in enumerate(widths)]
    together = reader.read_single_lines(lines)
    for i in range(0, 64, 9):
        assert reader.read_single_lines([lines[i]])[0] == together[i]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_page_is_read_upright_and_its_boxes_lie_on_the_image_as_given(reader: Reader, turns: int) -> None:
    image = np.rot90(typed_page(LINES), turns)
    (page,) = reader.read([image])
    assert page.quarter_turns == turns
    assert page.text.splitlines() == LINES
    assert (page.width, page.height) == (image.shape[1], image.shape[0])
    box = next(page.lines()).words[0].box
    assert (image[box.top : box.bottom, box.left : box.right] < 128).any()


def test_small_print_on_its_side_is_looked_at_closely_once_it_is_upright(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full((3300, 2550), 245, np.uint8)
    for i in range(40):
        text = f"{LINES[i % 4]} {LINES[(i + 1) % 4]} {LINES[(i + 2) % 4]}"
        cv2.putText(image, text, (70, 100 + 32 * i), cv2.FONT_HERSHEY_COMPLEX, 0.55, 20, 1, cv2.LINE_AA)
    reader = Reader.load()
    passes: list[int] = []
    maps = reader.finder.maps
    monkeypatch.setattr(reader.finder, "maps", lambda images: passes.append(images.size) or maps(images))
    (upright,) = reader.read([image])
    assert len(passes) == 2 and passes[1] > 1.5 * passes[0]
    passes.clear()
    (turned,) = reader.read([np.ascontiguousarray(np.rot90(image))])
    assert sum(size > 1.5 * min(passes) for size in passes) == 1
    assert turned.text == upright.text


@pytest.mark.parametrize("shape", [(1, 1), (3, 800), (600, 400)])
@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_page_without_print_is_empty(reader: Reader, shape: tuple[int, int], grey: int) -> None:
    (page,) = reader.read([np.full(shape, grey, np.uint8)])
    assert page.text == ""


def test_noisy_paper_gives_no_characters(reader: Reader) -> None:
    noise = np.random.default_rng(1).normal(210, 12, (900, 700)).clip(0, 255).astype(np.uint8)
    assert reader.read([noise])[0].text == ""


def test_print_on_the_back_is_not_read_and_on_the_front_it_is(reader: Reader) -> None:
    front = typed_page(LINES)
    back = cv2.GaussianBlur(240 - (255 - front[:, ::-1]) // 6, (0, 0), 1.0)
    assert reader.find(back).regions
    assert [page.text for page in reader.read([back, front])] == ["", "\n".join(LINES)]


def test_a_single_line_is_read_without_finding(reader: Reader) -> None:
    image = typed_page(["only one line here"], 640, 200)[60:120]
    (page,) = reader.read_single_lines([image])
    assert page.text == "only one line here"


def test_nothing_to_read_gives_nothing(reader: Reader) -> None:
    assert reader.read([]) == []
    assert reader.read_single_lines([]) == []


def test_the_bundle_names_its_alphabet_and_itself(reader: Reader) -> None:
    assert isinstance(reader.alphabet, Alphabet)
    assert set(reader.provenance) == {"model", "precision", "pagemill"}
