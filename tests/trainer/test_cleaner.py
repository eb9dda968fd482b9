import keras
import numpy as np
import pytest
import tensorflow as tf

from ocr_model.errors import BadArgument, BadInput, BadModel
from trainer import cleaner
from trainer.cleaner import (
    Cleaner,
    CleanerData,
    CleanerNetwork,
    CleanerTraining,
    CleaningLoss,
    build_cleaner,
    draw_pair,
    pair_batches,
    train_cleaner,
)
from trainer.loop import LoopConfig
from trainer.losses import Loss
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.text import TextSource

TINY = CleanerNetwork((4, 6, 8))


def sources() -> tuple[TextSource, FontCase]:
    try:
        return TextSource.load(None), FontCase(find_fonts())
    except BadInput:
        pytest.skip("no fonts installed")


def test_an_untrained_cleaner_gives_the_page_back() -> None:
    keras.mixed_precision.set_global_policy("float32")
    page = np.full((1, 16, 24, 1), 255, np.uint8)
    page[0, 4:9, 3:20] = 0
    made = tf.sigmoid(build_cleaner(TINY)(page)).numpy()
    assert made.shape == page.shape
    assert made[page == 0].max() < 0.1 and made[page == 255].min() > 0.9


def test_the_loss_of_parts_adds_up_and_ink_weighs_more() -> None:
    loss: Loss = CleaningLoss(ink=3.0)
    rng = np.random.default_rng(1)
    logits, clean = rng.normal(size=(4, 8, 8, 1)).astype(np.float32), rng.random((4, 8, 8, 1), dtype=np.float32)
    batch = {"clean": clean, "weights": np.ones(4, np.float32)}
    whole = loss.sums(tf.constant(logits), batch)
    parts = [
        loss.sums(tf.constant(logits[i : i + 2]), {"clean": clean[i : i + 2], "weights": np.ones(2, np.float32)})
        for i in (0, 2)
    ]
    np.testing.assert_allclose(whole, parts[0] + parts[1], rtol=1e-5)
    chance = 1 / (1 + np.exp(-logits))
    entropy = -(clean * np.log(chance) + (1 - clean) * np.log(1 - chance))
    weight = 3 - 2 * clean
    assert float(loss.value(whole)) == pytest.approx((entropy * weight).sum() / weight.sum(), rel=1e-4)
    none = loss.sums(tf.constant(logits), {"clean": clean, "weights": np.zeros(4, np.float32)})
    assert float(loss.value(none)) == 0


def test_pairs_show_the_same_print() -> None:
    texts, fonts = sources()
    rng, data = np.random.default_rng(4), CleanerData(height_px=48, width_px=128, undamaged=0.0)
    nearer = 0
    for _ in range(12):
        damaged, clean = draw_pair(rng, texts, fonts, data)
        assert damaged.shape == clean.shape == (48, 128) and damaged.dtype == clean.dtype == np.uint8
        here, elsewhere = (
            np.corrcoef(damaged.ravel(), np.roll(clean, shift, axis=0).ravel())[0, 1] for shift in (0, 7)
        )
        nearer += bool(here > elsewhere)
    assert nearer >= 11


def test_batches_follow_from_seed_and_place() -> None:
    texts, fonts = sources()
    data = CleanerData(batch=2, height_px=32, width_px=64)
    stream = pair_batches(data, texts, fonts)
    first, second = next(stream), next(stream)
    again = next(pair_batches(data, texts, fonts, first.place))
    for name in second.values:
        np.testing.assert_array_equal(second.values[name], again.values[name])


@pytest.mark.slow
def test_a_trained_cleaner_is_exported_and_cleans_pages_of_any_size(tmp_path, monkeypatch) -> None:
    sources()
    data = CleanerData(batch=4, height_px=32, width_px=64)
    loop = LoopConfig(steps=40, learning_rate=1e-2, warmup_steps=5, validate_every=20, ema=0.9)
    best = train_cleaner(CleanerTraining(data, TINY, loop, "float32"), tmp_path)
    assert best["error"] < best["error_damaged"]
    loaded = Cleaner.load(tmp_path / "exported")
    page = np.random.default_rng(1).integers(0, 256, (131, 77), dtype=np.uint8)
    made = loaded.cleaned(page)
    assert made.shape == page.shape and made.dtype == np.uint8
    monkeypatch.setattr(cleaner, "_TILE_ROWS", 40)  # in bands, and yet the same
    assert np.abs(loaded.cleaned(page).astype(int) - made).max() <= 1


def test_what_is_no_cleaner_is_told(tmp_path) -> None:
    with pytest.raises(BadModel, match="is no exported cleaner"):
        Cleaner.load(tmp_path)
    with pytest.raises(BadArgument, match="250 x 64 px"):
        CleanerTraining(CleanerData(width_px=250))
