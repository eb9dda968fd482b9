"""`pagemill ingest`: its flags, and the run that they ask for."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ocr_model.errors import BadArgument
from pipelines.commands.transcribe import DEAD_LETTERS_LEFT, is_local, with_workers
from pipelines.supervise import SUPERVISED_RUN, die_with_parent, end_with_workers, supervise

if TYPE_CHECKING:
    from pipelines.ingest import IngestOptions
    from pipelines.statistics import Finding

GATE_FAILED = 5
_KINDS = {"page": ("page",), "line": ("line",), "both": ("page", "line")}
_STARTED_S = time.monotonic()

EXAMPLES = """examples:
  pagemill ingest scans/ --output records
  pagemill ingest corpus.csv 'boxes/*.zip' --output records --workers 4 --document-pattern '(.+)_p[0-9]+$'
  pagemill ingest pages/ --output records --kind line --prepare deskew,flatten --test 5%
  pagemill ingest scans-2/ --output records-2 --previous records --drift-limit new_characters=0.01
  pagemill ingest gs://archive/truth/ --output gs://archive-records/1 --runner=DataflowRunner --region=…

The truth of scans/a/1.jpg is a/1.gt.txt, a/1.lines.json, a/1.xml (ALTO, PAGE) or a/1.hocr beside it, a file that names
it, or what a manifest says in a column `truth`; a manifest may also tell `document`, `language` and `split`. What
cannot be used is listed in records/dead_letters.jsonl, and the exit code is then 3; it is 5 where the records differ
more from earlier ones, or have more empty texts or copies, than the limits allow. A run that was broken off is finished
by giving the same command again. All other flags go to Beam."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill ingest`."""
    parser.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="file, folder, glob, zip, tar or manifest (CSV, JSONL), here or in a bucket",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for records and books")
    parser.add_argument(
        "--kind", choices=tuple(_KINDS), default="both", help="which records are written (default both)"
    )
    parser.add_argument(
        "--prepare",
        default="",
        metavar="STEP[,STEP]",
        help="steps done to every page: crop, orient, deskew, flatten, denoise, binarise",
    )
    parser.add_argument(
        "--single-line", action="store_true", help="every image is one line of text, whatever its shape"
    )
    parser.add_argument(
        "--without-truth",
        choices=("fail", "keep", "skip"),
        default="fail",
        help="an image without truth is a dead letter (default), a page record without lines, or passed over",
    )
    parser.add_argument(
        "--document",
        choices=("file", "folder"),
        default="file",
        help="what a document is, where no manifest tells: a file (default), or all files of a folder",
    )
    parser.add_argument(
        "--document-pattern",
        default="",
        metavar="REGEX",
        help="its first group, searched in a file's name below its input, names the document",
    )
    parser.add_argument("--validation", default="6%", metavar="SHARE", help="of the documents (default 6%%)")
    parser.add_argument("--test", default="0%", metavar="SHARE", help="of the documents (default 0%%)")
    parser.add_argument(
        "--line-height", type=int, default=64, metavar="PX", help="line crops are at most so high (default 64)"
    )
    parser.add_argument(
        "--alphabet", default="", metavar="FILE", help="what the alphabet begins with (default: see --previous)"
    )
    parser.add_argument(
        "--previous", default="", metavar="DIR", help="an earlier ingest to compare with, whose alphabet is carried on"
    )
    parser.add_argument(
        "--drift-limit",
        action="append",
        default=[],
        metavar="NAME=SHARE",
        help="new_characters, width_shift, grey_shift, empty_truth, copies, known_pages or crossed_pages",
    )
    parser.add_argument(
        "--min-character-count", type=int, default=3, metavar="N", help="of a new character of the alphabet (default 3)"
    )
    parser.add_argument(
        "--no-transform", action="store_true", help="records only: no alphabet, statistics and graph of features"
    )
    parser.add_argument("--dpi", type=int, default=300, metavar="N", help="resolution of drawn PDF pages (default 300)")
    parser.add_argument("--max-megapixels", type=float, default=120.0, metavar="N", help="larger pages are reduced")
    parser.add_argument("--max-megabytes", type=float, default=512.0, metavar="N", help="of a file (default 512)")
    parser.add_argument("--timeout-s", type=float, default=60.0, metavar="S", help="for decoding a page (default 60)")
    parser.add_argument(
        "--decoder-megabytes", type=float, default=2048.0, metavar="N", help="memory of the decoder (default 2048)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N files")
    parser.add_argument(
        "--on-change",
        choices=("fail", "resume", "restart"),
        default="fail",
        help="if DIR was begun with another configuration: fail, keep what is done, or do it again",
    )
    parser.add_argument("--max-failures", metavar="LIMIT", help="stop with exit code 4 when more pages fail (25, 1%%)")
    parser.add_argument(
        "--max-attempts", type=int, default=3, metavar="N", help="at a unit that kills its worker (default 3)"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine (default 1)")
    parser.add_argument(
        "--resume", action="store_true", help="do only what is missing; that is so without it, too, this says it aloud"
    )
    parser.add_argument("--config", metavar="FILE", help="YAML with these flags; what is given here goes first")


def run(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill ingest`.

    On this machine the work is done by a child process that is started again when it dies; `argv` is its command line.
    """
    if not arguments.inputs:
        raise BadArgument("the following arguments are required: INPUT", "see pagemill ingest --help")
    beam_flags = with_workers(arguments.workers, beam_flags)
    supervised = os.environ.get(SUPERVISED_RUN, "")
    if not supervised and is_local(beam_flags):
        check(arguments)
        return supervise(list(argv), arguments.output, arguments.workers, arguments.max_attempts)
    if supervised:
        die_with_parent()
        end_with_workers()
    return ingest(arguments, beam_flags, supervised)


def ingest(arguments: argparse.Namespace, beam_flags: Sequence[str] = (), run_name: str = "") -> int:
    """Makes the records in this process; returns the exit code."""
    from pipelines.features import FeatureOptions, base_alphabet, check_installed, continued, make_features
    from pipelines.ingest import ingest_text, run
    from pipelines.records_job import manifest_of, write_manifest
    from pipelines.statistics import DriftLimits, drift_text

    check(arguments)
    if not arguments.no_transform:
        check_installed()
    base = base_alphabet(arguments.previous, arguments.alphabet)
    options = options_of(arguments, base.characters, run_name)
    report = run(options, beam_flags, _STARTED_S)
    documents: dict[str, str] = {}
    findings: list[Finding] = []
    if not arguments.no_transform and report.counts.read:
        features = FeatureOptions(
            output=arguments.output,
            base=continued(base, arguments.output),
            previous=arguments.previous,
            least=arguments.min_character_count,
            limits=DriftLimits.parse(arguments.drift_limit),
        )
        documents, findings = make_features(features, report)
    print(ingest_text(report))
    write_manifest(arguments.output, manifest_of(report, options.configuration(), documents))
    crossed = drift_text(findings)
    if crossed:
        print(crossed)
        return GATE_FAILED
    return DEAD_LETTERS_LEFT if report.counts.dead else 0


def share(text: str, flag: str) -> float:
    """
    >>> share("6%", "--test"), share("0.06", "--test")
    (0.06, 0.06)

    Raises:
        BadArgument: it is no share.
    """
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise BadArgument(f"{flag} {text} is no share", "write 5% or 0.05")
    return value


def check(arguments: argparse.Namespace) -> None:
    """
    Raises:
        BadArgument: a value that the flags' own types do not catch.
    """
    if not 30 <= arguments.dpi <= 1200:
        raise BadArgument(f"--dpi {arguments.dpi} is not between 30 and 1200")
    for name in ("timeout_s", "max_megapixels", "max_megabytes", "decoder_megabytes"):
        if not 0 < getattr(arguments, name) < 1e9:
            raise BadArgument(f"--{name.replace('_', '-')} {getattr(arguments, name)} is not positive")
    for name in ("line_height", "min_character_count", "max_attempts"):
        if getattr(arguments, name) < 1:
            raise BadArgument(f"--{name.replace('_', '-')} {getattr(arguments, name)} is not positive")
    if arguments.limit is not None and arguments.limit < 1:
        raise BadArgument(f"--limit {arguments.limit} is not positive")
    if share(arguments.validation, "--validation") + share(arguments.test, "--test") > 1:
        raise BadArgument(f"--validation {arguments.validation} and --test {arguments.test} are more than all")
    if arguments.previous and arguments.previous.rstrip("/") == arguments.output.rstrip("/"):
        raise BadArgument("--previous is the --output itself", "name another ingest")
    from ocr_model.preparation import parse_steps
    from pipelines.statistics import DriftLimits

    parse_steps(arguments.prepare)
    DriftLimits.parse(arguments.drift_limit)


def options_of(arguments: argparse.Namespace, known: str, run_name: str = "") -> IngestOptions:
    """The options that the flags mean.

    Args:
        known: characters of the alphabet to begin with.
        run_name: where this process is started again when it dies.

    Raises:
        BadArgument: as `IngestOptions`.
    """
    from ocr_model.images import Limits
    from ocr_model.preparation import parse_steps
    from pipelines.ingest import IngestOptions
    from pipelines.ingest_pages import IngestSettings
    from pipelines.transcribe import FailureLimit

    max_pixels = round(arguments.max_megapixels * 1e6)
    settings = IngestSettings(
        kinds=_KINDS[arguments.kind],  # type: ignore[arg-type]
        steps=parse_steps(arguments.prepare),
        single_line=arguments.single_line,
        without_truth=arguments.without_truth,
        validation_share=share(arguments.validation, "--validation"),
        test_share=share(arguments.test, "--test"),
        highest_line_px=arguments.line_height,
        limits=Limits(
            max_bytes=round(arguments.max_megabytes * 2**20),
            max_pixels=max_pixels,
            hard_max_pixels=4 * max_pixels,
            pdf_dpi=arguments.dpi,
        ),
        timeout_s=arguments.timeout_s,
        memory_bytes=round(arguments.decoder_megabytes * 2**20),
        known=known,
    )
    return IngestOptions(
        inputs=tuple(arguments.inputs),
        output=arguments.output,
        settings=settings,
        whole_folders=arguments.document == "folder",
        document_pattern=arguments.document_pattern,
        limit=arguments.limit,
        on_change=arguments.on_change,
        max_failures=FailureLimit.parse(arguments.max_failures) if arguments.max_failures else None,
        max_attempts=arguments.max_attempts,
        run=run_name,
    )
