"""`pagemill evaluate`: its flags, and the comparison that they ask for."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ocr_model.errors import BadInput

EXAMPLES = """examples:
  pagemill evaluate --truth scans/ --predicted out/txt
  pagemill evaluate --truth scans/ --predicted out/txt --group-by top --ignore-case 'receipts*' --json report.json

The truth of scans/a/b/scan.jpg is scans/a/b/scan.gt.txt (or scan.txt), its prediction out/txt/a/b/scan.txt."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
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


def run(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill evaluate`."""
    from pipelines.evaluate import EvaluateOptions, evaluate, report_to_json, table

    options = EvaluateOptions(
        truth=arguments.truth,
        predicted=arguments.predicted,
        group_by=arguments.group_by,
        groups=_read_groups(arguments.groups) if arguments.groups else None,
        ignore_case=tuple(arguments.ignore_case),
        fold_long_s=arguments.fold_long_s,
    )
    report = evaluate(options)
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
