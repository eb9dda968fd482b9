from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from ocr_model.errors import BadArgument, BadInput
from tests.trainer.wear.test_lines import noise_strips
from tests.trainer.wear.test_networks import TINY
from trainer.wear.lines import CleanLine
from trainer.wear.model import Wear, export_wear
from trainer.wear.networks import build_encoder, build_generator


@pytest.fixture(scope="module")
def wear(tmp_path_factory: pytest.TempPathFactory) -> Wear:
    folder = tmp_path_factory.mktemp("wear")
    keras.utils.set_random_seed(1)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")  # the export is float32 all the same
    weights = {}
    for network in (build_encoder(TINY), build_generator(TINY)):
        weights[network.name] = folder / f"{network.name}.weights.h5"
        network.save_weights(weights[network.name])
    export_wear(TINY, weights, noise_strips(6), {"figures": {"legible": 1.0}}, folder / "exported")
    assert keras.mixed_precision.global_policy().name == "mixed_bfloat16"
    keras.mixed_precision.set_global_policy("float32")
    return Wear.load(folder / "exported")


def inks(*widths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [np.asarray(rng.random((40, width)) > 0.8, np.float32) for width in widths]


def test_worn_lines_have_the_size_of_the_clean_ones(wear: Wear) -> None:
    lines = [CleanLine(ink, "", np.zeros((0, 4))) for ink in inks(33, 100, 700)]
    made = wear.worn_lines(np.random.default_rng(1), lines)
    assert [image.shape for image in made] == [(40, 33), (40, 100), (40, 700)]
    assert all(image.dtype == np.uint8 for image in made)
    for ink, image in zip(lines, made, strict=True):
        assert image[ink.ink == 1].mean() < image[ink.ink == 0].mean() - 60
    again = wear.worn_lines(np.random.default_rng(1), lines)
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))


def test_a_line_does_not_depend_on_its_company(wear: Wear) -> None:
    styles = list(np.random.default_rng(2).standard_normal((3, TINY.style)).astype(np.float32))
    together = wear.worn(inks(33, 60, 100), styles, [1, 2, 3])
    (alone,) = wear.worn(inks(33, 60, 100)[1:2], styles[1:2], [2])
    assert np.abs(together[1].astype(int) - alone).max() <= 1


def test_styles_come_from_all_collections_or_from_one(wear: Wear, tmp_path: Path) -> None:
    assert {tuple(z) for z in wear.bank()} == {tuple(z) for bank in wear.styles.values() for z in bank}
    assert {name: bank.shape for name, bank in wear.styles.items()} == {"s0": (3, 3), "s1": (3, 3)}
    rng = np.random.default_rng(1)
    bank = wear.bank("s1")
    drawn = np.stack([wear.drawn_style(rng, bank) for _ in range(50)])
    low, high = wear.styles["s1"].min(axis=0), wear.styles["s1"].max(axis=0)
    assert (drawn >= low - 1e-6).all() and (drawn <= high + 1e-6).all()
    for i, strip in enumerate(noise_strips(2)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), strip.pixels)
    found = wear.bank(str(tmp_path))
    np.testing.assert_allclose(found, wear.styles_of(noise_strips(2)), atol=1e-5)
    with pytest.raises(BadInput, match=r"no collection other.*learnt from: s0, s1"):
        wear.bank("other")


def test_lines_of_another_height_are_refused(wear: Wear) -> None:
    with pytest.raises(BadArgument, match="40 px high"):
        wear.worn([np.zeros((48, 64), np.float32)], [np.zeros(3, np.float32)], [1])
