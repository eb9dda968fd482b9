"""`pagemill finetune`: a bundle learns a collection. `pagemill train --from BUNDLE` does the same."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ocr_model.errors import BadInput

EXAMPLES = """examples:
  pagemill finetune --lines my-lines --output runs/mine
  pagemill ingest pages/ --output records && pagemill finetune --records records --output runs/mine
  pagemill finetune --lines my-lines --from models/french --freeze backbone --output runs/mine
  pagemill transcribe scans/ --model runs/mine/bundle --output results/

DIR of --lines holds SOURCE/lines/NAME.png (.jpg, .tif) with NAME.gt.txt. A few hundred lines are enough. The same
command goes on with a run that was broken off. Exit code 5 if nothing was gained: then no bundle is written."""
NOTHING_GAINED = 5
DEFAULT = "default"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill finetune`."""
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--lines", type=Path, metavar="DIR", help="line images with truth")
    data.add_argument("--records", type=Path, metavar="DIR", help="the --output of `pagemill ingest`")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="RUN", help="folder of the run; the new bundle is RUN/bundle"
    )
    parser.add_argument(
        "--from",
        dest="start_bundle",
        default=DEFAULT,
        metavar="BUNDLE",
        help="the bundle to begin with (default: default, the one in the package)",
    )
    add_finetuning_arguments(parser)
    parser.add_argument("--steps", type=int, help="optimiser steps at most (default 200)")
    parser.add_argument(
        "--learning-rate", type=float, help="peak learning rate (default 0.0005; 0.002 with --freeze backbone)"
    )
    parser.add_argument("--validate-every", type=int, metavar="N", help="steps between validations (default 25)")
    parser.add_argument("--patience", type=int, metavar="N", help="end after N validations without gain (default 4)")
    parser.add_argument("--seed", type=int, default=1, help="of data and dropout (default 1)")
    parser.add_argument("--threads", type=int, default=0, help="threads of TensorFlow (default 0: all cores)")
    parser.add_argument(
        "--precision", choices=("float32", "mixed_bfloat16"), help="default: what is fast on this processor"
    )


def add_finetuning_arguments(parser: argparse.ArgumentParser) -> None:
    """What only fine-tuning has."""
    parser.add_argument(
        "--alphabet",
        choices=("union", "new", "fail"),
        default="union",
        help="characters that the bundle does not know: learn them too (union), keep only those of the collection "
        "(new), or end with a list of them (fail)",
    )
    parser.add_argument(
        "--freeze", choices=("none", "backbone"), default="none", help="backbone: only the last layer learns"
    )
    parser.add_argument(
        "--layer-decay",
        type=float,
        default=0.85,
        metavar="X",
        help="factor on the learning rate from a layer to the one below it (default 0.85)",
    )
    parser.add_argument(
        "--replay",
        type=Path,
        metavar="DIR",
        help="line images with truth of other kinds, so that they are not unlearnt",
    )
    parser.add_argument(
        "--replay-share",
        type=float,
        default=0.35,
        metavar="X",
        help="share of such lines; without --replay they are rendered (default 0.35, 0 for none)",
    )
    parser.add_argument("--replay-text", type=Path, metavar="DIR", help="text files for the rendered lines")
    parser.add_argument(
        "--validation-share",
        type=float,
        default=0.15,
        metavar="X",
        help="share of the documents that is kept to validate on, where records do not say it (default 0.15)",
    )
    parser.add_argument(
        "--data-note", type=Path, metavar="FILE", help="Markdown for the card: where the lines are from, licences"
    )


def run(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill finetune`."""
    note = _read(arguments.data_note)
    check_output(arguments.output)
    import tensorflow as tf

    from trainer.finetune import finetune

    tf.config.threading.set_intra_op_parallelism_threads(getattr(arguments, "threads", 0))
    outcome = finetune(configuration(arguments), arguments.output, data_note=note)
    for name, before in outcome.before.items():
        print(f"{name} {before:.4f} → {outcome.after[name]:.4f}")
    if outcome.bundle is None:
        print("no validation was better than the start model: no bundle is written; try more lines or other rates")
        return NOTHING_GAINED
    print(f"bundle: {outcome.bundle}, read back and compared")
    return 0


def configuration(arguments: argparse.Namespace) -> Any:
    """The `trainer.finetune.FineTuning` that the flags ask for.

    Raises:
        BadArgument: values that it does not take.
    """
    from trainer.finetune import FROZEN_LEARNING_RATE, LOOP, FineTuning

    flags = {name: getattr(arguments, name, None) for name in LOOP_FLAGS}
    base = LOOP if arguments.freeze == "none" else replace(LOOP, learning_rate=FROZEN_LEARNING_RATE)
    loop = replace(base, seed=arguments.seed, **{name: value for name, value in flags.items() if value is not None})
    return FineTuning(
        lines=arguments.lines,
        records=arguments.records,
        start=None if arguments.start_bundle == DEFAULT else Path(arguments.start_bundle),
        alphabet=arguments.alphabet,
        freeze=arguments.freeze,
        layer_decay=arguments.layer_decay,
        replay_share=arguments.replay_share,
        replay=arguments.replay,
        text=arguments.replay_text,
        validation_share=arguments.validation_share,
        precision=getattr(arguments, "precision", None),
        loop=loop,
    )


LOOP_FLAGS = ("steps", "learning_rate", "validate_every", "patience")


def check_output(output: Path) -> None:
    """
    Raises:
        BadInput: the folder of the run cannot be made or written to; told before hours of work.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadInput(f"cannot write to {output}: {error.strerror}", "choose another --output") from error


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}", "check --data-note") from error
