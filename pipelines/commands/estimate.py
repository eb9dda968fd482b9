"""`pagemill estimate`: its flags, and the sample that they ask for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from ocr_model.errors import BadArgument
from pipelines.commands.books import add_price_arguments
from pipelines.commands.transcribe import add_reading_arguments, check_reading, formats_of, reading_options

EXAMPLES = """examples:
  pagemill estimate scans/
  pagemill estimate corpus.csv --sample 200 --format txt,alto --machine dataflow-batch --workers 100
  pagemill estimate scans/ --prices our-prices.yaml --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill estimate`."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="as for transcribe")
    parser.add_argument("--sample", type=int, default=50, metavar="N", help="files to read (default 50)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default 1)")
    parser.add_argument("--format", action="append", metavar="NAME[,NAME]", help="as for transcribe")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="vCPUs at work at a time (default 1)")
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    add_price_arguments(parser)
    add_reading_arguments(parser)


def run(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill estimate`."""
    check_reading(arguments)
    formats = formats_of(arguments.format)
    if arguments.sample < 1 or arguments.workers < 1:
        raise BadArgument(f"--sample {arguments.sample} and --workers {arguments.workers} must be positive")
    from pipelines.cost import load_machine
    from pipelines.estimate import estimate
    from pipelines.transcribe import TranscribeOptions

    machine = load_machine(arguments.prices, arguments.machine)
    inputs = tuple(arguments.inputs)
    # No folder lies inside this one, which nothing is written to.
    options = TranscribeOptions(inputs=inputs, output="/dev/null", formats=formats, **reading_options(arguments))
    found = estimate(options, arguments.sample, arguments.seed, machine)
    print(json.dumps(found.to_json(), indent=1) if arguments.json else found.text(arguments.workers))
    return 0
