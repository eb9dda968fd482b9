"""`pagemill errors`: where the errors on scans with truth come from, as a table and a sheet of the worst lines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ocr_model.errors import BadArgument, BadInput, UnreadablePage
from pipelines.bench import Item, find_items, stratified

if TYPE_CHECKING:
    import numpy as np

    from pipelines.error_analysis import PageErrors

EXAMPLES = """examples:
  pagemill errors --data DATA --output errors/
  pagemill errors --data DATA --model models/mine --source letters --cause merged --worst 100 --output errors/

DATA holds SOURCE/pages with NAME.png (or .jpg, .tif), NAME.gt.txt and NAME.lines.json: [{"bbox": [left, top, right,
bottom], "text": "…"}, …]. Pages without the last are left out.

Columns, per source and over all: order-free CER, what the order costs beyond it, the CER of the true lines when the
model reads them and of the true text in the lines that were found, then edits per 100 characters by cause:
  missed    no line was found there            letters   the line was found, characters are wrong
  refused   found, not believed to be text     spaces    only spaces are
  merged    one line over two                  form      case, accents, raised figures, quotes
  split     two lines for one                  hmean     of precision and recall of the lines' boxes
  cut       too short, too flat, too wide                (intersection over union of at least 0.5)
  invented  text where the truth has none"""
SHEET = "worst.png"
FIGURES = "errors.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill errors`."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="scans with the truth of every line")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help=f"gets {SHEET} and {FIGURES}, made if need be"
    )
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="model bundle (default: the one in the package)")
    parser.add_argument(
        "--source", action="append", default=[], metavar="NAME", help="only this source (may be repeated)"
    )
    parser.add_argument(
        "--ignore-case", action="append", default=[], metavar="NAME", help="sources whose truth has no case"
    )
    parser.add_argument(
        "--sample", type=int, default=0, metavar="N", help="so many pages, from each source in turn (default all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--worst", type=int, default=60, metavar="N", help="lines on the sheet (default 60)")
    parser.add_argument("--cause", metavar="CAUSE", help="only lines with errors of this cause on the sheet")


def run(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill errors`."""
    from pipelines.error_analysis import CAUSES, LINES_SUFFIX, contact_sheet, table, worst

    if arguments.cause and arguments.cause not in CAUSES:
        raise BadArgument(f"no cause {arguments.cause}", f"one of {', '.join(CAUSES)}")
    items = [
        item
        for item in find_items(arguments.data, "pages", arguments.source)
        if item.image.with_suffix(LINES_SUFFIX).exists()
    ]
    if not items:
        raise BadInput(f"no page in {arguments.data} has a NAME{LINES_SUFFIX}", "write where its lines are")
    items = stratified(items, arguments.sample, arguments.seed)
    pages = list(_analysed(items, arguments))
    print(table(pages))
    images = {_name(item): item.image for item in items}
    sheet = contact_sheet(worst(pages, arguments.worst, arguments.cause), lambda name: _grey(images[name]))
    _write(arguments.output, sheet, json.dumps([asdict(page) for page in pages], indent=1, ensure_ascii=False))
    return 0


def _name(item: Item) -> str:
    return f"{item.source}/{item.image.name}"


def _analysed(items: Sequence[Item], arguments: argparse.Namespace) -> Iterator[PageErrors]:
    from ocr_model.reader import Reader
    from pipelines.error_analysis import analysed, true_records

    reader = Reader.load(arguments.model)
    for item in items:
        fold_case = item.source in arguments.ignore_case
        yield analysed(reader, _grey(item.image), true_records(item.image), item.source, _name(item), fold_case)


def _grey(path: Path) -> np.ndarray:
    """
    Raises:
        BadInput: it cannot be decoded.
    """
    from ocr_model.images import open_document

    try:
        return open_document(path.read_bytes()).decode(0).pixels
    except (OSError, UnreadablePage) as error:
        raise BadInput(f"cannot read {path}: {error}", "check --data") from error


def _write(folder: Path, sheet: np.ndarray, figures: str) -> None:
    import cv2

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SHEET).write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
        (folder / FIGURES).write_text(figures + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}", "choose another --output") from error
