"""Devices and workers: the same loss curve however the batch is divided. Each way runs in processes of its own."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ocr_model.errors import BadArgument, BadInput
from trainer.strategy import Hardware, cluster_of, mirrored_devices, open_strategy

ROOT = Path(__file__).parents[2]


def start(network: str, run: Path, *flags: str, tf_config: str = "") -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.trainer.curve", network, str(run), *flags]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_CONFIG": tf_config, "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def start_workers(network: str, run: Path, dies: int | None = None) -> list[subprocess.Popen[str]]:
    """Two workers on this machine; number `dies` is killed by step 13."""
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        workers = [f"127.0.0.1:{s.getsockname()[1]}" for s in (a, b)]
    configs = [
        json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}) for index in (0, 1)
    ]
    return [
        start(
            network,
            run,
            *["--strategy", "multi_worker", *(["--die-after", "12"] if index == dies else [])],
            tf_config=config,
        )
        for index, config in enumerate(configs)
    ]


def finish(*processes: subprocess.Popen[str]) -> list[tuple[int, str]]:
    """Exit code and output of each."""
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def curve(run: Path) -> list[float]:
    return [json.loads(row)["loss"] for row in (run / "steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("network", ["recogniser", pytest.param("finder", marks=pytest.mark.slow)])
def test_two_devices_and_two_workers_give_the_curve_of_one_device(tmp_path: Path, network: str) -> None:
    finished = finish(
        start(network, tmp_path / "one"),
        start(network, tmp_path / "two", "--strategy", "mirrored", "--devices", "2"),
        *start_workers(network, tmp_path / "workers"),
    )
    assert [code for code, _ in finished] == [0] * 4, finished
    one = curve(tmp_path / "one")
    assert len(one) == 20
    np.testing.assert_allclose(curve(tmp_path / "two"), one, rtol=1e-4)
    np.testing.assert_allclose(curve(tmp_path / "workers"), one, rtol=1e-4)


@pytest.mark.slow
def test_after_a_worker_was_killed_all_go_on_from_the_checkpoint(tmp_path: Path) -> None:
    (alive, output), (killed, _) = finish(*start_workers("recogniser", tmp_path / "run", dies=1))
    assert killed < 0
    assert alive != 0
    assert "WorkerLost: another worker has stopped" in output
    again = finish(*start_workers("recogniser", tmp_path / "run"), start("recogniser", tmp_path / "one"))
    assert [code for code, _ in again] == [0] * 3, again
    assert "goes on after step 10" in again[0][1]
    np.testing.assert_allclose(curve(tmp_path / "run"), curve(tmp_path / "one"), rtol=1e-4)


@pytest.mark.parametrize(
    ("hardware", "message"),
    [
        (Hardware("many"), "unknown strategy many"),
        (Hardware("default", devices="2"), "--devices goes with --strategy mirrored"),
        (Hardware("tpu"), "go together"),
        (Hardware("default", tpu="local"), "go together"),
        (Hardware("mirrored", devices="GPU:7"), r"no device GPU:7 \(this machine has CPU:0"),
        (Hardware("mirrored", devices="0"), "--devices 0"),
    ],
)
def test_what_does_not_go_together_is_refused(hardware: Hardware, message: str) -> None:
    with pytest.raises(BadArgument, match=message):
        open_strategy(hardware)


def test_devices_are_named_as_tensorflow_names_them() -> None:
    assert mirrored_devices("cpu:0") == ["CPU:0"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}']
)
def test_a_cluster_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="TF_CONFIG"):
        cluster_of(text)


def test_a_chief_is_the_first_worker() -> None:
    cluster = {"chief": ["c:1"], "worker": ["a:1", "b:1"]}
    for kind, index, number in (("chief", 0, 0), ("worker", 1, 2)):
        text = json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})
        assert cluster_of(text) == (["c:1", "a:1", "b:1"], number)


def test_a_tpu_that_does_not_answer_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(BadInput, match=f"no TPU at grpc://127.0.0.1:{port}"):
        open_strategy(Hardware("tpu", tpu=f"grpc://127.0.0.1:{port}"))


@pytest.mark.slow
def test_a_machine_without_a_tpu_says_so() -> None:
    with pytest.raises(BadInput, match="no TPU at local"):
        open_strategy(Hardware("tpu", tpu="local"))
