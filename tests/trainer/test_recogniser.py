from dataclasses import replace

import keras
import numpy as np
import pytest

from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
from ocr_model.bundle import load_bundle
from ocr_model.errors import BadModel
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from tests.tiny_bundle import AB as BUNDLED
from tests.tiny_bundle import RECOGNISER, tiny_bundle
from trainer.export import classes_and_confidences
from trainer.line_data import make_batch
from trainer.recogniser import Validation, arrays, captioned, continued

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


def test_training_goes_on_from_a_bundle_that_reads_as_before() -> None:
    keras.mixed_precision.set_global_policy("float32")
    bundle = tiny_bundle()
    model = continued(bundle, replace(RECOGNISER, classes=DEFAULT_ALPHABET.classes))
    lines = np.random.default_rng(1).integers(0, 256, (3, 40, 96, 1), dtype=np.uint8)
    places = [0, *DEFAULT_ALPHABET.encode(BUNDLED.characters)]
    logits = model(lines).numpy()[..., places]
    classes, confidences = load_bundle(bundle, "float32").read_lines(lines)
    np.testing.assert_array_equal(logits.argmax(-1), classes)
    np.testing.assert_allclose(classes_and_confidences(logits)["confidences"], confidences, atol=2e-3)


def test_a_bundle_with_another_network_cannot_be_gone_on_from() -> None:
    bundle = tiny_bundle()
    with pytest.raises(BadModel, match="another network"):
        continued(bundle, RecogniserConfig(DEFAULT_ALPHABET.classes))
