"""`pagemill train` and `pagemill export`: the command line of the trainer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ocr_model.errors import BadArgument, BadInput, BadModel
from trainer.task import EXAMPLES as TRAIN_EXAMPLES
from trainer.task import add_arguments as add_train_arguments
from trainer.task import run

__all__ = ["EXPORT_EXAMPLES", "TRAIN_EXAMPLES", "add_export_arguments", "add_train_arguments", "export", "train"]

EXPORT_EXAMPLES = """examples:
  pagemill export --recogniser runs/recogniser --finder runs/finder --data-note data.md --output my-model
  pagemill export --recogniser runs/recogniser --finder default --data-note data.md --output my-model
  pagemill export --recogniser old-model --finder old-model --output new-model

A bundle in the place of a run (`default` is the one in the package) gives its network as it is. Both networks of one
bundle, without --data-note: the same bundle with what this version adds (self-check, checksums, sizes)."""
DEFAULT = "default"


def train(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill train`."""
    return run(arguments)


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill export`."""
    for network in ("recogniser", "finder"):
        parser.add_argument(
            f"--{network}",
            type=Path,
            required=True,
            metavar="RUN",
            help=f"run folder of `pagemill train {network}`, or a bundle whose {network} is taken",
        )
    parser.add_argument(
        "--data-note", type=Path, metavar="FILE", help="Markdown: the training data and their licences; not for copies"
    )
    parser.add_argument(
        "--language-model",
        type=Path,
        metavar="FILE",
        help="of `python -m trainer.language_model`, or a bundle that has one; a copied recogniser keeps its own",
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
    from ocr_model.bundle import CARD
    from trainer.card import card_without_sizes, model_card
    from trainer.export import export_bundle

    copies = (arguments.recogniser, arguments.finder)
    as_it_was = arguments.recogniser == arguments.finder and _bundle_at(arguments.finder) is not None
    if arguments.data_note is None and not as_it_was:
        raise BadArgument(
            "the model card needs --data-note", "write a file that tells the training data and their licences"
        )
    recogniser, finder = (_network(name, path) for name, path in zip(("recogniser", "finder"), copies, strict=True))
    figures = "\n\n".join(_read(path).strip() for path in arguments.figures)
    if arguments.data_note is None:
        assert isinstance(recogniser.source, Path)
        card = card_without_sizes(_read(recogniser.source / CARD))
    else:
        note, version = _read(arguments.data_note), metadata.version("pagemill")
        card = model_card(recogniser.record, finder.record, recogniser.characters, note, figures, version)
    about = {
        "training": {
            "recogniser": recogniser.record.config,
            "finder": finder.record.config,
            "record": {"recogniser": recogniser.record.as_json(), "finder": finder.record.as_json()},
        }
    }
    export_bundle(
        recogniser.source, finder.source, about, card, arguments.output, language_model=_model_file(arguments)
    )
    size = sum(p.stat().st_size for p in arguments.output.rglob("*") if p.is_file())
    print(f"bundle: {arguments.output} ({size / 1e6:.1f} MB), read back and compared")
    return 0


def _model_file(arguments: argparse.Namespace) -> Path | None:
    """
    Raises:
        BadInput: the language model that is named is not there.
    """
    path: Path | None = arguments.language_model
    if path is not None and str(path) != DEFAULT and not path.exists():
        raise BadInput(
            f"no language model at {path}", "`python -m trainer.language_model --help` tells how to make one"
        )
    return path if path is None else _bundle_at(path) or path


@dataclass(frozen=True)
class _Network:
    """What `export_bundle` takes for a network, what is known of it, and the size of its alphabet."""

    source: Any
    record: Any
    characters: int = 0


def _network(name: str, path: Path) -> _Network:
    """A network of a run or a bundle.

    Raises:
        BadInput: it is neither.
    """
    from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
    from ocr_model.finder import FinderConfig
    from ocr_model.recogniser import RecogniserConfig
    from trainer.card import read_run, record_in_bundle
    from trainer.export import TrainedFinder, TrainedRecogniser

    bundle = _bundle_at(path)
    if bundle is not None:
        return _Network(bundle, record_in_bundle(bundle, name), Alphabet.load(bundle / "alphabet.json").classes - 1)
    record, weights = read_run(path), path / "best.weights.h5"
    try:
        if name == "finder":
            return _Network(TrainedFinder(weights, FinderConfig.from_json(record.config["network"])), record)
        network = RecogniserConfig.from_json(record.config["network"])
    except (KeyError, TypeError) as error:
        raise BadInput(f"{path} is no run of a {name}: {error}", f"name a run of `pagemill train {name}`") from error
    alphabet = Alphabet(record.config.get("alphabet", DEFAULT_ALPHABET.characters))
    return _Network(TrainedRecogniser(weights, network, alphabet), record, len(alphabet.characters))


def _bundle_at(path: Path) -> Path | None:
    from ocr_model.bundle import DEFAULT_BUNDLE, read_config

    if str(path) == DEFAULT:
        return DEFAULT_BUNDLE
    try:
        read_config(path)
    except BadModel:
        return None
    return path


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadInput(
            f"cannot read what the model card is written from: {error}", "check --data-note and --figures"
        ) from error
