"""`pagemill transcribe`: its flags, and the run that they ask for."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ocr_model.errors import BadArgument
from pipelines import logs
from pipelines.commands import job_flags

if TYPE_CHECKING:
    from pipelines.transcribe import TranscribeOptions

FORMATS = ("txt", "jsonl", "hocr", "alto", "page", "tsv", "pdf", "pdfa", "parquet", "overlay")
_DRY_RUN_SAMPLE = 16  # files

_STARTED_S = time.monotonic()

READING = (  # arguments of `add_reading_arguments`
    "model",
    "route",
    "second_model",
    "doubtful_below",
    "single_line",
    *job_flags.DECODING,
)

EXAMPLES = """examples:
  pagemill transcribe scans/ --output out
  pagemill transcribe book.pdf 'letters/19*/*.tif' box7.zip --output out --format txt,alto,pdf
  pagemill transcribe corpus.csv --output out --route language=fr:models/french --workers 4
  pagemill transcribe scans/ --output out --dry-run
  pagemill transcribe lines/ --output out --single-line
  pagemill transcribe gs://archive/1901/ --output gs://archive-text/1901 --runner=DataflowRunner --region=…

The text of scans/a/b/scan.jpg goes to out/txt/a/b/scan.txt. A run that was broken off is finished by giving the same
command again. Pages that cannot be read are listed in out/dead_letters.jsonl, and the exit code is then 3; `pagemill
retry out` takes them up again. `pagemill status out` tells how far a run is. All other flags go to Beam."""


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """What `transcribe`, `retry` and `estimate` share: how a page is read."""
    parser.add_argument("--model", metavar="BUNDLE", help="folder of an exported bundle (default: the one shipped)")
    parser.add_argument(
        "--route",
        action="append",
        default=[],
        metavar="COLUMN=VALUE:BUNDLE",
        help="read files whose manifest has this value with another bundle; a column `bundle` goes first",
    )
    parser.add_argument("--second-model", metavar="BUNDLE", help="reads again the pages that the first one doubts")
    parser.add_argument(
        "--doubtful-below",
        type=float,
        default=0.85,
        metavar="C",
        help="mean confidence under which a page is listed in doubtful.jsonl and read by --second-model (default 0.85)",
    )
    parser.add_argument("--single-line", action="store_true", help="every image is one line of text")
    job_flags.add_decoding(parser, "decoding a page, and for reading it")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill transcribe`."""
    job_flags.add_inputs(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="results go to DIR/FORMAT/…")
    parser.add_argument(
        "--format",
        action="append",
        metavar="NAME[,NAME]",
        help=f"{', '.join(FORMATS)}; may be given several times; default txt",
    )
    parser.add_argument("--per", choices=("document", "page"), default="document", help="a file a document or a page")
    job_flags.add_selection(parser)
    parser.add_argument(
        "--layout",
        choices=("files", "shards"),
        default="files",
        help="files in the tree of the inputs, or packed by unit",
    )
    add_reading_arguments(parser)
    parser.add_argument("--page-range", metavar="A-B", help="only these pages of each file, such as 1-10 or 5-")
    parser.add_argument(
        "--duplicates",
        choices=("once", "each"),
        default="once",
        help="files with the same bytes are read once (default)",
    )
    job_flags.add_run(parser)
    parser.add_argument(
        "--share-model", action="store_true", help="one copy of the model for all processes of a machine, for GPUs"
    )
    parser.add_argument("--dry-run", action="store_true", help="list and plan, tell what would be done, do nothing")
    job_flags.add_config(parser)
    add_log_argument(parser)


def add_log_argument(parser: argparse.ArgumentParser) -> None:
    """How a run tells of itself."""
    parser.add_argument("--json-logs", action="store_true", help="progress and errors as JSON, an object a line")


def run(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill transcribe`.

    On this machine the work is done by a child process that is started again when it dies; `argv` is its command line.
    """
    logs.choose([logs.FLAG] * arguments.json_logs)  # the file of flags may say so, too
    job_flags.check_selection(arguments, "transcribe")
    if arguments.dry_run:
        return dry_run(arguments)
    return job_flags.run_units(arguments, beam_flags, argv, lambda flags, run: transcribe(arguments, flags, run), check)


def dry_run(arguments: argparse.Namespace) -> int:
    """Tells what would be done and what it would cost."""
    from pipelines.cost import load_machine
    from pipelines.estimate import estimate
    from pipelines.transcribe import dry_run

    options = options_of(arguments)
    print(dry_run(options))
    print(estimate(options, _DRY_RUN_SAMPLE, seed=1, machine=load_machine()).text(arguments.workers))
    return 0


def transcribe(arguments: argparse.Namespace, beam_flags: Sequence[str], run_name: str = "") -> int:
    """Reads what is open in this process; returns the exit code."""
    from pipelines import transcribe
    from pipelines.report import report_text

    options = options_of(arguments, run_name)
    report = transcribe.run(options, beam_flags, _STARTED_S)
    print(report_text(report, options.formats))
    return job_flags.DEAD_LETTERS_LEFT if report.counts.dead else 0


def formats_of(named: Sequence[str] | None) -> tuple[str, ...]:
    """Each format once, in the order given.

    Raises:
        BadArgument: an unknown one.
    """
    names = [name.strip() for part in named or ["txt"] for name in part.split(",")]
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise BadArgument(f"--format: invalid choice: {unknown[0]!r}", f"choose from {', '.join(FORMATS)}")
    return tuple(dict.fromkeys(names))


def page_range(text: str | None) -> tuple[int, int | None]:
    """First and last page.

    >>> page_range("3-7"), page_range("5-"), page_range("4"), page_range(None)
    ((3, 7), (5, None), (4, 4), (1, None))

    Raises:
        BadArgument: no range.
    """
    if text is None:
        return 1, None
    found = re.fullmatch(r"(\d+)(-?)(\d*)", text)
    if found is None or (found[3] and not found[2]):
        raise BadArgument(f"--page-range {text} is no range of pages", "write 1-10, 5- or 3")
    first = int(found[1])
    last = int(found[3]) if found[3] else None if found[2] else first
    if first < 1 or (last is not None and last < first):
        raise BadArgument(f"--page-range {text} is no range of pages", "write 1-10, 5- or 3")
    return first, last


def route(text: str) -> tuple[str, str, str]:
    """Column, value and bundle.

    >>> route("language=fr:models/french")
    ('language', 'fr', 'models/french')

    Raises:
        BadArgument: it is not written so.
    """
    found = re.fullmatch(r"([^=:]+)=([^:]*):(.+)", text)
    if found is None:
        raise BadArgument(f"--route {text} is no rule", "write COLUMN=VALUE:BUNDLE")
    return found[1], found[2], found[3]


def check_reading(arguments: argparse.Namespace) -> None:
    """
    Raises:
        BadArgument: a value of `add_reading_arguments` that the flags' own types do not catch.
    """
    for rule in arguments.route:
        route(rule)
    job_flags.check_decoding(arguments)
    if not 0 <= arguments.doubtful_below <= 1:
        raise BadArgument(f"--doubtful-below {arguments.doubtful_below} is not between 0 and 1")


def check(arguments: argparse.Namespace) -> None:
    """
    Raises:
        BadArgument: a value that the flags' own types do not catch. Imports nothing heavy.
    """
    check_reading(arguments)
    formats_of(arguments.format)
    page_range(arguments.page_range)
    job_flags.check_attempts(arguments)


def reading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the flags of `add_reading_arguments` mean, as arguments of `TranscribeOptions`."""
    from pipelines.routing import Routing

    return {
        "routing": Routing(
            bundle=arguments.model,
            rules=tuple(route(rule) for rule in arguments.route),
            second=arguments.second_model,
            second_below=arguments.doubtful_below,
        ),
        "single_line": arguments.single_line,
        "limits": job_flags.limits_of(arguments),
        "timeout_s": arguments.timeout_s,
        "memory_bytes": job_flags.memory_bytes_of(arguments),
        "doubtful_below": arguments.doubtful_below,
    }


def reading_arguments(options: TranscribeOptions) -> dict[str, Any]:
    """The arguments of `add_reading_arguments` that have these options: what `reading_options` takes back."""
    routing, limits = options.routing, options.limits
    return {
        "model": routing.bundle,
        "route": [f"{column}={value}:{bundle}" for column, value, bundle in routing.rules],
        "second_model": routing.second,
        "doubtful_below": options.doubtful_below,
        "single_line": options.single_line,
        "dpi": limits.pdf_dpi,
        "max_megapixels": limits.max_pixels / 1e6,
        "max_megabytes": limits.max_bytes / 2**20,
        "timeout_s": options.timeout_s,
        "decoder_megabytes": options.memory_bytes / 2**20,
    }


def options_of(arguments: argparse.Namespace, run_name: str = "") -> TranscribeOptions:
    """The options that the flags mean.

    Args:
        run_name: where this process is started again when it dies.

    Raises:
        BadArgument: as `check`.
    """
    from pipelines.transcribe import TranscribeOptions
    from pipelines.unit_runs import FailureLimit

    check(arguments)
    first, last = page_range(arguments.page_range)
    return TranscribeOptions(
        inputs=tuple(arguments.inputs),
        output=arguments.output,
        formats=formats_of(arguments.format),
        whole_folders=arguments.document == "folder",
        per_page=arguments.per == "page",
        layout=arguments.layout,
        first_page=first,
        last_page=last,
        limit=arguments.limit,
        copies=arguments.duplicates == "once",
        on_change=arguments.on_change,
        max_failures=FailureLimit.parse(arguments.max_failures) if arguments.max_failures else None,
        max_attempts=arguments.max_attempts,
        share_model=arguments.share_model,
        run=run_name,
        watch=bool(run_name),
        **reading_options(arguments),
    )
