"""The command `pagemill`: verbs, flags and exit codes. Nothing heavy is imported before the arguments are good."""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from ocr_model import errors
from ocr_model.errors import BadArgument, BadInput, PagemillError
from pipelines.bench import BENCH_EXAMPLES, add_bench_arguments, bench
from pipelines.train import (
    EXPORT_EXAMPLES,
    TRAIN_EXAMPLES,
    add_export_arguments,
    add_train_arguments,
    export,
    train,
)

INTERRUPTED = 130
DEAD_LETTERS_LEFT = 3
UNEXPECTED = 15

_STARTED_S = time.monotonic()


class _Parser(argparse.ArgumentParser):
    """Raises `BadArgument` where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        raise BadArgument(message, f"see {self.prog} --help")


# ---- transcribe

TRANSCRIBE_EXAMPLES = """examples:
  pagemill transcribe scans/ --output out
  pagemill transcribe book.pdf 'letters/19*/*.tif' --output out --format txt --format hocr
  pagemill transcribe lines/ --output out --single-line
  pagemill transcribe gs://archive/1901/ --output gs://archive-text/1901 --runner=DataflowRunner --region=…

The text of scans/a/b/scan.jpg goes to out/txt/a/b/scan.txt. Pages that cannot be read are listed in
out/dead_letters.jsonl, and the exit code is then 3. All other flags go to Beam."""


def add_transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill transcribe`."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="file, folder or glob, here or in a bucket")
    parser.add_argument("--output", required=True, metavar="DIR", help="results go to DIR/FORMAT/…")
    parser.add_argument(
        "--format",
        action="append",
        choices=("txt", "jsonl", "hocr", "overlay"),
        help="may be given several times; default txt. overlay: a picture of the page with its lines and text",
    )
    parser.add_argument("--model", metavar="BUNDLE", help="folder of an exported bundle (default: the one shipped)")
    parser.add_argument("--single-line", action="store_true", help="every image is one line of text")
    parser.add_argument("--dpi", type=int, metavar="N", help="resolution of drawn PDF pages (default 300)")


def transcribe(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Runs `pagemill transcribe`; `rest` are Beam's flags."""
    from ocr_model.images import Limits
    from pipelines.transcribe import TranscribeOptions, run

    try:
        limits = Limits() if arguments.dpi is None else Limits(pdf_dpi=arguments.dpi)
    except ValueError as error:
        raise BadArgument(f"--dpi {arguments.dpi}: {error}") from error
    options = TranscribeOptions(
        inputs=tuple(arguments.inputs),
        output=arguments.output,
        formats=tuple(dict.fromkeys(arguments.format or ["txt"])),
        bundle=arguments.model,
        single_line=arguments.single_line,
        limits=limits,
    )
    summary = run(options, rest, _STARTED_S)
    print(summary.text())
    return DEAD_LETTERS_LEFT if summary.failures else 0


# ---- evaluate

EVALUATE_EXAMPLES = """examples:
  pagemill evaluate --truth scans/ --predicted out/txt
  pagemill evaluate --truth scans/ --predicted out/txt --group-by top --ignore-case 'receipts*' --json report.json

The truth of scans/a/b/scan.jpg is scans/a/b/scan.gt.txt (or scan.txt), its prediction out/txt/a/b/scan.txt."""


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill evaluate`."""
    parser.add_argument("--truth", required=True, type=Path, metavar="DIR", help="folder of NAME.gt.txt or NAME.txt")
    parser.add_argument("--predicted", required=True, type=Path, metavar="DIR", help="folder of NAME.txt")
    parser.add_argument(
        "--group-by",
        choices=("folder", "top", "none"),
        default="folder",
        help="the page's folder (default), the first folder of its path, or none",
    )
    parser.add_argument("--groups", type=Path, metavar="FILE", help='JSON {"name or pattern": "group"}, goes first')
    parser.add_argument(
        "--ignore-case",
        action="append",
        default=[],
        metavar="PATTERN",
        help="pages or groups whose truth has no reliable case; may be given several times",
    )
    parser.add_argument("--fold-long-s", action="store_true", help="count the long s as s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report, page by page")


def evaluate(arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Runs `pagemill evaluate`."""
    from pipelines.evaluate import EvaluateOptions, report_to_json, table
    from pipelines.evaluate import evaluate as compare

    options = EvaluateOptions(
        truth=arguments.truth,
        predicted=arguments.predicted,
        group_by=arguments.group_by,
        groups=_read_groups(arguments.groups) if arguments.groups else None,
        ignore_case=tuple(arguments.ignore_case),
        fold_long_s=arguments.fold_long_s,
    )
    report = compare(options)
    if arguments.json:
        try:
            arguments.json.write_text(report_to_json(report), encoding="utf-8")
        except OSError as error:
            raise BadInput(f"cannot write {arguments.json}: {error.strerror}", "choose another --json") from error
    print(table(report))
    return 0


def _read_groups(path: Path) -> dict[str, str]:
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {error}", "give a JSON file") from error
    if not isinstance(groups, dict) or not all(isinstance(group, str) for group in groups.values()):
        raise BadInput(f"{path} is not an object of strings", 'write {"name or pattern": "group"}')
    return groups


# ---- verbs


@dataclass(frozen=True)
class Verb:
    """A verb of the command line. `run` gets the parsed arguments and, if it takes them, Beam's flags."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Sequence[str]], int]
    examples: str = ""
    takes_beam_flags: bool = False


VERBS = (
    Verb(
        "transcribe",
        "read scans: files of images in, text out",
        add_transcribe_arguments,
        transcribe,
        TRANSCRIBE_EXAMPLES,
        takes_beam_flags=True,
    ),
    Verb("evaluate", "compare text with the truth", add_evaluate_arguments, evaluate, EVALUATE_EXAMPLES),
    Verb("bench", "measure accuracy and cost on scans with truth", add_bench_arguments, bench, BENCH_EXAMPLES),
    Verb("train", "train the recogniser or the line finder", add_train_arguments, train, TRAIN_EXAMPLES),
    Verb("export", "make a model bundle of trained networks", add_export_arguments, export, EXPORT_EXAMPLES),
)


def usage() -> str:
    """The help of the command itself."""
    width = max(len(verb.name) for verb in VERBS)
    verbs = "\n".join(f"  {verb.name:<{width}}  {verb.help}" for verb in VERBS)
    return (
        "usage: pagemill VERB …\n\n"
        "Turns scanned pages into text, on one machine or on a cluster.\n\n"
        f"verbs:\n{verbs}\n\n"
        "pagemill VERB --help tells more; pagemill --version tells the version.\n\n"
        "example:\n  pagemill transcribe scans/ --output out\n"
    )


def version() -> str:
    try:
        return metadata.version("pagemill")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"


def parse(verb: Verb, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The verb's arguments and Beam's flags.

    Raises:
        BadArgument: a flag that neither knows, or a wrong value.
    """
    parser = _Parser(
        prog=f"pagemill {verb.name}",
        description=verb.help,
        epilog=verb.examples,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_arguments(parser)
    known = list(parser._option_string_actions)
    unknown = [flag for flag in argv if flag.startswith("--") and flag != "--" and flag.partition("=")[0] not in known]
    beam_flags: list[str] = []
    if unknown and verb.takes_beam_flags and not {"-h", "--help"} & set(argv):
        argv, beam_flags = split_beam_flags(argv)
        unknown = [flag for flag in unknown if flag in argv]
    if unknown and not {"-h", "--help"} & set(argv):
        near = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
        raise BadArgument(
            f"unknown flag {unknown[0]}", f"did you mean {near[0]}?" if near else f"see {parser.prog} --help"
        )
    return parser.parse_intermixed_args(list(argv)), beam_flags


def split_beam_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """What Beam does not know, and what it does, with its values.

    Raises:
        BadArgument: Beam does not take a flag's value.
    """
    from apache_beam.options.pipeline_options import PipelineOptions

    parsers: list[argparse.ArgumentParser] = []
    PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    parser = parsers[0]

    def refuse(message: str) -> NoReturn:
        raise BadArgument(message, "see the options of Beam and its runners")

    parser.error = refuse  # type: ignore[method-assign]
    ours = parser.parse_known_args(list(argv))[1]
    beam_flags, rest = [], list(ours)
    for word in argv:
        if rest and word == rest[0]:
            rest.pop(0)
        else:
            beam_flags.append(word)
    return ours, beam_flags


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns its exit code. Errors that the user can mend are one line on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    be_quiet()
    try:
        return _run(argv)
    except PagemillError as error:
        return _complain(error)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - so that Python's own flush at exit finds no broken pipe
        return 0
    except Exception as error:  # the last line of defence: a bug, or what a worker raised, told by Beam
        raised = error_of_worker(str(error))
        if raised is not None:
            return _complain(raised)
        if _WORKER_INTERRUPTED.search(str(error)):
            return _interrupted()
        traceback.print_exc()
        print("pagemill: this is a bug, please report it with the lines above", file=sys.stderr)
        return UNEXPECTED


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage(), end="", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else BadArgument.exit_code
    if argv[0] == "--version":
        print(f"pagemill {version()}")
        return 0
    verbs = {verb.name: verb for verb in VERBS}
    if argv[0] not in verbs:
        near = difflib.get_close_matches(argv[0], verbs, n=1)
        raise BadArgument(
            f"no such verb: {argv[0]}", f"did you mean {near[0]}?" if near else f"verbs: {', '.join(verbs)}"
        )
    verb = verbs[argv[0]]
    try:
        arguments, beam_flags = parse(verb, argv[1:])
    except SystemExit:  # --help has been printed
        return 0
    return verb.run(arguments, beam_flags)


def _interrupted() -> int:
    print("pagemill: interrupted", file=sys.stderr)
    return INTERRUPTED


def _complain(error: PagemillError) -> int:
    text = _WHERE_IN_THE_GRAPH.sub("", " ".join(str(error).split()))
    print(f"pagemill: {text}", file=sys.stderr)
    return error.exit_code


_WHERE_IN_THE_GRAPH = re.compile(r" \[while running '[^']*'\]")


_WORKER_INTERRUPTED = re.compile(r"^(RuntimeError: )?KeyboardInterrupt\b", re.MULTILINE)
_WORKER_ERROR = re.compile(r"ocr_model\.errors\.(\w+): (.+)")


def error_of_worker(text: str) -> PagemillError | None:
    """The error that a worker raised on purpose, from the text that the runner makes of it.

    >>> error_of_worker("Traceback …\\nocr_model.errors.BadModel: no bundle (export one) [while running 'Read']")
    BadModel("no bundle (export one) [while running 'Read']")
    """
    found = _WORKER_ERROR.search(text)
    kind = getattr(errors, found[1], None) if found else None
    if (
        found is None
        or not (isinstance(kind, type) and issubclass(kind, PagemillError))
        or kind is errors.UnreadablePage
    ):
        return None
    return kind(found[2])


def be_quiet() -> None:
    """Libraries' remarks on themselves stay off stderr; what the user set in the environment stands."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # an error reaches us as an exception, too
    warnings.filterwarnings("ignore", module=r"(PIL|apache_beam|google|keras|tensorflow)\b")


if __name__ == "__main__":
    sys.exit(main())
