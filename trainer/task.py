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
from trainer import task_wear

EXAMPLES = f"""examples:
  pagemill train recogniser --data DATA --text TEXT --output runs/recogniser
  pagemill train recogniser --records RECORDS --text TEXT --output runs/recogniser
  pagemill train finder --data DATA --text TEXT --output runs/finder --seed 2
  pagemill train recogniser --data DATA --text TEXT --output runs/big --strategy mirrored --jit --processes 8
  pagemill train --from default --records RECORDS --output runs/mine
  pagemill train --from models/french --lines LINES --freeze backbone --output runs/mine
{task_wear.EXAMPLES}

DATA holds SOURCE/pages (NAME.png with NAME.lines.json) and SOURCE/lines (NAME.png with NAME.gt.txt), LINES the latter
(.jpg and .tif, too), RECORDS is the --output of `pagemill ingest`. Without --text the rendered lines say little more
than a word list: enough to try, not to train.

--from tunes the recogniser of a bundle on a collection: a few hundred lines and ten minutes are enough, and the new
bundle is RUN/bundle. Exit code 5 if nothing was gained; then no bundle is written.

A run that was stopped goes on when the same command is given again. `python -m trainer.task` takes the same flags."""
NETWORKS = ("recogniser", "finder", *task_wear.NETWORKS)
PRECISION = "mixed_bfloat16"
NOTHING_GAINED = 5
DEFAULT = "default"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill train`."""
    parser.add_argument("network", choices=NETWORKS, nargs="?", help="what to train; with --from it is the recogniser")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="RUN", help="folder of the run; one that was stopped goes on"
    )
    parser.add_argument(
        "--start", type=Path, metavar="WEIGHTS", help="weights of an earlier run, or a bundle, to begin with"
    )
    add_data_arguments(parser)
    add_finetuning_arguments(parser)
    task_wear.add_wear_arguments(parser)
    add_loop_arguments(parser)
    add_hardware_arguments(parser)


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """What to learn from."""
    group = parser.add_argument_group("data")
    group.add_argument("--data", type=Path, metavar="DIR", help="real scans with truth: SOURCE/pages and SOURCE/lines")
    group.add_argument("--records", type=Path, metavar="DIR", help="the --output of `pagemill ingest`")
    group.add_argument(
        "--mix",
        action="append",
        type=_folder_and_share,
        metavar="DIR:SHARE",
        help="records of further lines (worn or rendered ones) with their share of the draws; may be repeated",
    )
    group.add_argument("--lines", type=Path, metavar="DIR", help="line images with truth (with --from)")
    group.add_argument(
        "--text", type=Path, metavar="DIR", help="UTF-8 text files, a paragraph a line, for rendered lines and pages"
    )
    group.add_argument(
        "--real-share", type=float, metavar="X", help="share of real lines or pages, the others are rendered"
    )
    group.add_argument(
        "--validation-share",
        type=float,
        metavar="X",
        help="share of the documents that is kept to validate on, where records do not say it",
    )


def add_finetuning_arguments(parser: argparse.ArgumentParser) -> None:
    """What only fine-tuning has."""
    group = parser.add_argument_group("fine-tuning")
    group.add_argument(
        "--from", dest="start_bundle", metavar="BUNDLE", help="bundle to tune; default is the one in the package"
    )
    group.add_argument(
        "--alphabet",
        choices=("union", "new", "fail"),
        help="characters that the bundle does not know: learn them too (union, the default), keep only those of the "
        "collection (new), or end with a list of them (fail)",
    )
    group.add_argument("--freeze", choices=("none", "backbone"), help="backbone: only the last layer learns")
    group.add_argument(
        "--layer-decay",
        type=float,
        metavar="X",
        help="factor on the learning rate from a layer to the one below it (default 0.85)",
    )
    group.add_argument(
        "--replay",
        type=Path,
        metavar="DIR",
        help="line images with truth of other kinds, so that they are not unlearnt",
    )
    group.add_argument(
        "--replay-share",
        type=float,
        metavar="X",
        help="share of such lines; without --replay they are rendered (default 0.35, 0 for none)",
    )
    group.add_argument(
        "--watch",
        type=Path,
        metavar="DIR",
        help="line images with truth of other kinds to read before and after: the card tells what they lose",
    )
    group.add_argument(
        "--data-note", type=Path, metavar="FILE", help="Markdown for the card: where the lines are from, licences"
    )


TUNING_ONLY = ("lines", "alphabet", "freeze", "layer_decay", "replay", "replay_share", "watch", "data_note")
NOT_FOR_TUNING = ("data", "real_share", "mix", "start")


def add_loop_arguments(parser: argparse.ArgumentParser) -> None:
    """How long and how fast to learn."""
    group = parser.add_argument_group("learning")
    group.add_argument(
        "--steps", type=positive, help="optimiser steps (default: those of the default bundle; of --from at most 200)"
    )
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
        help=f"of the arithmetic (default {PRECISION}; with --from, what is fast on this processor); mixed_float16 is "
        "for GPUs without bfloat16",
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


def _folder_and_share(text: str) -> tuple[Path, float]:
    folder, _, share = text.rpartition(":")
    try:
        return Path(folder), float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not DIR:SHARE, as worn:0.2") from None


# ---- from flags to configurations; nothing here starts TensorFlow's runtime


def ways_from(arguments: argparse.Namespace) -> Any:
    """The `trainer.loop.Ways` that the flags tell."""
    from trainer.loop import Ways
    from trainer.strategy import Hardware

    hardware = Hardware(arguments.strategy, arguments.devices, arguments.tpu, arguments.threads)
    return Ways(hardware, arguments.precision or PRECISION, arguments.keep, arguments.profile)


def loop_from(loop: Any, arguments: argparse.Namespace) -> Any:
    """The `trainer.loop.LoopConfig` with what the flags say otherwise."""
    names = ("steps", "learning_rate", "validate_every", "checkpoint_every", "patience", "accumulate")
    return replace(loop, seed=arguments.seed, jit=arguments.jit, **_given(arguments, *names))


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The flags that were given, by the names of what they set."""
    values = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def recogniser_from(arguments: argparse.Namespace) -> Any:
    """The `trainer.recogniser.RecogniserTraining` that the flags ask for.

    Raises:
        BadInput, BadModel: the records cannot be used.
    """
    from trainer.line_data import LineDataConfig
    from trainer.recogniser import RecogniserTraining, of_records

    shares = _given(arguments, "real_share", "validation_share")
    data = LineDataConfig(
        arguments.data,
        arguments.text,
        processes=arguments.processes,
        seed=arguments.seed,
        mixed=tuple(arguments.mix or ()),
        **shares,
    )
    config = RecogniserTraining(data, precision=arguments.precision or PRECISION, focal=arguments.focal)
    config = replace(config, loop=loop_from(config.loop, arguments))
    return config if arguments.records is None else of_records(config, arguments.records)


def finder_from(arguments: argparse.Namespace) -> Any:
    """The `trainer.finder.FinderTrainingConfig` that the flags ask for."""
    from trainer.finder import FinderTrainingConfig

    config = FinderTrainingConfig(
        policy=arguments.precision or PRECISION,
        initial_weights=arguments.start,
        **_given(arguments, "validation_share"),
    )
    samples = replace(
        config.samples, seed=arguments.seed, workers=arguments.processes, **_given(arguments, "real_share")
    )
    return replace(config, samples=samples, loop=loop_from(config.loop, arguments))


def finetuning_from(arguments: argparse.Namespace) -> Any:
    """The `trainer.finetune.FineTuning` that the flags ask for.

    Raises:
        BadArgument: values that it does not take.
    """
    from trainer.finetune import FROZEN_LEARNING_RATE, LOOP, FineTuning

    base = replace(LOOP, learning_rate=FROZEN_LEARNING_RATE) if arguments.freeze == "backbone" else LOOP
    given = _given(
        arguments,
        "alphabet",
        "freeze",
        "layer_decay",
        "replay_share",
        "replay",
        "text",
        "validation_share",
        "precision",
    )
    start = None if arguments.start_bundle == DEFAULT else Path(arguments.start_bundle)
    return FineTuning(
        lines=arguments.lines,
        records=arguments.records,
        start=start,
        focal=arguments.focal,
        loop=loop_from(base, arguments),
        **given,
    )


# ---- running


def run(arguments: argparse.Namespace) -> int:
    """Trains; returns the exit code.

    Raises:
        PagemillError: as `trainer.loop.train`.
    """
    if arguments.network in task_wear.NETWORKS:
        _check_output(arguments.output)
        return task_wear.train_other(arguments, loop_from, ways_from(arguments))
    check(arguments)
    if arguments.start_bundle is not None:
        return _finetune(arguments)
    if arguments.network == "recogniser":
        from trainer.recogniser import train_recogniser

        figures = train_recogniser(recogniser_from(arguments), arguments.output, arguments.start, ways_from(arguments))
    else:
        from trainer.finder import train_finder

        source = arguments.records if arguments.data is None else arguments.data
        figures = train_finder(finder_from(arguments), source, arguments.text, arguments.output, ways_from(arguments))
    print(f"best: {json.dumps(figures)}\nweights and metrics: {arguments.output}")
    return 0


def check(arguments: argparse.Namespace) -> None:
    """
    Raises:
        BadArgument: flags that do not go together.
        BadInput: a folder that is not there, or an output that cannot be written.
    """
    tuning = arguments.start_bundle is not None
    foreign = [name for name in (NOT_FOR_TUNING if tuning else TUNING_ONLY) if getattr(arguments, name) is not None]
    if foreign:
        flags = ", ".join("--" + name.replace("_", "-") for name in foreign)
        raise BadArgument(f"{flags} {'with' if tuning else 'without'} --from", "see --help")
    if tuning and arguments.network not in (None, "recogniser"):
        raise BadArgument(f"--from with {arguments.network}", "fine-tuning is for the recogniser of a bundle")
    if not tuning and arguments.network is None:
        raise BadArgument("what to train is not said", f"one of {', '.join(NETWORKS)}, or --from BUNDLE")
    if (arguments.records is None) == (arguments.data is None and arguments.lines is None):
        raise BadArgument(
            "one source of real lines is expected",
            "give --records or --lines" if tuning else "give --data or --records",
        )
    if arguments.mix and arguments.network == "finder":
        raise BadArgument("--mix with finder", "mixed records hold lines, which are the recogniser's")
    if arguments.focal and arguments.network == "finder":
        raise BadArgument("--focal with finder", "the focal loss is the recogniser's")
    for name, what in (
        ("data", "SOURCE/pages and SOURCE/lines"),
        ("text", ".txt files"),
        ("lines", "line images"),
        ("replay", "line images"),
        ("watch", "line images"),
    ):
        folder = getattr(arguments, name)
        if folder is not None and not folder.is_dir():
            raise BadInput(f"no {name} folder {folder}", f"name a folder of {what}")
    _check_output(arguments.output)


def _check_output(output: Path) -> None:
    """
    Raises:
        BadInput: the folder of the run cannot be made or written to; told before hours of work.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".probe"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write to {output}: {error.strerror}", "choose another --output") from error


def _finetune(arguments: argparse.Namespace) -> int:
    from trainer.finetune import finetune

    note = _read(arguments.data_note)
    outcome = finetune(finetuning_from(arguments), arguments.output, ways_from(arguments), note)
    for name, before in outcome.before.items():
        print(f"{name} {before:.4f} → {outcome.after[name]:.4f}")
    if not outcome.gained:
        print("no validation was better than the start model: no bundle is written; try more lines or other rates")
        return NOTHING_GAINED
    if outcome.bundle is not None:
        print(f"bundle: {outcome.bundle}, read back and compared")
    return 0


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}", "check --data-note") from error


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
