import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ocr_model.bundle import load_bundle
from ocr_model.errors import BadArgument, BadInput, BadModel
from pipelines.cli import main
from tests.tiny_bundle import drawn, tiny_bundle
from tests.trainer.wear.test_lines import noise_strips
from tests.trainer.wear.test_networks import TINY
from trainer.interruption import Interrupted
from trainer.synthesis.fonts import FontCase, find_fonts
from trainer.synthesis.text import TextSource
from trainer.wear import training
from trainer.wear.lines import RealStrip, WearData
from trainer.wear.model import Wear
from trainer.wear.step import Networks
from trainer.wear.training import (
    WearCheck,
    WearFailed,
    WearLoop,
    WearTraining,
    divided_strips,
    reading_network,
    train_wear,
    verdict,
)

LOOP = WearLoop(steps=4, validate_every=2, compared=16, warmup_steps=2, least_legible=0.0, least_diversity=0.0)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    folder = tmp_path / "real"
    folder.mkdir()
    for i, strip in enumerate(noise_strips(210, 136)):
        cv2.imwrite(str(folder / f"doc{i // 10}_{i}.png"), strip.pixels)
    return folder


def config_of(real: Path, loop: WearLoop = LOOP) -> WearTraining:
    data = WearData(real, batch=2, crop_width_px=128)
    return WearTraining(data, loop, TINY, bundle=tiny_bundle())


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_wear(config_of(real), tmp_path / "whole")
    learn = training._WearRun._learn

    def interrupted(self, progress, batch):
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(self, progress, batch)

    monkeypatch.setattr(training._WearRun, "_learn", interrupted)
    with pytest.raises(Interrupted, match="after step 3"):
        train_wear(config_of(real), tmp_path / "broken")
    monkeypatch.undo()
    assert train_wear(config_of(real), tmp_path / "broken") == whole
    rows = [(tmp_path / run / "steps.jsonl").read_text() for run in ("whole", "broken")]
    assert rows[0] == rows[1] and len(rows[0].splitlines()) == 4
    last = [np.load(tmp_path / run / "checkpoints" / "step-00000004.npz") for run in ("whole", "broken")]
    for name in last[0].files:
        if name != "progress":
            np.testing.assert_array_equal(last[0][name], last[1][name])
    assert {p.name for p in (tmp_path / "whole" / "sheets").iterdir()} == {"000002.png", "000004.png"}
    metrics = [json.loads(row) for row in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [2, 4]
    assert {"frechet", "frechet_damaged", "diversity", "legible", "discriminator", "reading"} <= set(metrics[0])
    wear = Wear.load(tmp_path / "whole" / "exported")
    assert wear.about["figures"] == whole
    assert set(wear.styles) == {"real"} and wear.styles["real"].shape[1] == TINY.style


@pytest.mark.slow
def test_a_generator_that_blots_ends_the_run(real: Path, tmp_path: Path) -> None:
    loop = replace(LOOP, least_legible=2.0, grace=1)
    with pytest.raises(WearFailed, match=r"step 4: worn lines cannot be read: \d+ % .* 200 % are expected") as told:
        train_wear(config_of(real, loop), tmp_path / "run")
    assert told.value.exit_code == 5


@pytest.fixture
def various(tmp_path: Path) -> Path:
    """Real lines that are far from alike: tone of paper and ink, grain, blur."""
    folder, rng = tmp_path / "various", np.random.default_rng(1)
    folder.mkdir()
    line = 255 - drawn("abba" * 2).astype(np.float32)
    for i in range(210):
        paper, ink = rng.uniform(90, 250), rng.uniform(0, 80)
        grey = paper + (ink - paper) * line / 255 + rng.normal(0, rng.uniform(0, 20), line.shape)
        blurred = cv2.GaussianBlur(grey, (0, 0), rng.uniform(0.3, 1.5))
        cv2.imwrite(str(folder / f"doc{i // 10}_{i}.png"), np.clip(blurred, 0, 255).astype(np.uint8))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rate", "sentence"),
    [
        ("1e-9", r"step 3: all styles look alike: diversity 0\.0\d+, at least 0\.15 is expected"),
        ("0.3", r"step \d: worn lines cannot be read: \d+ % with a CER under 5 %, at least 50 % are expected"),
    ],
)
def test_the_command_ends_with_5_and_says_what_has_failed(
    various: Path, tmp_path: Path, rate: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--crop-width", "128", "--batch", "2", "--steps", "9", "--validate-every", "1", "--learning-rate", rate]
    words = ["train", "wear", "--real", str(various), "--output", str(tmp_path / "run"), *sizes]
    assert main(words) == 5
    said = capsys.readouterr()
    assert re.search(sentence, said.err) and "look at the sheets" in said.err
    assert (tmp_path / "run" / "sheets" / "000003.png").exists()
    assert not (tmp_path / "run" / "exported").exists()


def test_too_few_lines_are_told_before_anything_is_built(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a_1.png"), noise_strips(1, 80)[0].pixels)
    with pytest.raises(BadInput, match="of 1 real lines"):
        train_wear(config_of(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        ({"legible": 0.9, "diversity": 0.5}, ""),
        ({"legible": 0.4, "diversity": 0.5}, "cannot be read"),
        ({"legible": 0.9, "diversity": 0.05}, "look alike"),
    ],
)
def test_collapse_and_illegibility_are_noticed(figures: dict[str, float], word: str) -> None:
    found = verdict(figures, WearLoop())
    assert word in found and bool(word) == bool(found)


def test_lines_that_become_the_real_ones_are_at_no_distance(tmp_path: Path) -> None:
    bundle, strips = load_bundle(tiny_bundle(), "float32"), noise_strips(20, 136)
    check = WearCheck.drawn(
        config_of(tmp_path), strips, strips, TextSource.load(None), FontCase(find_fonts()), bundle.alphabet
    )

    def generated(inputs: list[np.ndarray], training: bool) -> np.ndarray:
        number = [next((i for i, g in enumerate(check.guessed) if np.array_equal(g, x[..., 0])), -1) for x in inputs[0]]
        return np.stack([check.real[i][..., None] / 255 if i >= 0 else np.zeros((40, 128, 1)) for i in number])

    networks = Networks(
        lambda grey, training: np.zeros((len(grey), 2 * TINY.style), np.float32),
        generated,
        None,
        reading_network(bundle),
    )
    figures = check(networks)
    assert figures["frechet"] < 1e-6 < figures["frechet_damaged"]
    assert figures["legible"] < 0.1


def test_documents_are_divided_where_there_are_enough() -> None:
    strips = noise_strips(200, 8)
    learnt, compared = divided_strips(strips, 0.1)
    assert not {s.document for s in learnt} & {s.document for s in compared}
    assert 4 <= len(compared) <= 60
    one = [RealStrip(s.pixels, "a", "one document") for s in strips]
    learnt, compared = divided_strips(one, 0.1)
    assert (len(learnt), len(compared)) == (180, 20)


def test_values_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="crop width 100 px"):
        WearTraining(WearData(tmp_path, crop_width_px=100))
    with pytest.raises(BadArgument, match="batch 1"):
        WearTraining(WearData(tmp_path, batch=1))
    with pytest.raises(BadArgument, match="compared"):
        WearLoop(compared=3)


def test_a_folder_without_wear_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="is no exported wear"):
        Wear.load(tmp_path)
    (tmp_path / "wear.json").write_text('{"format": "other", "version": 1}')
    with pytest.raises(BadModel, match="format 'other'"):
        Wear.load(tmp_path)
