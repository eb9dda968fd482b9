"""The trainer's own command line, and the files that start it elsewhere."""

import argparse
import subprocess
from pathlib import Path

import pytest
import yaml

from trainer.loop import LoopConfig
from trainer.strategy import Hardware
from trainer.task import add_arguments, loop_from, main, ways_from

TRAINING = Path(__file__).parents[2] / "deploy" / "training"


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return parser.parse_args(["recogniser", "--data", "d", "--output", "r", *words])


def test_flags_change_the_configuration_and_leave_the_rest() -> None:
    loop = loop_from(LoopConfig(steps=7, ema=0.9), parsed("--accumulate", "3", "--seed", "5", "--jit"))
    assert loop == LoopConfig(steps=7, ema=0.9, accumulate=3, seed=5, jit=True)
    ways = ways_from(parsed("--strategy", "mirrored", "--devices", "2", "--keep", "4", "--profile"))
    assert (ways.hardware, ways.keep, ways.profile) == (Hardware("mirrored", "2"), 4, True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["recogniser", "--data", "none", "--output", "r"], 2, "no data folder"),
        (["finder", "--data", ".", "--output", "r", "--focal", "2"], 1, "--focal"),
        (["recogniser", "--data", ".", "--output", "r", "--text", "none"], 2, "no text folder"),
        (["recogniser", "--data", ".", "--output", "r", "--steps", "0"], 1, "no positive number"),
        (["reader"], 1, "invalid choice"),
    ],
)
def test_an_error_is_one_line_with_the_exit_code_of_the_command(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.startswith("trainer.task: ")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("path", sorted(TRAINING.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_job_has_flags_that_the_trainer_takes(path: Path) -> None:
    job = yaml.safe_load(path.read_text())
    for pool in job["workerPoolSpecs"]:
        parser = argparse.ArgumentParser(exit_on_error=False)
        add_arguments(parser)
        arguments = parser.parse_args(pool["containerSpec"]["args"])
        assert arguments.strategy in ("mirrored", "multi_worker")
        assert pool["replicaCount"] >= 1


@pytest.mark.parametrize("path", sorted(TRAINING.glob("*.sh")), ids=lambda path: path.stem)
def test_a_script_is_sound_and_tells_how_it_is_called(path: Path) -> None:
    subprocess.run(["sh", "-n", path], check=True)
    called = subprocess.run([path], capture_output=True, text=True, check=False)
    assert called.returncode == 1
    assert path.name in called.stderr


@pytest.mark.parametrize(("code", "starts"), [(0, 1), (2, 1), (15, 3), (137, 3)])
def test_a_worker_is_started_again_after_what_another_attempt_may_mend(tmp_path: Path, code: int, starts: int) -> None:
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(f'#!/bin/sh\necho "$TF_CONFIG" "$@" >> {log}\nexit {code}\n')
    python.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python), "PAUSE_S": "0", "MAX_ATTEMPTS": "3"}
    words = [TRAINING / "worker.sh", "1", "a:1,b:2", "recogniser", "--data", "d"]
    assert subprocess.run(words, env=environment, capture_output=True, check=False).returncode == code
    calls = log.read_text().splitlines()
    assert len(calls) == starts
    config = '{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}'
    assert calls[0] == f"{config} -m trainer.task recogniser --data d --strategy multi_worker"
