"""`pagemill train wear` and `pagemill train cleaner`: their flags, beside those of `trainer.task`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ocr_model.errors import BadArgument, BadInput

EXAMPLES = """  pagemill train wear --real SCANS --text TEXT --output runs/wear
  pagemill train cleaner --text TEXT --output runs/cleaner"""
NETWORKS = ("wear", "cleaner")
# What these networks have no use for, with the value of a flag that is not given.
_FOREIGN = ("data", "records", "mix", "lines", "real_share", "start", "start_bundle", "accumulate", "focal", "jit")
_FOREIGN_FOR_WEAR = ("checkpoint_every", "patience", "profile")


def add_wear_arguments(parser: argparse.ArgumentParser) -> None:
    """What only wear and cleaner have."""
    group = parser.add_argument_group("wear and cleaner")
    group.add_argument(
        "--real",
        type=Path,
        metavar="DIR",
        help="of wear: scans to learn the look of, line images or pages, without truth; a folder in it is a collection",
    )
    group.add_argument("--exclude", action="append", metavar="COLLECTION", help="of --real; may be repeated")
    group.add_argument("--crop-width", type=int, metavar="PX", help="of wear: width of a window (default 192)")
    group.add_argument("--batch", type=int, metavar="N", help="windows of a kind in a step (default 12)")
    group.add_argument("--reader", type=Path, metavar="BUNDLE", help="of wear: that must read the worn lines")


def train_other(arguments: argparse.Namespace, loop_from: Callable[[Any, argparse.Namespace], Any], ways: Any) -> int:
    """Trains wear or cleaner; returns the exit code.

    Args:
        loop_from: `trainer.task.loop_from`; ways: what `trainer.task.ways_from` makes of the flags.

    Raises:
        BadArgument: flags that do not go together.
        PagemillError: as `train_wear` and `train_cleaner`.
    """
    wear = arguments.network == "wear"
    _check(arguments, wear)
    if wear:
        from trainer.wear.training import train_wear

        figures = train_wear(wear_from(arguments), arguments.output, ways)
    else:
        from trainer.cleaner import CleanerTraining, train_cleaner

        config = CleanerTraining(precision=ways.precision)
        given = {} if arguments.batch is None else {"batch": arguments.batch}
        data = replace(config.data, text=arguments.text, seed=arguments.seed, **given)
        config = replace(config, data=data, loop=loop_from(config.loop, arguments))
        figures = train_cleaner(config, arguments.output, ways)
    print(f"best: {json.dumps(figures)}\nexported: {arguments.output / 'exported'}")
    return 0


def _check(arguments: argparse.Namespace, wear: bool) -> None:
    names = [*_FOREIGN, *(_FOREIGN_FOR_WEAR if wear else ("real", "exclude", "crop_width", "reader"))]
    given = [name for name in names if getattr(arguments, name, None)]
    if given:
        flags = ", ".join("--" + name.replace("_", "-").replace("start-bundle", "from") for name in given)
        raise BadArgument(f"{flags} with {arguments.network}", "see --help")
    if wear and arguments.real is None:
        raise BadArgument("wear is learnt from real lines", "name a folder of them with --real")
    if arguments.text is not None and not arguments.text.is_dir():
        raise BadInput(f"no text folder {arguments.text}", "name a folder of .txt files")


def wear_from(arguments: argparse.Namespace) -> Any:
    """The `trainer.wear.training.WearTraining` that the flags ask for.

    Raises:
        BadArgument: values that it does not take.
    """
    from trainer.wear.lines import WearData
    from trainer.wear.training import WearLoop, WearTraining

    data = {
        "exclude": None if arguments.exclude is None else tuple(arguments.exclude),
        "crop_width_px": arguments.crop_width,
        "batch": arguments.batch,
        "validation_share": arguments.validation_share,
    }
    loop = {name: getattr(arguments, name) for name in ("steps", "learning_rate", "validate_every")}
    given = [{k: v for k, v in values.items() if v is not None} for values in (data, loop)]
    return WearTraining(
        WearData(arguments.real, arguments.text, seed=arguments.seed, **given[0]),
        WearLoop(seed=arguments.seed, **given[1]),
        bundle=arguments.reader,
    )
