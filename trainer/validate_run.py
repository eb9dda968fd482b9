"""python -m trainer.validate_run RUN --data DATA --text TEXT: measures a network of `trainer.jax_task`.

Writes what `trainer.loop` writes at a validation, metrics.jsonl and for a recogniser best.json, so that
`pagemill export` takes the run. It runs with TensorFlow, and so where the bundle is made.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import keras

from ocr_model.alphabet import Alphabet
from ocr_model.errors import BadInput, PagemillError
from ocr_model.finder import FinderConfig, build_finder
from ocr_model.recogniser import RecogniserConfig, build_recogniser
from trainer.checkpoints import write_text
from trainer.finder import rendered_pages, validation
from trainer.finder_samples import divided_pages
from trainer.line_data import LineDataConfig, validation_lines
from trainer.recogniser import Validation
from trainer.run_folder import FINDINGS


def validate(run: Path, data: Path, text: Path) -> dict[str, float]:
    """The figures of the weights of a run on lines or pages of documents that it did not see.

    Raises:
        BadInput: the folder holds no run of `trainer.jax_task`.
    """
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        network, steps, kind = config["network"], config["loop"]["steps"], config["minimise"]
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{run} is no run: {error}", "name OUTPUT/NAME of trainer.jax_task") from error
    keras.mixed_precision.set_global_policy(config["precision"])
    figures = of_lines(run, config, data, text) if kind == "cer" else of_pages(run, network, config, data, text)
    row = {"step": steps, "seconds": config["loop"]["seconds"], **figures}
    write_text(run / "metrics.jsonl", json.dumps(row) + "\n")
    return figures


def of_lines(run: Path, config: dict[str, Any], data: Path, text: Path) -> dict[str, float]:
    model = build_recogniser(RecogniserConfig.from_json(config["network"]))
    model.load_weights(run / "best.weights.h5")
    measure = Validation(validation_lines(LineDataConfig(data, text)), Alphabet(config["alphabet"]))
    figures = measure(model)
    write_text(run / FINDINGS, json.dumps(measure.findings(), ensure_ascii=False) + "\n")
    return figures


def of_pages(run: Path, network: dict[str, Any], config: dict[str, Any], data: Path, text: Path) -> dict[str, float]:
    model = build_finder(FinderConfig.from_json(network))
    model.load_weights(run / "best.weights.h5")
    _, held_out = divided_pages(data, 0.1)
    return validation(held_out + rendered_pages(text, 40, config["samples"]["seed"]))(model)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.validate_run", description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, nargs="+", help="OUTPUT/NAME of trainer.jax_task")
    parser.add_argument("--data", type=Path, required=True, help="folder of sources with truth")
    parser.add_argument("--text", type=Path, required=True, help="folder of text files for what is rendered")
    arguments = parser.parse_args(argv)
    try:
        for run in arguments.run:
            figures = validate(run, arguments.data, arguments.text)
            print(run.name, " ".join(f"{name} {value:.4f}" for name, value in figures.items()), flush=True)
    except PagemillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
