"""The command `pagemill`: verbs, flags and exit codes. Nothing heavy is imported before the arguments are good."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import NoReturn

from ocr_model import errors
from ocr_model.errors import BadArgument, PagemillError
from pipelines import logs
from pipelines.bench import BENCH_EXAMPLES, add_bench_arguments, bench
from pipelines.commands import (
    ablate,
    books,
    config,
    estimate,
    evaluate,
    ingest,
    inspect,
    models,
    synthesize,
    train,
    transcribe,
)
from pipelines.commands import errors as error_causes
from pipelines.config import words_of_config
from pipelines.supervise import leave

INTERRUPTED = 130
UNEXPECTED = 15


class _Parser(argparse.ArgumentParser):
    """Raises `BadArgument` where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        raise BadArgument(message, f"see {self.prog} --help")


@dataclass(frozen=True)
class Verb:
    """A verb of the command line. `run` gets the parsed arguments, Beam's flags if it takes any, and all words."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Sequence[str], Sequence[str]], int]
    examples: str = ""
    takes_beam_flags: bool = False


VERBS = (
    Verb(
        "transcribe",
        "read scans: files of images in, text out",
        transcribe.add_arguments,
        transcribe.run,
        transcribe.EXAMPLES,
        takes_beam_flags=True,
    ),
    Verb(
        "status",
        "tell how far a run is and what it cost",
        books.add_status_arguments,
        books.status,
        books.STATUS_EXAMPLES,
    ),
    Verb(
        "retry",
        "take up the pages that could not be read",
        books.add_retry_arguments,
        books.retry,
        books.RETRY_EXAMPLES,
    ),
    Verb(
        "verify",
        "check every output file against the ledger",
        books.add_verify_arguments,
        books.verify,
        books.VERIFY_EXAMPLES,
    ),
    Verb(
        "estimate",
        "measure a sample, tell what the whole will cost",
        estimate.add_arguments,
        estimate.run,
        estimate.EXAMPLES,
    ),
    Verb(
        "ingest",
        "make records for training and evaluation of scans and their truth",
        ingest.add_arguments,
        ingest.run,
        ingest.EXAMPLES,
        takes_beam_flags=True,
    ),
    Verb(
        "synthesize",
        "make records of rendered lines or pages",
        synthesize.add_arguments,
        synthesize.run,
        synthesize.EXAMPLES,
        takes_beam_flags=True,
    ),
    Verb("inspect", "look at records", inspect.add_arguments, inspect.run, inspect.EXAMPLES),
    Verb(
        "config show",
        "tell what flags and file of `transcribe` mean together",
        config.add_arguments,
        config.run,
        config.EXAMPLES,
    ),
    Verb("evaluate", "compare text with the truth", evaluate.add_arguments, evaluate.run, evaluate.EXAMPLES),
    Verb("bench", "measure accuracy and cost on scans with truth", add_bench_arguments, bench, BENCH_EXAMPLES),
    Verb(
        "errors",
        "tell where the errors on scans with truth come from",
        error_causes.add_arguments,
        error_causes.run,
        error_causes.EXAMPLES,
    ),
    Verb(
        "train", "train the recogniser or the line finder", train.add_train_arguments, train.train, train.TRAIN_EXAMPLES
    ),
    Verb(
        "export",
        "make a model bundle of trained networks",
        train.add_export_arguments,
        train.export,
        train.EXPORT_EXAMPLES,
    ),
    Verb(
        "ablate",
        "show whether synthetic lines help: one recogniser with and without them",
        ablate.add_arguments,
        ablate.run,
        ablate.EXAMPLES,
    ),
    Verb("models", "list, show and check bundles, convert them", models.add_arguments, models.run, models.EXAMPLES),
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
    return parser.parse_intermixed_args([*words_of_config(argv, parser), *argv]), beam_flags


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
    logs.choose(argv)
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
    words = 2 if " ".join(argv[:2]) in verbs else 1
    name, rest = " ".join(argv[:words]), argv[words:]
    if name not in verbs:
        near = difflib.get_close_matches(name, verbs, n=1)
        raise BadArgument(f"no such verb: {name}", f"did you mean {near[0]}?" if near else f"verbs: {', '.join(verbs)}")
    verb = verbs[name]
    try:
        arguments, beam_flags = parse(verb, rest)
    except SystemExit:  # --help has been printed
        return 0
    return verb.run(arguments, beam_flags, argv)


def _interrupted() -> int:
    logs.tell("pagemill: interrupted", "error", error="KeyboardInterrupt", exit_code=INTERRUPTED)
    return INTERRUPTED


def _complain(error: PagemillError) -> int:
    text = _WHERE_IN_THE_GRAPH.sub("", " ".join(str(error).split()))
    logs.tell(f"pagemill: {text}", "error", error=type(error).__name__, exit_code=error.exit_code)
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
    leave(main())
