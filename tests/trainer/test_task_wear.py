"""`pagemill train wear` and `cleaner`: flags to configurations, and what is refused."""

import argparse
from pathlib import Path

import pytest

from trainer.task import add_arguments, main
from trainer.task_wear import wear_from
from trainer.wear.training import WearLoop


def test_flags_change_the_configuration_and_leave_the_rest() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    words = ["wear", "--real", "scans", "--output", "r", "--steps", "7", "--seed", "3", "--crop-width", "256"]
    config = wear_from(parser.parse_args([*words, "--exclude", "a", "--exclude", "b", "--reader", "bundle"]))
    assert config.loop == WearLoop(steps=7, seed=3)
    assert (config.data.real, config.data.crop_width_px, config.data.exclude) == (Path("scans"), 256, ("a", "b"))
    assert (config.data.seed, config.bundle) == (3, Path("bundle"))
    assert wear_from(parser.parse_args(words)).data.exclude


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["wear"], 1, "learnt from real lines"),
        (["wear", "--real", "none"], 2, "no folder none"),
        (["wear", "--real", ".", "--data", "."], 1, "--data with wear"),
        (["wear", "--real", ".", "--from", "default", "--patience", "3"], 1, "--from, --patience with wear"),
        (["wear", "--real", ".", "--crop-width", "100"], 1, "crop width 100 px"),
        (["wear", "--real", ".", "--precision", "mixed_float16"], 1, "precision mixed_float16"),
        (["cleaner", "--real", "."], 1, "--real with cleaner"),
        (["cleaner", "--text", "none"], 2, "no text folder none"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*words, "--output", str(tmp_path / "run")]) == code
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
