"""`pagemill train` and `pagemill export`: the command line of the trainer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from ocr_model.errors import BadInput

TRAIN_EXAMPLES = """examples:
  pagemill train recogniser --data DATA --text TEXT --output runs/recogniser
  pagemill train finder --data DATA --text TEXT --output runs/finder --seed 2

DATA holds SOURCE/pages (NAME.png with NAME.lines.json) and SOURCE/lines (NAME.png with NAME.gt.txt). Without --text
the rendered lines say little more than a word list: enough to try, not to train."""
EXPORT_EXAMPLES = """example:
  pagemill export --recogniser runs/recogniser --finder runs/finder --data-note data.md --output my-model"""
NETWORKS = ("recogniser", "finder")


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill train`."""
    parser.add_argument("network", choices=NETWORKS, help="what to train")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="real scans with truth: SOURCE/pages and SOURCE/lines"
    )
    parser.add_argument(
        "--text", type=Path, metavar="DIR", help="UTF-8 text files, a paragraph a line, for rendered lines and pages"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="RUN", help="folder of the run: weights, metrics, configuration"
    )
    parser.add_argument("--steps", type=int, help="optimiser steps (default: those of the default bundle)")
    parser.add_argument("--learning-rate", type=float, help="peak learning rate")
    parser.add_argument("--validate-every", type=int, metavar="N", help="steps between validations")
    parser.add_argument("--seed", type=int, default=1, help="of data, initialisation and dropout (default 1)")
    parser.add_argument("--start", type=Path, metavar="WEIGHTS", help="weights of an earlier run to begin from")
    parser.add_argument("--processes", type=int, default=1, help="processes that prepare data (default 1)")
    parser.add_argument("--threads", type=int, default=0, help="threads of TensorFlow (default 0: all cores)")


def train(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill train`."""
    if not arguments.data.is_dir():
        raise BadInput(f"no data folder {arguments.data}", "name a folder of SOURCE/pages and SOURCE/lines")
    if arguments.text is not None and not arguments.text.is_dir():
        raise BadInput(f"no text folder {arguments.text}", "name a folder of .txt files")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    figures = _train_recogniser(arguments) if arguments.network == "recogniser" else _train_finder(arguments)
    print(f"best: {json.dumps(figures)}\nweights and metrics: {arguments.output}")
    return 0


def _with_flags(loop: Any, arguments: argparse.Namespace) -> Any:
    given = {
        "steps": arguments.steps,
        "learning_rate": arguments.learning_rate,
        "validate_every": arguments.validate_every,
    }
    return replace(loop, seed=arguments.seed, **{k: v for k, v in given.items() if v is not None})


def _train_recogniser(arguments: argparse.Namespace) -> dict[str, float]:
    from trainer.line_data import LineDataConfig
    from trainer.recogniser import RecogniserTraining, train_recogniser

    data = LineDataConfig(arguments.data, arguments.text, processes=arguments.processes, seed=arguments.seed)
    config = RecogniserTraining(data)
    return train_recogniser(
        replace(config, loop=_with_flags(config.loop, arguments)), arguments.output, arguments.start
    )


def _train_finder(arguments: argparse.Namespace) -> dict[str, float]:
    from trainer.card import read_run
    from trainer.finder import FinderTrainingConfig, train_finder

    config = FinderTrainingConfig(initial_weights=arguments.start)
    samples = replace(config.samples, seed=arguments.seed, workers=arguments.processes)
    train_finder(
        replace(config, samples=samples, loop=_with_flags(config.loop, arguments)),
        arguments.data,
        arguments.text,
        arguments.output,
    )
    return read_run(arguments.output)[1]


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill export`."""
    parser.add_argument(
        "--recogniser", type=Path, required=True, metavar="RUN", help="run folder of `pagemill train recogniser`"
    )
    parser.add_argument(
        "--finder", type=Path, required=True, metavar="RUN", help="run folder of `pagemill train finder`"
    )
    parser.add_argument(
        "--data-note", type=Path, required=True, metavar="FILE", help="Markdown: the training data and their licences"
    )
    parser.add_argument(
        "--figures",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="Markdown for the card: output of bench",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="BUNDLE", help="folder of the bundle; replaced if it exists"
    )


def export(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill export`."""
    from ocr_model.alphabet import DEFAULT_ALPHABET
    from ocr_model.finder import FinderConfig
    from ocr_model.recogniser import RecogniserConfig
    from trainer.card import model_card, read_run
    from trainer.export import export_bundle

    recogniser, finder = read_run(arguments.recogniser), read_run(arguments.finder)
    try:
        note = arguments.data_note.read_text(encoding="utf-8")
        figures = "\n\n".join(path.read_text(encoding="utf-8").strip() for path in arguments.figures)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cannot read what the model card is written from: {error}", "check --data-note and --figures"
        ) from error
    card = model_card(recogniser, finder, len(DEFAULT_ALPHABET.characters), note, figures, metadata.version("pagemill"))
    export_bundle(
        arguments.recogniser / "best.weights.h5",
        RecogniserConfig(**_tuples(recogniser[0]["network"])),
        arguments.finder / "best.weights.h5",
        FinderConfig(**_tuples(finder[0]["network"])),
        DEFAULT_ALPHABET,
        {"training": {"recogniser": recogniser[0], "finder": finder[0]}},
        card,
        arguments.output,
    )
    size = sum(p.stat().st_size for p in arguments.output.rglob("*") if p.is_file())
    print(f"bundle: {arguments.output} ({size / 1e6:.1f} MB), read back and compared")
    return 0


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
