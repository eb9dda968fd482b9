"""The mean of runs of one network."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest

from ocr_model.errors import BadInput
from ocr_model.finder import FinderConfig, build_finder
from trainer.average_weights import average, main

SMALL = FinderConfig((2, 3, 4, 5), (1,))


def write_run(folder: Path, seed: int, network: FinderConfig = SMALL) -> list[np.ndarray]:
    """A run folder; its weights."""
    keras.utils.set_random_seed(seed)
    model = build_finder(network)
    folder.mkdir()
    model.save_weights(folder / "best.weights.h5")
    (folder / "config.json").write_text(json.dumps({"network": asdict(network), "seed": seed}))
    return [np.array(w) for w in model.get_weights()]


def test_the_mean_counts_a_run_as_often_as_it_is_named(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a", 1), write_run(tmp_path / "b", 2)
    average([tmp_path / "a", tmp_path / "b", tmp_path / "b"], tmp_path / "mean")
    model = build_finder(SMALL)
    model.load_weights(tmp_path / "mean" / "best.weights.h5")
    for a, b, found in zip(first, second, model.get_weights(), strict=True):
        np.testing.assert_allclose(found, (a + 2 * b) / 3, atol=1e-6)
    assert json.loads((tmp_path / "mean" / "config.json").read_text())["seed"] == 2


def test_runs_of_different_networks_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a", 1)
    write_run(tmp_path / "b", 1, FinderConfig((2, 3, 4, 6), (1,)))
    with pytest.raises(BadInput, match="different networks"):
        average([tmp_path / "a", tmp_path / "b"], tmp_path / "mean")
    assert (
        main([str(tmp_path / "a"), str(tmp_path / "c"), "--output", str(tmp_path / "mean")]) == BadInput("").exit_code
    )
    assert "not all are runs" in capsys.readouterr().err
