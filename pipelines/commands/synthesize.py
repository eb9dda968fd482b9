"""`pagemill synthesize`: its flags, and the run that they ask for."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ocr_model.errors import BadArgument
from pipelines.commands.ingest import share
from pipelines.commands.job_flags import DEAD_LETTERS_LEFT, add_config, add_run, run_units

if TYPE_CHECKING:
    from pipelines.synthesize import SynthesisOptions

_STARTED_S = time.monotonic()

EXAMPLES = """examples:
  pagemill synthesize --lines 100000 --text texts/ --output synthetic
  pagemill synthesize --lines 50000 --text texts/ --mix book=1,fraktur=3 --max-cer none --output fraktur --workers 4
  pagemill synthesize --lines 20000 --text texts/ --wear runs/wear/exported --worn 60% --style-of letters --output worn
  pagemill synthesize --pages 500 --text texts/ --output pages --validation 10%
  pagemill inspect synthetic --sheet lines.png

TEXT holds UTF-8 text files, a paragraph a line; without it the lines say little more than a word list. Every record
tells what it was made of: font, text files, parameters of layout and damage, seed and number. What the reader reads
with more errors than --max-cer is drawn, counted and dropped. The same command gives the same bytes with any number of
workers, and a run that was broken off is finished by giving it again. All other flags go to Beam."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill synthesize`."""
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for records and books")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--lines", type=int, metavar="N", help="so many lines are drawn")
    what.add_argument("--pages", type=int, metavar="N", help="so many pages are drawn")
    parser.add_argument("--text", default="", metavar="DIR", help="text files, their names beginning with the language")
    parser.add_argument(
        "--fonts", default="", metavar="DIR", help="fonts to draw with (default: those of the list that are installed)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of everything (default 1)")
    parser.add_argument(
        "--mix",
        default="",
        metavar="KIND=SHARE[,…]",
        help="kinds of print: typewriter, book, modern, fraktur (default typewriter=0.36,book=0.36,modern=0.28)",
    )
    parser.add_argument("--italics", default="17%", metavar="SHARE", help="share of the lines (default 17%%)")
    parser.add_argument("--small-caps", default="3%", metavar="SHARE", help="of those not typed (default 3%%)")
    parser.add_argument("--damaged", default="100%", metavar="SHARE", help="share of the lines (default 100%%)")
    parser.add_argument("--wear", default="", metavar="DIR", help="exported wear, of `pagemill train wear`")
    parser.add_argument(
        "--worn", metavar="SHARE", help="share of the lines with wear in the place of damage (default 100%%)"
    )
    parser.add_argument(
        "--style-of", default="", metavar="COLLECTION", help="wear looks like this collection: its name, or its folder"
    )
    parser.add_argument(
        "--max-cer", default="50%", metavar="SHARE", help="drop what is read with more errors; `none` keeps all (50%%)"
    )
    parser.add_argument("--reader", default="", metavar="BUNDLE", help="that reads (default: the one in the package)")
    parser.add_argument(
        "--alphabet", default="", metavar="FILE", help="that lines stay within (default: the default one)"
    )
    parser.add_argument("--validation", default="0%", metavar="SHARE", help="share of the shards (default 0%%)")
    parser.add_argument("--test", default="0%", metavar="SHARE", help="share of the shards (default 0%%)")
    parser.add_argument("--shard", type=int, metavar="N", help="lines (default 500) or pages (20) in a file")
    add_run(parser, "shard", may_fail=False)
    parser.add_argument("--resume", action="store_true", help="do only what is missing, which is always so")
    add_config(parser)


def run(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill synthesize`, as `pagemill ingest` in a child process that is started again when it dies."""
    return run_units(arguments, beam_flags, argv, lambda flags, run: synthesize(arguments, flags, run), options_of)


def synthesize(arguments: argparse.Namespace, beam_flags: Sequence[str] = (), run_name: str = "") -> int:
    """Makes the records in this process; returns the exit code."""
    from pipelines.records_job import manifest_of, write_manifest
    from pipelines.synthesize import find_ingredients, run, synthesis_text

    options = options_of(arguments, run_name)
    found = find_ingredients(options.settings)
    if amiss := found.as_text():
        print(amiss, file=sys.stderr)
    options = replace(options, settings=replace(options.settings, digests=found.digests))
    report = run(options, beam_flags, _STARTED_S)
    print(synthesis_text(report, options.settings.kind))
    manifest = manifest_of(report, options.configuration())
    ingredients = {
        "faces": found.faces,
        "paragraphs": found.paragraphs,
        "paragraphs_left_out": found.left_out,
        "unreadable": sorted(Path(name).name for name in found.unreadable),
        "outside_alphabet": dict(sorted(found.unknown.items())),
    }
    manifest = replace(manifest, counts={**manifest.counts, "ingredients": ingredients})
    write_manifest(arguments.output, manifest)
    return DEAD_LETTERS_LEFT if report.counts.dead else 0


def mixture_of(text: str) -> dict[str, float]:
    """
    >>> mixture_of("book=1,fraktur=3")
    {'book': 1.0, 'fraktur': 3.0}

    Raises:
        BadArgument: it is no list of kinds with their shares.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        kind, _, value = part.partition("=")
        try:
            shares[kind.strip()] = float(value)
        except ValueError:
            raise BadArgument(f"--mix {text} is no mixture", "write book=1,fraktur=3") from None
    return shares


def options_of(arguments: argparse.Namespace, run_name: str = "") -> SynthesisOptions:
    """The options that the flags mean; digests are not in them yet.

    Raises:
        BadArgument: as `SynthesisOptions`, or a value that the flags' own types do not catch.
        BadModel: the alphabet cannot be read.
    """
    from ocr_model.alphabet import DEFAULT_ALPHABET, Alphabet
    from pipelines.synthesize import SHARD, SynthesisOptions
    from pipelines.synthetic_examples import SynthesisSettings

    kind = "page" if arguments.pages is not None else "line"
    count = arguments.pages if arguments.pages is not None else arguments.lines
    if count is None:
        raise BadArgument("nothing is asked for", "give --lines N or --pages N")
    worn = arguments.worn if arguments.worn is not None else "100%" if arguments.wear else "0%"
    alphabet = Alphabet.load(Path(arguments.alphabet)) if arguments.alphabet else DEFAULT_ALPHABET
    max_cer = None if arguments.max_cer == "none" else _rate(arguments.max_cer)
    settings = SynthesisSettings(
        kind=kind,  # type: ignore[arg-type]
        seed=arguments.seed,
        text=arguments.text or None,
        fonts=arguments.fonts or None,
        alphabet=alphabet.characters,
        **({"kinds": mixture_of(arguments.mix)} if arguments.mix else {}),  # type: ignore[arg-type]
        slanted=share(arguments.italics, "--italics"),
        small_caps=share(arguments.small_caps, "--small-caps"),
        damaged=share(arguments.damaged, "--damaged"),
        wear=arguments.wear or None,
        worn=share(worn, "--worn"),
        style_of=arguments.style_of,
        max_cer=max_cer,
        reader=arguments.reader or None,
        validation_share=share(arguments.validation, "--validation"),
        test_share=share(arguments.test, "--test"),
    )
    if arguments.seed < 0:
        raise BadArgument(f"--seed {arguments.seed} is negative")
    shard = SHARD[kind] if arguments.shard is None else arguments.shard
    return SynthesisOptions(
        output=arguments.output,
        count=count,
        shard=shard,
        settings=settings,
        on_change=arguments.on_change,
        max_attempts=arguments.max_attempts,
        run=run_name,
    )


def _rate(text: str) -> float:
    """
    >>> _rate("50%"), _rate("0.3")
    (0.5, 0.3)

    Raises:
        BadArgument: it is no rate.
    """
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise BadArgument(f"--max-cer {text} is no error rate", "write 50%, 0.5 or none") from None
