"""What the finder learns from: truth of real pages, maps, crops, the loss, and one small run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from ocr_model.document import Box
from ocr_model.finder import FinderConfig
from ocr_model.found_lines import LayoutConfig
from ocr_model.line_maps import lines_from_maps
from trainer.card import read_run
from trainer.finder import FinderTrainingConfig, line_box, matched, rendered_pages, train_finder
from trainer.finder_samples import Augmentation, Place, SampleConfig, crop, draw_augmentation, samples
from trainer.loop import LoopConfig
from trainer.page_truth import TruePage, load_pages, true_lines, truth_maps
from trainer.synthesis.page_plan import TrueLine
from trainer.validate_run import validate

LINE = TrueLine(((20.0, 60.0), (200.0, 60.0)), 12.0, 20.0, 6.0)


def printed(text: str = "number one and some more", y: int = 60) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """A page with one line, and the box of its ink."""
    page = Image.new("L", (480, 120), 255)
    ImageDraw.Draw(page).text((20, y), text, 0, ImageFont.load_default(32), anchor="ls")
    image = np.array(page)
    rows, columns = (image < 128).nonzero()
    return image, (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


def test_baseline_and_x_height_come_from_the_ink():
    image, box = printed()
    (line,) = true_lines(image, [{"bbox": box, "text": "number one and some more"}])
    assert [y for _, y in line.baseline] == pytest.approx([60, 60], abs=2)
    assert 14 < line.x_height < 19 and line.ascender > line.x_height + 4


def test_a_wrong_baseline_is_moved_to_the_ink():
    image, box = printed()
    record = {"bbox": box, "text": "number one and some more", "baseline": [[box[0], 66], [box[2], 66]]}
    (line,) = true_lines(image, [record])
    assert line.baseline[0][1] == pytest.approx(60, abs=2)


def test_true_maps_give_the_lines_back():
    lines = [LINE, TrueLine(((20.0, 84.0), (120.0, 86.0)), 12.0, 20.0, 6.0)]
    maps = truth_maps(lines, 128, 256)
    heights = 10 * np.exp(maps.heights.astype(np.float32))
    arrays = {
        "core": maps.core * 0.99,
        "ends": maps.ends * 0.99,
        "ascender": heights[..., 0],
        "descender": heights[..., 1],
    }
    found = lines_from_maps(arrays, 1.0, LayoutConfig())
    assert matched([f.box for f in found], [line_box(line) for line in lines], iou=0.75) == 2


@pytest.mark.slow
def test_pages_for_validation_are_the_same_every_time_and_not_those_of_training():
    first, again = (rendered_pages(None, 2, seed=1) for _ in range(2))
    assert [page.lines for page in first] == [page.lines for page in again]
    assert first[0].lines != first[1].lines != rendered_pages(None, 2, seed=2)[1].lines
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))


def test_a_line_too_small_to_see_is_not_counted():
    maps = truth_maps([TrueLine(((20.0, 60.0), (200.0, 60.0)), 1.5, 3.0, 1.0)], 128, 256)
    assert maps.core.sum() == 0 and maps.counted.min() == 0


def test_a_crop_moves_the_lines_with_the_pixels():
    image = np.full((300, 400), 255, np.uint8)
    line = TrueLine(((50.0, 200.0), (350.0, 200.0)), 20.0, 30.0, 10.0)
    image[180:200, 50:350] = 0
    sample = crop(image, [line], Augmentation(scale=0.8, skew_deg=3.0, x=1.0, y=1.0), SampleConfig(crop_px=192))
    dark = sample.image[::2, ::2, 0] < 128
    shared = (dark & (sample.core > 0)).sum()
    assert shared > 0.85 * max(dark.sum(), sample.core.sum())


def test_a_turned_crop_counts_for_its_orientation_only():
    image = np.zeros((128, 256), np.uint8)
    sample = crop(image, [LINE], Augmentation(scale=1.0, quarter_turns=1), SampleConfig(crop_px=128))
    assert sample.orientation == 1 and sample.counted.max() == 0


def test_same_seed_same_augmentation():
    drawn = [draw_augmentation(np.random.default_rng(5), 1.0, True, SampleConfig()) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_each_box_is_matched_once():
    box, other = Box(0, 0, 10, 10), Box(0, 0, 10, 9)
    assert matched([box, other], [box]) == 1
    assert matched([box], [Box(20, 0, 30, 10)]) == 0


def write_data(folder: Path, pages: int) -> None:
    image, box = printed()
    (folder / "made" / "pages").mkdir(parents=True)
    meta = {}
    for i in range(pages):
        name = f"made/pages/p{i}"
        cv2.imwrite(str(folder / f"{name}.png"), image)
        (folder / f"{name}.lines.json").write_text(json.dumps([{"bbox": box, "text": "number one and some more"}]))
        meta[name] = {"doc": f"d{i}", "complete": True}
    meta["made/pages/p0"]["complete"] = False
    (folder / "meta.json").write_text(json.dumps(meta))


def test_incomplete_pages_are_left_out(tmp_path: Path):
    write_data(tmp_path, 3)
    assert [page.name for page in load_pages(tmp_path, 1e6)] == ["made/pages/p1", "made/pages/p2"]


@pytest.mark.slow
def test_samples_do_not_depend_on_the_number_of_workers(tmp_path: Path):
    image, _ = printed()
    page = TruePage("p", "d", image, (LINE,))

    def first(workers: int) -> list[np.ndarray]:
        config = SampleConfig(crop_px=64, workers=workers, shuffle=4, real_share=1.0)
        return [sample.image for sample, _ in islice(samples([page], None, config), 6)]

    np.testing.assert_array_equal(first(1), first(2))


@pytest.mark.slow
def test_a_stream_of_samples_goes_on_after_any_of_them(tmp_path: Path):
    image, _ = printed()
    page = TruePage("p", "d", image, (LINE,))
    config = SampleConfig(crop_px=64, shuffle=5, real_share=0.6, takes=4)
    whole = list(islice(samples([page], None, config), 20))
    for taken in (3, 11):
        place = whole[taken - 1][1]
        assert isinstance(place, Place)
        rest = islice(samples([page], None, config, place), 20 - taken)
        for (expected, at), (sample, now) in zip(whole[taken:], rest, strict=True):
            np.testing.assert_array_equal(expected.image, sample.image)
            assert (expected.name, at) == (sample.name, now)


@pytest.mark.slow
def test_a_small_run_leaves_a_checkpoint(tmp_path: Path):
    write_data(tmp_path / "data", 8)
    config = FinderTrainingConfig(
        validation_rendered=1,
        network=FinderConfig(filters=(4, 4, 4, 4), dilations=(1,)),
        samples=SampleConfig(crop_px=64, shuffle=4, real_share=1.0),
        loop=LoopConfig(steps=2, validate_every=2),
        batch=2,
        validation_share=0.4,
        policy="float32",
    )
    train_finder(config, tmp_path / "data", None, tmp_path / "run")
    assert (tmp_path / "run" / "best.weights.h5").exists()
    assert json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 2


@pytest.mark.slow
def test_weights_learnt_with_jax_are_validated_with_tensorflow(tmp_path: Path):
    write_data(tmp_path / "data", 40)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "en_words.txt").write_text("some words that are set on a page\n")
    folders = ["--data", str(tmp_path / "data"), "--text", str(tmp_path / "text")]
    command = [sys.executable, "-m", "trainer.jax_task", "finder", *folders, "--output", str(tmp_path / "run")]
    command += ["--minutes", "0.1", "--network", "small=filters=(2,3,4,5),dilations=(1,)", "--memory-gb", "0.2"]
    done = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    run = tmp_path / "run" / "small"
    assert validate(run, tmp_path / "data", tmp_path / "text")["miss"] <= 1.0
    assert read_run(run).config["loop"]["steps"] > 0
