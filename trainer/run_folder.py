"""The folder of a run: configuration, environment, metrics (JSONL and TensorBoard), weights."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ocr_model.errors import BadInput
from trainer.checkpoints import Checkpoints, write_atomically, write_text

FINDINGS = "best.json"
PACKAGES = ("pagemill", "tensorflow", "keras", "numpy", "opencv-python-headless")


@dataclass
class RunFolder:
    """Where a run keeps its files.

    `config.json`: all that decides the run; `environment.json`: versions, hardware, commit; `metrics.jsonl`: a row a
    validation; `steps.jsonl`: a row a step; `tensorboard/`; `checkpoints/`; `best.weights.h5`: averaged weights;
    `best.json`: what their validation found beside its figures.

    Args:
        writes: False for workers that leave the files to the chief.
    """

    path: Path
    keep: int = 2
    writes: bool = True
    _board: Any = field(default=None, repr=False)
    _rows: list[str] = field(default_factory=list, repr=False)

    @property
    def best(self) -> Path:
        return self.path / "best.weights.h5"

    @property
    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.path / "checkpoints", self.keep)

    @property
    def board(self) -> Path:
        return self.path / "tensorboard"

    def start(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Writes the configuration, or checks that it is the one that the run here began with.

        Raises:
            BadInput: there are checkpoints of a run with another configuration.
        """
        config = json.loads(json.dumps(config, default=str))
        known = self.path / "config.json"
        if self.checkpoints.all() and known.exists():
            if differing := differences(json.loads(known.read_text(encoding="utf-8")), config):
                raise BadInput(
                    f"{self.path} holds a run with another configuration: {'; '.join(differing[:3])}",
                    "repeat its flags to go on, or name another --output",
                )
        elif self.writes:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in ("metrics.jsonl", "steps.jsonl"):
                (self.path / name).unlink(missing_ok=True)
        if self.writes:
            for name, value in (("config.json", config), ("environment.json", environment)):
                write_text(self.path / name, json.dumps(value, indent=1) + "\n")

    def go_back_to(self, step: int, validated: int) -> None:
        """Drops the rows of steps after `step` and of validations after `validated`, which will be done again."""
        for name, last in (("metrics.jsonl", validated), ("steps.jsonl", step)):
            path = self.path / name
            if self.writes and path.exists():
                rows = [row for row in path.read_text().splitlines(keepends=True) if _step_of(row) <= last]
                write_text(path, "".join(rows))

    def log_step(self, **values: Any) -> None:
        """A row of steps.jsonl, kept until `flush`."""
        if self.writes:
            self._rows.append(json.dumps(values) + "\n")

    def flush(self) -> None:
        if self._rows:
            with (self.path / "steps.jsonl").open("a") as file:
                file.writelines(self._rows)
            self._rows.clear()

    def log(self, **values: Any) -> None:
        """A row of metrics.jsonl and on standard output."""
        if not self.writes:
            return
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(values) + "\n")
        print(" ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items()), flush=True)

    def draw(self, step: int, scalars: Mapping[str, float], pictures: Sequence[tuple[str, np.ndarray]] = ()) -> None:
        """Values and pictures (name, [H, W] or [H, W, 3] uint8) for TensorBoard."""
        if not self.writes:
            return
        if self._board is None:
            self._board = tf.summary.create_file_writer(str(self.board))
        with self._board.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.write(name, tf.constant(float(value), tf.float32), metadata=_shown_as("scalars"))
            for name, picture in pictures:
                tf.summary.write(name, _as_png(picture), metadata=_shown_as("images"))
        self._board.flush()

    def save_weights(self, model: keras.Model, path: Path) -> None:
        """Writes the weights for Keras's `load_weights`.

        Raises:
            CannotWrite: what was at `path` is there as before.
        """
        if self.writes:
            write_atomically(path, model.save_weights)

    def save_findings(self, findings: Any) -> None:
        """Writes what belongs to the best weights.

        Raises:
            CannotWrite: what was there is there as before.
        """
        if self.writes:
            write_text(self.path / FINDINGS, json.dumps(findings, ensure_ascii=False) + "\n")


def _shown_as(plugin: str) -> Any:
    """What tells TensorBoard how to show a tensor; `tf.summary.scalar` says the same, and needs TensorBoard for it."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = plugin
    return metadata


def _as_png(picture: np.ndarray) -> tf.Tensor:
    """Width, height and PNG, as strings: TensorBoard's form of a picture."""
    height, width = picture.shape[:2]
    png = tf.io.encode_png(picture[..., None] if picture.ndim == 2 else picture)
    return tf.stack([tf.constant(str(width)), tf.constant(str(height)), png])


def _step_of(row: str) -> float:
    try:
        return float(json.loads(row)["step"])
    except (ValueError, KeyError, TypeError):  # cut short by a kill
        return float("inf")


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """What differs between two JSON values, with both values. What an older version did not write does not count.

    >>> differences({"loop": {"seed": 1}, "a": 2}, {"loop": {"seed": 3}, "a": 2, "b": 4})
    ['loop.seed 1, now 3']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        return [d for k in old for d in differences(old.get(k), new.get(k), f"{name}.{k}" if name else k)]
    return [] if old == new else [f"{name} {json.dumps(old)}, now {json.dumps(new)}"]


def environment(strategy: tf.distribute.Strategy) -> dict[str, Any]:
    """What the run depends on beside its configuration: versions, hardware, commit; no name of a machine or a user."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "strategy": type(strategy).__name__,
        "replicas": strategy.num_replicas_in_sync,
        "devices": sorted({d.device_type for d in tf.config.list_logical_devices()}),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "commit": commit(Path(__file__).parent),
    }


def _processor() -> str:
    """What Linux calls the processor; elsewhere the architecture."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.machine()
    named = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return named[0] if named else platform.machine()


def hardware_of(environment: Mapping[str, Any]) -> str:
    """A few words on what a run ran on, from `environment`.

    >>> hardware_of({"platform": "Linux x86_64", "replicas": 2, "devices": ["CPU"], "processor": "Any", "cores": 4})
    'Linux x86_64, Any, 4 cores, 2 x CPU'
    """
    cores = f"{environment.get('processor')}, {environment.get('cores')} cores"
    devices = f"{environment.get('replicas')} x {', '.join(environment.get('devices') or [])}"
    return f"{environment.get('platform')}, {cores}, {devices}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit(folder: Path) -> str | None:
    """The git commit of the code, with `+` where files have changed since; None outside of a repository."""
    try:
        answers = [
            subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return answers[0].stdout.strip() + ("+" if answers[1].stdout.strip() else "")
