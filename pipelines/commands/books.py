"""`pagemill status`, `retry` and `verify`: the books of an output folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from pipelines.commands.job_flags import DEAD_LETTERS_LEFT, GATE_FAILED, add_workers, run_units
from pipelines.commands.transcribe import (
    READING,
    add_log_argument,
    add_reading_arguments,
    check_reading,
    reading_arguments,
    reading_options,
)

STATUS_EXAMPLES = """examples:
  pagemill status out
  pagemill status gs://archive-text/1901 --json

May be asked at any time and from anywhere, also while the job runs elsewhere."""
RETRY_EXAMPLES = """examples:
  pagemill retry out                                  after the files were repaired
  pagemill retry out --reason timeout --timeout-s 600
  pagemill retry out --model models/other

What is not said here is as in the run that is taken up: its model, resolution, limits, formats and so on."""
VERIFY_EXAMPLES = """examples:
  pagemill verify out
  pagemill verify out --reopen && pagemill transcribe scans/ --output out

Exit code 5 if a file is missing or not what the ledger says."""


def add_status_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill status`."""
    parser.add_argument("output", metavar="DIR", help="the --output of a run")
    parser.add_argument("--units", action="store_true", help="a line for every unit")
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    add_price_arguments(parser)


def add_price_arguments(parser: argparse.ArgumentParser) -> None:
    """What a price is made of."""
    parser.add_argument("--machine", metavar="NAME", help="of the price file, for costs (default: its first)")
    parser.add_argument("--prices", metavar="FILE", help="YAML like pipelines/prices.yaml, with your own prices")


def status(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill status`."""
    from pipelines.cost import cost_of_run, load_machine
    from pipelines.report import reconcile, report_text, unit_lines

    machine = load_machine(arguments.prices, arguments.machine)
    report = reconcile(arguments.output)
    cost = cost_of_run(report, machine)
    if arguments.json:
        print(json.dumps({**report.to_json(), "cost": cost.to_json()}, indent=1))
        return 0
    if arguments.units:
        print("\n".join(unit_lines(report)))
    print(report_text(report, details=True))
    print(cost.text())
    return 0


def add_retry_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill retry`."""
    parser.add_argument("output", metavar="DIR", help="the --output of a run")
    parser.add_argument("--reason", action="append", metavar="NAME", help="only dead letters of this reason")
    add_workers(parser)
    add_log_argument(parser)
    add_reading_arguments(parser)
    parser.set_defaults(**dict.fromkeys(READING))  # not said: as in the run that is taken up


def retry(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill retry`."""
    given = {name: value for name in READING if (value := getattr(arguments, name)) is not None}

    def check(_: argparse.Namespace) -> None:
        check_reading(with_defaults(given))

    def work(flags: list[str], run_name: str) -> int:
        check(arguments)
        from pipelines.report import report_text
        from pipelines.transcribe import as_begun, retry

        begun = as_begun(arguments.output)
        read_as = reading_options(with_defaults(reading_arguments(begun) | given))
        report = retry(replace(begun, run=run_name, watch=bool(run_name), **read_as), arguments.reason or (), flags)
        print(report_text(report))
        return DEAD_LETTERS_LEFT if report.counts.dead else 0

    return run_units(arguments, (), argv, work, check, max_attempts=3)


def with_defaults(given: Mapping[str, Any]) -> argparse.Namespace:
    """Arguments of `add_reading_arguments`, the given ones and the usual others."""
    parser = argparse.ArgumentParser(add_help=False)
    add_reading_arguments(parser)
    return argparse.Namespace(**{**vars(parser.parse_args([])), **given})


def add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill verify`."""
    parser.add_argument("output", metavar="DIR", help="the --output of a run")
    parser.add_argument(
        "--reopen", action="store_true", help="let the next run do again the units whose files are damaged"
    )


def verify(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill verify`."""
    from pipelines.outputs import locked
    from pipelines.plan import read_corpus
    from pipelines.verify import verify_output

    read_corpus(arguments.output)  # the lock would make the folder
    with locked(arguments.output) if arguments.reopen else nullcontext():
        found = verify_output(arguments.output, arguments.reopen)
    print(found.text())
    return GATE_FAILED if found.problems else 0
