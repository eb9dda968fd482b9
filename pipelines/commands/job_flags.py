"""Flags of the verbs that do work units, where several have them: what is taken, how it is decoded, how a run goes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ocr_model.errors import BadArgument
from pipelines.supervise import name_of_run, supervise

if TYPE_CHECKING:
    from ocr_model.images import Limits

DEAD_LETTERS_LEFT = 3
GATE_FAILED = 5


# ---- what is taken


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """The inputs, none of which argparse asks for: the file of flags may name them."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="file, folder, glob, zip, tar or manifest (CSV, JSONL), here or in a bucket",
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """What a document is, and how many files are taken."""
    parser.add_argument(
        "--document",
        choices=("file", "folder"),
        default="file",
        help="what a document is, where no manifest tells: a file (default), or all files of a folder",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N files")


def check_selection(arguments: argparse.Namespace, verb: str) -> None:
    """
    Raises:
        BadArgument: there is no input, or the limit lets none through.
    """
    if not arguments.inputs:
        raise BadArgument("the following arguments are required: INPUT", f"see pagemill {verb} --help")
    if arguments.limit is not None and arguments.limit < 1:
        raise BadArgument(f"--limit {arguments.limit} is not positive")


# ---- how it is decoded

DECODING = ("dpi", "max_megapixels", "max_megabytes", "timeout_s", "decoder_megabytes")


def add_decoding(parser: argparse.ArgumentParser, timed: str = "decoding a page") -> None:
    """Limits of files and pages.

    Args:
        timed: what the time limit is for.
    """
    parser.add_argument("--dpi", type=int, default=300, metavar="N", help="resolution of drawn PDF pages (default 300)")
    parser.add_argument(
        "--max-megapixels",
        type=float,
        default=120.0,
        metavar="N",
        help="larger pages are read at a reduced scale; over four times as much is refused (default 120)",
    )
    parser.add_argument("--max-megabytes", type=float, default=512.0, metavar="N", help="of a file (default 512)")
    parser.add_argument("--timeout-s", type=float, default=60.0, metavar="S", help=f"for {timed} (default 60)")
    parser.add_argument(
        "--decoder-megabytes", type=float, default=2048.0, metavar="N", help="memory of the decoder (default 2048)"
    )


def check_decoding(arguments: argparse.Namespace) -> None:
    """
    Raises:
        BadArgument: a limit that can be none.
    """
    if not 30 <= arguments.dpi <= 1200:
        raise BadArgument(f"--dpi {arguments.dpi} is not between 30 and 1200")
    for name in ("timeout_s", "max_megapixels", "max_megabytes", "decoder_megabytes"):
        if not 0 < getattr(arguments, name) < 1e9:
            raise BadArgument(f"--{name.replace('_', '-')} {getattr(arguments, name)} is not positive")


def limits_of(arguments: argparse.Namespace) -> Limits:
    """The limits that the flags mean, beside time and memory."""
    from ocr_model.images import Limits

    max_pixels = round(arguments.max_megapixels * 1e6)
    return Limits(
        max_bytes=round(arguments.max_megabytes * 2**20),
        max_pixels=max_pixels,
        hard_max_pixels=4 * max_pixels,
        pdf_dpi=arguments.dpi,
    )


def memory_bytes_of(arguments: argparse.Namespace) -> int:
    """Memory of the decoder."""
    return round(arguments.decoder_megabytes * 2**20)


# ---- how a run goes


def add_run(parser: argparse.ArgumentParser, unit: str = "unit", may_fail: bool = True) -> None:
    """What is done about an earlier run, failures and dying workers, and how many workers there are.

    Args:
        unit: what a work unit is called.
        may_fail: whether there is a limit of failures.
    """
    parser.add_argument(
        "--on-change",
        choices=("fail", "resume", "restart"),
        default="fail",
        help="if DIR was begun otherwise (configuration, model): fail, keep what is done, or do it again",
    )
    if may_fail:
        parser.add_argument(
            "--max-failures", metavar="LIMIT", help="stop with exit code 4 when more pages fail than N, or X%%"
        )
    parser.add_argument(
        "--max-attempts", type=int, default=3, metavar="N", help=f"at a {unit} that kills its worker (default 3)"
    )
    add_workers(parser)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """How many processes do the work."""
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine (default 1)")


def add_config(parser: argparse.ArgumentParser) -> None:
    """The file of flags."""
    parser.add_argument("--config", metavar="FILE", help="YAML with these flags; what is given here goes first")


def check_attempts(arguments: argparse.Namespace) -> None:
    """
    Raises:
        BadArgument: no attempt at all.
    """
    if arguments.max_attempts < 1:
        raise BadArgument(f"--max-attempts {arguments.max_attempts} is not positive")


def with_workers(workers: int, beam_flags: Sequence[str]) -> list[str]:
    """Beam's flags for so many processes of the local runner.

    Raises:
        BadArgument: both ways of asking were used.
    """
    if workers < 1:
        raise BadArgument(f"--workers {workers} is not positive")
    if workers > 1 and any(flag.startswith("--direct_") for flag in beam_flags):
        raise BadArgument("--workers and Beam's --direct_… both set the local workers", "take one of them")
    own = [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"] if workers > 1 else []
    return [*beam_flags, *own]


def is_local(beam_flags: Sequence[str]) -> bool:
    """Whether the job runs on this machine's own runner.

    >>> is_local([]), is_local(["--runner=DirectRunner"]), is_local(["--runner", "FlinkRunner"])
    (True, True, False)
    """
    words = [part for flag in beam_flags for part in flag.split("=", 1)]
    runner = words[words.index("--runner") + 1] if "--runner" in words[:-1] else ""
    return runner in ("", "DirectRunner", "FnApiRunner")


def run_units(
    arguments: argparse.Namespace,
    beam_flags: Sequence[str],
    argv: Sequence[str],
    work: Callable[[list[str], str], int],
    check: Callable[[argparse.Namespace], object],
    max_attempts: int | None = None,
) -> int:
    """Exit code of a verb that does work units.

    On this machine they are done by a child process that is started again when it dies; `argv` is its command line.

    Args:
        work: does them in this process; is told Beam's flags and, in such a child, the name of the run.
        check: raises before a child is started for nothing.
        max_attempts: where there is no flag for it.
    """
    flags = with_workers(arguments.workers, beam_flags)
    name = name_of_run()
    if name or not is_local(flags):
        return work(flags, name)
    check(arguments)
    return supervise(list(argv), arguments.output, arguments.workers, max_attempts or arguments.max_attempts)
