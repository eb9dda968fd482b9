"""python -m trainer.average_weights RUN RUN … --output RUN: the mean of the weights of runs of one network.

Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization": points of one path of
learning can be averaged, such as a run and the one that went on from it. A run that is named twice counts twice.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from ocr_model.errors import BadInput, PagemillError

WEIGHTS, CONFIG = "best.weights.h5", "config.json"


def average(runs: Sequence[Path], output: Path) -> None:
    """Writes a run folder like the last one, with the mean of the weights of all; it has to be validated anew.

    Raises:
        BadInput: a folder is no run, or the networks differ.
    """
    try:
        networks = [json.loads((run / CONFIG).read_text(encoding="utf-8"))["network"] for run in runs]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"not all are runs: {error}", "name run folders") from error
    if any(network != networks[0] for network in networks):
        raise BadInput("the runs have different networks", "average runs of one network")
    output.mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, "environment.json"):
        if (runs[-1] / name).exists():
            shutil.copyfile(runs[-1] / name, output / name)
    with h5py.File(runs[0] / WEIGHTS) as first:
        sums = {name: np.zeros(value.shape, np.float64) for name, value in _arrays(first).items()}
    for run in runs:
        with h5py.File(run / WEIGHTS) as file:
            for name, value in _arrays(file).items():
                sums[name] += value[()] / len(runs)
    shutil.copyfile(runs[-1] / WEIGHTS, output / WEIGHTS)
    with h5py.File(output / WEIGHTS, "r+") as file:
        for name, value in _arrays(file).items():
            value[...] = sums[name].astype(value.dtype)


def _arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """The floating-point arrays of a file, by name."""
    found: dict[str, h5py.Dataset] = {}

    def note(name: str, value: object) -> None:
        if isinstance(value, h5py.Dataset) and value.dtype.kind == "f":
            found[name] = value

    file.visititems(note)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.average_weights", description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders of one network")
    parser.add_argument("--output", type=Path, required=True, help="run folder to write")
    arguments = parser.parse_args(argv)
    try:
        average(arguments.runs, arguments.output)
    except PagemillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
