"""`pagemill models`: the bundles that there are, what they are, and whether they are whole."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ocr_model.bundle import CARD, DEFAULT_BUNDLE, bundle_digest, differing_files, read_config
from ocr_model.errors import BadArgument, BadInput, BadModel, MissingDependency

EXAMPLES = """examples:
  pagemill models list                        the bundles in the package
  pagemill models list runs models            and those below these folders
  pagemill models show                        the card of the default bundle
  pagemill models verify runs/mine/bundle     every file against its checksum, then the self-check
  pagemill models litert models/french --precision float16 --lines my-lines --to french.tflite

BUNDLE is a folder, or `default`. Exit code 7 if a bundle is damaged or is none."""
ACTIONS = ("list", "show", "verify", "litert")
DAMAGED = BadModel.exit_code
DEFAULT = "default"
PACKAGED = DEFAULT_BUNDLE.parent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill models`."""
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE", help="folders; `list` looks below them")
    parser.add_argument("--fast", action="store_true", help="verify: checksums only, nothing is loaded")
    parser.add_argument("--to", type=Path, metavar="FILE", help="litert: where the recogniser goes")
    parser.add_argument(
        "--precision", choices=("float16", "int8"), default="float16", help="litert: of the weights (default float16)"
    )
    parser.add_argument("--lines", type=Path, metavar="DIR", help="litert: line images with truth, to compare on")


def run(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill models`."""
    if arguments.action == "list":
        return _list([Path(folder) for folder in arguments.bundles])
    bundles = [bundle_path(name) for name in arguments.bundles or [DEFAULT]]
    if arguments.action == "show":
        print("\n\n".join(card_of(bundle).strip() for bundle in bundles))
        return 0
    if arguments.action == "verify":
        return _verify(bundles, arguments.fast)
    return _litert(bundles, arguments)


def bundle_path(name: str) -> Path:
    """The folder of a bundle by what the command line calls it."""
    packaged = PACKAGED / name
    return packaged if name == DEFAULT or (not Path(name).exists() and packaged.is_dir()) else Path(name)


# ---- list


def find_bundles(folders: Iterable[Path]) -> Iterator[Path]:
    """Every folder below these (and themselves) that holds a bundle's config.json, sorted."""
    for folder in folders:
        for config in sorted(folder.rglob("config.json")):
            try:
                read_config(config.parent)
            except BadModel:  # a config.json of something else
                continue
            yield config.parent


def _list(folders: Sequence[Path]) -> int:
    for folder in folders:
        if not folder.is_dir():
            raise BadInput(f"no folder {folder}", "name folders that hold bundles")
    rows = [("bundle", "digest", "characters", "MB", "fine-tuned from")]
    for path in find_bundles([PACKAGED, *folders]):
        config = read_config(path)
        size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
        origin = str(config.get("training", {}).get("finetuning", {}).get("start", ""))[:16]
        name = path.relative_to(PACKAGED).as_posix() if path.is_relative_to(PACKAGED) else str(path)
        rows.append((name, bundle_digest(path)[:16], str(_characters(config)), f"{size / 1e6:.1f}", origin or "–"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _characters(config: dict[str, Any]) -> int:
    return int(config["recogniser"]["classes"]) - 1


# ---- show


def card_of(bundle: Path) -> str:
    """
    Raises:
        BadModel: it is no bundle, or has no card.
    """
    read_config(bundle)
    try:
        return (bundle / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadModel(f"{bundle} has no readable {CARD}: {error}", "take a complete bundle") from error


# ---- verify


def _verify(bundles: Sequence[Path], fast: bool) -> int:
    wrong = 0
    for bundle in bundles:
        problems = bundle_problems(bundle, fast)
        wrong += bool(problems)
        print(f"{bundle}: {'whole' if not problems else ''}".rstrip())
        print("".join(f"  {problem}\n" for problem in problems), end="")
    return DAMAGED if wrong else 0


def bundle_problems(bundle: Path, fast: bool) -> list[str]:
    """What is wrong with a bundle, a sentence each: files against their checksums, then how it reads.

    Args:
        fast: leave out the reading.
    """
    try:
        read_config(bundle)
        problems = differing_files(bundle)
        if problems or fast:
            return problems
        from ocr_model.bundle import load_bundle
        from ocr_model.self_check import FOLDER, self_check

        return self_check(load_bundle(bundle), bundle / FOLDER)
    except BadModel as error:
        return [str(error)]


# ---- LiteRT


def _litert(bundles: Sequence[Path], arguments: argparse.Namespace) -> int:
    if len(bundles) != 1 or arguments.to is None:
        raise BadArgument("litert takes one BUNDLE and --to FILE", "see pagemill models --help")
    try:
        from trainer.litert import compare, convert
    except ImportError as error:
        raise MissingDependency(f"this TensorFlow has no LiteRT converter: {error}", "install tensorflow") from error
    content = convert(bundles[0], arguments.precision)
    try:
        arguments.to.write_bytes(content)
    except OSError as error:
        raise BadInput(f"cannot write {arguments.to}: {error.strerror}", "choose another --to") from error
    print(f"{arguments.to}: {len(content) / 1e6:.1f} MB, weights in {arguments.precision}")
    if arguments.lines is not None:
        print(compare(bundles[0], content, arguments.lines).text())
    return 0
