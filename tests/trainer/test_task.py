"""The trainer's own command line, and the files that start it elsewhere."""

import argparse
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from trainer.finder import FinderTrainingConfig
from trainer.finetune import FROZEN_LEARNING_RATE, LOOP, FineTuning
from trainer.line_data import LineDataConfig
from trainer.loop import LoopConfig
from trainer.strategy import Hardware
from trainer.task import add_arguments, finder_from, finetuning_from, loop_from, main, recogniser_from, ways_from

TRAINING = Path(__file__).parents[2] / "deploy" / "training"


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return parser.parse_args(["--output", "r", *words])


def test_flags_change_the_configuration_and_leave_the_rest() -> None:
    loop = loop_from(LoopConfig(steps=7, ema=0.9), parsed("--accumulate", "3", "--seed", "5", "--jit"))
    assert loop == LoopConfig(steps=7, ema=0.9, accumulate=3, seed=5, jit=True)
    ways = ways_from(parsed("--strategy", "mirrored", "--devices", "2", "--keep", "4", "--profile", "--threads", "3"))
    assert (ways.hardware, ways.keep, ways.profile) == (Hardware("mirrored", "2", threads=3), 4, True)
    data = recogniser_from(parsed("recogniser", "--data", "d", "--real-share", "0.5", "--mix", "w:0.1")).data
    assert data == LineDataConfig(Path("d"), None, real_share=0.5, mixed=((Path("w"), 0.1),))
    finder = finder_from(parsed("finder", "--data", "d", "--validation-share", "0.2", "--precision", "float32"))
    assert (finder.validation_share, finder.policy) == (0.2, "float32")
    assert finder.samples.real_share == FinderTrainingConfig().samples.real_share


def test_from_makes_a_fine_tuning_of_the_bundle_named() -> None:
    config = finetuning_from(parsed("--from", "default", "--records", "r", "--freeze", "backbone", "--steps", "9"))
    assert config == FineTuning(
        records=Path("r"), freeze="backbone", loop=replace(LOOP, steps=9, learning_rate=FROZEN_LEARNING_RATE)
    )
    config = finetuning_from(parsed("--from", "b", "--lines", "l", "--alphabet", "new", "--text", "t", "--focal", "1"))
    assert config == FineTuning(Path("l"), start=Path("b"), alphabet="new", text=Path("t"), focal=1.0)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["recogniser", "--data", "none", "--output", "r"], 2, "no data folder"),
        (["finder", "--data", ".", "--output", "r", "--focal", "2"], 1, "--focal"),
        (["--output", "r", "--data", "."], 1, "what to train is not said"),
        (["recogniser", "--output", "r"], 1, "give --data or --records"),
        (["recogniser", "--output", "r", "--data", ".", "--records", "."], 1, "give --data or --records"),
        (["recogniser", "--output", "r", "--data", ".", "--freeze", "backbone"], 1, "--freeze without --from"),
        (["--from", "default", "--output", "r", "--data", "."], 1, "--data with --from"),
        (["--from", "default", "--output", "r"], 1, "give --records or --lines"),
        (["finder", "--from", "default", "--output", "r", "--lines", "."], 1, "--from with finder"),
        (["--from", "default", "--output", "r", "--lines", "none"], 2, "no lines folder"),
        (["recogniser", "--output", "/dev/null/r", "--data", "."], 2, "cannot write to /dev/null/r"),
        (["recogniser", "--data", ".", "--output", "r", "--text", "none"], 2, "no text folder"),
        (["recogniser", "--data", ".", "--output", "r", "--steps", "0"], 1, "no positive number"),
        (["reader"], 1, "invalid choice"),
        (["recogniser", "--data", ".", "--output", "r", "--mix", "w"], 1, "'w' is not DIR:SHARE"),
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


@pytest.mark.parametrize("name", ["one-machine.sh", "tpu-vm.sh"])
def test_a_script_hands_its_flags_to_the_trainer_which_takes_them(tmp_path: Path, name: str) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)
    flags = ["recogniser", "--records", "a folder", "--output", "r", "--processes", "3"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(python)}
    called = subprocess.run([TRAINING / name, *flags], env=environment, capture_output=True, text=True, check=True)
    module, words = called.stdout.splitlines()[:2], called.stdout.splitlines()[2:]
    assert module == ["-m", "trainer.task"]
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    arguments = parser.parse_args(words)
    assert arguments.records == Path("a folder") and arguments.processes == 3
    assert arguments.strategy == {"one-machine.sh": "mirrored", "tpu-vm.sh": "tpu"}[name]


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
