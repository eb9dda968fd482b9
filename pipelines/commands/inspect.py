"""`pagemill inspect`: what records hold, for a person."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from ocr_model.errors import BadArgument, BadInput, NothingToDo

EXAMPLES = """examples:
  pagemill inspect records
  pagemill inspect records --kind line --split validation --limit 100 --sheet lines.png
  pagemill inspect records --find letter-17
  pagemill inspect records/records/page/train/000001-abcdef01.tfrecord.gz

A folder is the --output of `pagemill ingest`. On the sheet, the lines of a page are tinted from yellow to blue in their
order, with green baselines and a purple way from line to line; lines that cannot be learnt are red. The blue frame in
the picture of a line is the line itself, what is around it is kept for training."""
_SHOWN, _ON_SHEET = 5, 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill inspect`."""
    parser.add_argument("records", nargs="+", metavar="RECORD", help="folder of an ingest, or a file of records")
    parser.add_argument("--kind", choices=("page", "line"), help="only pages or only lines")
    parser.add_argument("--split", choices=("train", "validation", "test"), help="only this split")
    parser.add_argument("--find", default="", metavar="TEXT", help="only examples with this in their name, id or text")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="examples that are passed over first")
    parser.add_argument(
        "--limit", type=int, metavar="N", help=f"so many examples (default {_SHOWN}, with --sheet {_ON_SHEET})"
    )
    parser.add_argument("--sheet", metavar="FILE", help="write a PNG with the pictures, and what is in them")


def run(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill inspect`."""
    from pipelines.inspect_records import contact_sheet, example_text, read_path

    limit = arguments.limit if arguments.limit is not None else _ON_SHEET if arguments.sheet else _SHOWN
    if limit < 1 or arguments.skip < 0:
        raise BadArgument(f"--limit {limit} and --skip {arguments.skip} cannot be")
    found = itertools.chain.from_iterable(
        read_path(path, arguments.kind, arguments.split) for path in arguments.records
    )
    wanted = (
        example
        for example in found
        if any(arguments.find in text for text in (example.origin.name, example.origin.page_id, example.text))
    )
    examples = list(itertools.islice(wanted, arguments.skip, arguments.skip + limit))
    if not examples:
        raise NothingToDo(f"no such example in {', '.join(arguments.records)}", "ask for less")
    print("\n\n".join(example_text(example) for example in examples))
    if arguments.sheet:
        try:
            Path(arguments.sheet).write_bytes(contact_sheet(examples))
        except OSError as error:
            raise BadInput(f"cannot write {arguments.sheet}: {error.strerror}", "name another file") from error
        print(f"\n{len(examples)} pictures in {arguments.sheet}")
    return 0
