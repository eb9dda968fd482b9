import json
from pathlib import Path

import pytest

from ocr_model.errors import BadInput
from trainer.card import NetworkRecord, model_card, read_run

CONFIG = {"minimise": "cer", "loop": {"seed": 7, "steps": 20, "learning_rate": 0.002}, "network": {"classes": 4}}

RUN = NetworkRecord(CONFIG, {"step": 10.0, "cer": 0.1})


def write_run(folder: Path, rows: list[dict[str, float]]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "best.weights.h5").write_bytes(b"")
    return folder


def test_the_best_validation_is_the_lowest_and_the_latest_of_equals(tmp_path: Path) -> None:
    rows = [{"step": 5, "cer": 0.3}, {"step": 10, "cer": 0.1}, {"step": 15, "cer": 0.1}, {"step": 20, "cer": 0.2}]
    assert read_run(write_run(tmp_path / "run", rows)).best["step"] == 15


def test_a_run_without_a_validation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no validated weights"):
        read_run(write_run(tmp_path / "run", []))
    with pytest.raises(BadInput, match="not a training run"):
        read_run(tmp_path / "none")


def test_the_card_names_data_figures_commands_and_seed() -> None:
    figures = "| books | 3 | 1.23 |"
    card = model_card(RUN, RUN, 290, "open data, CC-BY 4.0", figures, "0.1.0")
    for expected in (figures, "CC-BY 4.0", "pagemill train finder", "seed 7", "290 characters"):
        assert expected in card


def test_the_card_tells_confusions_hardware_and_time_where_the_run_recorded_them(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [{"step": 5, "cer": 0.3, "seconds": 120}])
    environment = {"platform": "Linux", "processor": "a chip", "cores": 8, "replicas": 2, "devices": ["GPU"]}
    (folder / "environment.json").write_text(json.dumps(environment))
    (folder / "best.json").write_text(json.dumps({"confusions": [["m", "n", 7]]}))
    card = model_card(read_run(folder), RUN, 290, "data", "", "0.1.0")
    for expected in ("| m | n | 7 |", "2 minutes of training on Linux, a chip, 8 cores, 2 x GPU"):
        assert expected in card


def test_a_card_without_figures_says_so() -> None:
    assert "None were given" in model_card(RUN, RUN, 4, "data", "", "0.1.0")
