import numpy as np
import pytest

from ocr_model.alphabet import Alphabet
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from trainer.line_data import make_batch
from trainer.recogniser import Validation, arrays, captioned

AB = Alphabet(" ab")
WHITE = np.full((40, 64), 255, np.uint8)


def test_validation_reports_each_group_and_the_mean_of_real_and_rendered() -> None:
    model = build_recogniser(RecogniserConfig(AB.classes, (2, 2, 2, 2), 4, 1))
    validation = Validation([(WHITE, "ab", "books"), (WHITE, "a", "rendered")], AB)
    figures = validation(model)
    assert set(figures) == {"cer", "cer_books", "cer_real", "cer_rendered"}
    assert figures["cer"] == pytest.approx((figures["cer_real"] + figures["cer_rendered"]) / 2)
    ((name, picture),) = validation.pictures(model)
    assert name == "line 0 books"
    assert picture.shape == (72, 240)


def test_the_shapes_of_a_batch_depend_on_its_bucket_alone() -> None:
    for labels in ([1], [1, 2, 1, 2, 1]):
        values = arrays(make_batch([(WHITE, labels), (WHITE, [2])]))
        assert values["labels"].shape == (2, 16)
        assert values["lengths"].tolist() == [len(labels), 1]
        assert values["steps"].tolist() == [16, 16]


def test_a_caption_shows_what_the_font_lacks_as_a_question_mark() -> None:
    np.testing.assert_array_equal(captioned(WHITE, "ſ", "a"), captioned(WHITE, "?", "a"))
