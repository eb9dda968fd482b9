"""Checkpoints: everything that a run needs to go on as if it had not stopped, each in one file.

A file is written beside, flushed to the disk and renamed, so a full disk or a stop in the middle leaves the previous
ones whole. Arrays are plain NumPy, whatever the strategy: a run may go on with other devices.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ocr_model.errors import BadInput, PagemillError

_PROGRESS = "progress"


class CannotWrite(PagemillError):
    """A file of the run cannot be written, as on a full disk; what was written before is whole."""

    exit_code = 2


@dataclass
class Progress:
    """How far a run is, beside what is in variables.

    Attributes:
        step: optimiser steps done.
        place: where the data stream goes on, as its batches tell.
        best: figures of the best validation; empty before the first.
        waited: validations since the best.
        validated: the last step that was validated.
        loss_scale, good_steps: of mixed_float16, see `trainer.loop.next_scale`.
        seconds: of training, over all its sittings.
        dropped: lines that were too short for their text.
        loss_sum, losses: of the steps since the last validation.
    """

    step: int = 0
    place: Any = None
    best: dict[str, float] = field(default_factory=dict)
    waited: int = 0
    validated: int = 0
    loss_scale: float = 1.0
    good_steps: int = 0
    seconds: float = 0.0
    dropped: int = 0
    loss_sum: float = 0.0
    losses: int = 0


def write_text(path: Path, text: str) -> None:
    """Writes a text file, or leaves the one that is there; see `write_atomically`."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file beside `path`, then puts it in its place.

    Raises:
        CannotWrite: the disk is full, or the like; what was at `path` is there as before.
    """
    temporary = path.with_name("writing." + path.name)
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # h5py tells of a full disk by a RuntimeError
        temporary.unlink(missing_ok=True)
        raise CannotWrite(
            f"cannot write {path}: {error}", "make room; the same command goes on from the last checkpoint"
        ) from error


@dataclass(frozen=True)
class Checkpoints:
    """The last `keep` checkpoints of a folder."""

    folder: Path
    keep: int = 2

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.npz"

    def all(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step-*.npz"))

    def save(self, progress: Progress, variables: Mapping[str, tf.Variable]) -> Path:
        """Writes a checkpoint and deletes the oldest beyond `keep`.

        Raises:
            CannotWrite: the previous ones are there as before.
        """
        arrays = {name.replace("/", "."): np.asarray(v.numpy()) for name, v in variables.items()}
        arrays[_PROGRESS] = np.frombuffer(json.dumps(asdict(progress)).encode(), np.uint8)

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotWrite(f"cannot make {self.folder}: {error}", "name another --output") from error
        path = self.path(progress.step)
        write_atomically(path, write)
        for old in self.all()[: -self.keep]:
            old.unlink(missing_ok=True)
        return path

    def restore(self, variables: Mapping[str, tf.Variable]) -> Progress | None:
        """Puts the newest checkpoint that can be read into the variables; None if there is none.

        Raises:
            BadInput: there are checkpoints, but none can be read, or they are of another network.
        """
        errors = []
        for path in reversed(self.all()):
            try:
                with np.load(path) as file:
                    arrays = {name: file[name] for name in file.files}
                progress = Progress(**json.loads(bytes(arrays.pop(_PROGRESS))))
            except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
                errors.append(f"{path.name}: {error}")
                continue
            _assign(arrays, {name.replace("/", "."): v for name, v in variables.items()}, path)
            return progress
        if errors:
            raise BadInput(
                f"no checkpoint of {self.folder} can be read: {'; '.join(errors)}", "begin anew in another --output"
            )
        return None


def _assign(arrays: Mapping[str, np.ndarray], variables: Mapping[str, tf.Variable], path: Path) -> None:
    differing = sorted(set(arrays) ^ set(variables)) or [
        f"{name} {arrays[name].shape}, here {tuple(v.shape)}"
        for name, v in variables.items()
        if arrays[name].shape != tuple(v.shape)
    ]
    if differing:
        raise BadInput(f"{path} is of another network: {', '.join(differing[:3])}", "name another --output")
    for name, variable in variables.items():
        variable.assign(arrays[name])
