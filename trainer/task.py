"""`python -m trainer.task`: the trainer's command line, the same flags as `pagemill train`, wherever it runs.

A container, a TPU VM and every worker of a cluster start it the same way; `deploy/README.md` tells how.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ocr_model.errors import BadArgument, BadInput, PagemillError

EXAMPLES = """examples:
  pagemill train recogniser --data DATA --text TEXT --output runs/recogniser
  pagemill train finder --data DATA --text TEXT --output runs/finder --seed 2
  pagemill train recogniser --data DATA --text TEXT --output runs/big --strategy mirrored --jit --processes 8

DATA holds SOURCE/pages (NAME.png with NAME.lines.json) and SOURCE/lines (NAME.png with NAME.gt.txt). Without --text
the rendered lines say little more than a word list: enough to try, not to train.

A run that was stopped goes on when the same command is given again. `python -m trainer.task` takes the same flags."""
NETWORKS = ("recogniser", "finder")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill train`."""
    parser.add_argument("network", choices=NETWORKS, help="what to train")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="real scans with truth: SOURCE/pages and SOURCE/lines"
    )
    parser.add_argument(
        "--text", type=Path, metavar="DIR", help="UTF-8 text files, a paragraph a line, for rendered lines and pages"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="RUN", help="folder of the run; one that was stopped goes on"
    )
    parser.add_argument("--start", type=Path, metavar="WEIGHTS", help="weights of an earlier run to begin from")
    add_loop_arguments(parser)
    add_hardware_arguments(parser)


def add_loop_arguments(parser: argparse.ArgumentParser) -> None:
    """How long and how fast to learn."""
    group = parser.add_argument_group("learning")
    group.add_argument("--steps", type=positive, help="optimiser steps (default: those of the default bundle)")
    group.add_argument("--learning-rate", type=float, help="peak learning rate")
    group.add_argument("--validate-every", type=positive, metavar="N", help="steps between validations")
    group.add_argument(
        "--checkpoint-every", type=positive, metavar="N", help="steps between checkpoints beside those of validations"
    )
    group.add_argument("--keep", type=positive, default=2, metavar="N", help="last checkpoints kept (default 2)")
    group.add_argument("--patience", type=int, metavar="N", help="end after N validations without a better one")
    group.add_argument("--accumulate", type=positive, metavar="N", help="batches whose gradients make a step")
    group.add_argument("--focal", type=float, default=0.0, metavar="GAMMA", help="focal CTC loss (recogniser only)")
    group.add_argument("--seed", type=int, default=1, help="of data, initialisation and dropout (default 1)")


def add_hardware_arguments(parser: argparse.ArgumentParser) -> None:
    """Where and how to run."""
    group = parser.add_argument_group("hardware")
    group.add_argument(
        "--strategy",
        choices=("default", "mirrored", "multi_worker", "tpu"),
        default="default",
        help="one device, several of this machine, several machines (TF_CONFIG), or a TPU",
    )
    group.add_argument("--devices", default="", metavar="N", help="of mirrored: how many, or which: GPU:0,GPU:1")
    group.add_argument("--tpu", default="", metavar="ADDRESS", help="local on a TPU VM, grpc://HOST:PORT, or a name")
    group.add_argument(
        "--precision",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
        default="mixed_bfloat16",
        help="of the arithmetic (default mixed_bfloat16); mixed_float16 is for GPUs without bfloat16",
    )
    group.add_argument("--jit", action="store_true", help="compile the step with XLA: for GPUs, slower on processors")
    group.add_argument("--profile", action="store_true", help="write a trace of ten steps for TensorBoard")
    group.add_argument("--processes", type=positive, default=1, help="processes that prepare data (default 1)")
    group.add_argument("--threads", type=int, default=0, help="threads of TensorFlow (default 0: all cores)")


def positive(text: str) -> int:
    """The number, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def ways_from(arguments: argparse.Namespace) -> Any:
    """The `trainer.loop.Ways` that the flags tell; TensorFlow gets its number of threads."""
    import tensorflow as tf

    from trainer.loop import Ways
    from trainer.strategy import Hardware

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    hardware = Hardware(arguments.strategy, arguments.devices, arguments.tpu)
    return Ways(hardware, arguments.precision, arguments.keep, arguments.profile)


def loop_from(loop: Any, arguments: argparse.Namespace) -> Any:
    """The `trainer.loop.LoopConfig` with what the flags say otherwise."""
    names = ("steps", "learning_rate", "validate_every", "checkpoint_every", "patience", "accumulate")
    given = {name: getattr(arguments, name) for name in names}
    changed = {name: value for name, value in given.items() if value is not None}
    return replace(loop, seed=arguments.seed, jit=arguments.jit, **changed)


def run(arguments: argparse.Namespace) -> int:
    """Trains; returns the exit code.

    Raises:
        PagemillError: as `trainer.loop.train`.
    """
    if not arguments.data.is_dir():
        raise BadInput(f"no data folder {arguments.data}", "name a folder of SOURCE/pages and SOURCE/lines")
    if arguments.text is not None and not arguments.text.is_dir():
        raise BadInput(f"no text folder {arguments.text}", "name a folder of .txt files")
    if arguments.focal and arguments.network != "recogniser":
        raise BadArgument(f"--focal with {arguments.network}", "the focal loss is the recogniser's")
    figures = _recogniser(arguments) if arguments.network == "recogniser" else _finder(arguments)
    print(f"best: {json.dumps(figures)}\nweights and metrics: {arguments.output}")
    return 0


def _recogniser(arguments: argparse.Namespace) -> dict[str, float]:
    ways = ways_from(arguments)
    from trainer.line_data import LineDataConfig
    from trainer.recogniser import RecogniserTraining, train_recogniser

    data = LineDataConfig(arguments.data, arguments.text, processes=arguments.processes, seed=arguments.seed)
    config = RecogniserTraining(data, precision=arguments.precision, focal=arguments.focal)
    config = replace(config, loop=loop_from(config.loop, arguments))
    return train_recogniser(config, arguments.output, arguments.start, ways)


def _finder(arguments: argparse.Namespace) -> dict[str, float]:
    ways = ways_from(arguments)
    from trainer.finder import FinderTrainingConfig, train_finder

    config = FinderTrainingConfig(policy=arguments.precision, initial_weights=arguments.start)
    samples = replace(config.samples, seed=arguments.seed, workers=arguments.processes)
    config = replace(config, samples=samples, loop=loop_from(config.loop, arguments))
    return train_finder(config, arguments.data, arguments.text, arguments.output, ways)


class _Parser(argparse.ArgumentParser):
    """Raises `BadArgument` where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        raise BadArgument(message, f"see {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code, which is that of `pagemill train`."""
    parser = _Parser(
        prog="python -m trainer.task",
        description="Trains the recogniser or the line finder.",
        epilog=EXAMPLES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    try:
        return run(parser.parse_args(argv))
    except PagemillError as error:
        print(f"trainer.task: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
