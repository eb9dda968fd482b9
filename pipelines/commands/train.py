"""`pagemill train` and `pagemill export`: the command line of the trainer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ocr_model.errors import BadInput
from trainer.task import EXAMPLES as TRAIN_EXAMPLES
from trainer.task import add_arguments as add_train_arguments
from trainer.task import run

__all__ = ["EXPORT_EXAMPLES", "TRAIN_EXAMPLES", "add_export_arguments", "add_train_arguments", "export", "train"]

EXPORT_EXAMPLES = """example:
  pagemill export --recogniser runs/recogniser --finder runs/finder --data-note data.md --output my-model"""


def train(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill train`."""
    return run(arguments)


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
