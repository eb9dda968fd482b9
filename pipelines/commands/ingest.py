"""`pagemill ingest`: its flags, and the run that they ask for."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ocr_model.errors import BadArgument
from pipelines.commands import job_flags

if TYPE_CHECKING:
    from pipelines.ingest import IngestOptions
    from pipelines.statistics import Finding

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
    job_flags.add_inputs(parser)
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
    job_flags.add_selection(parser)
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
    job_flags.add_decoding(parser)
    job_flags.add_run(parser)
    parser.add_argument(
        "--resume", action="store_true", help="do only what is missing; that is so without it, too, this says it aloud"
    )
    job_flags.add_config(parser)


def run(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill ingest`."""
    job_flags.check_selection(arguments, "ingest")
    return job_flags.run_units(arguments, beam_flags, argv, lambda flags, run: ingest(arguments, flags, run), check)


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
        return job_flags.GATE_FAILED
    return job_flags.DEAD_LETTERS_LEFT if report.counts.dead else 0


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
    job_flags.check_decoding(arguments)
    job_flags.check_attempts(arguments)
    for name in ("line_height", "min_character_count"):
        if getattr(arguments, name) < 1:
            raise BadArgument(f"--{name.replace('_', '-')} {getattr(arguments, name)} is not positive")
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
    from ocr_model.preparation import parse_steps
    from pipelines.ingest import IngestOptions
    from pipelines.ingest_pages import IngestSettings
    from pipelines.unit_runs import FailureLimit

    settings = IngestSettings(
        kinds=_KINDS[arguments.kind],  # type: ignore[arg-type]
        steps=parse_steps(arguments.prepare),
        single_line=arguments.single_line,
        without_truth=arguments.without_truth,
        validation_share=share(arguments.validation, "--validation"),
        test_share=share(arguments.test, "--test"),
        highest_line_px=arguments.line_height,
        limits=job_flags.limits_of(arguments),
        timeout_s=arguments.timeout_s,
        memory_bytes=job_flags.memory_bytes_of(arguments),
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
