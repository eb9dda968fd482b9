"""`pagemill config show`: what flags and file together mean, before anything is run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from pipelines.commands import transcribe

EXAMPLES = """examples:
  pagemill config show --config run.yaml
  pagemill config show --config run.yaml --workers 4 scans/ > effective.yaml

Takes the flags of `pagemill transcribe`. What it prints is a file for --config."""
_NOT_SHOWN = ("help", "config")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill config show`."""
    transcribe.add_arguments(parser)
    for action in parser._actions:
        action.required = False  # a part can be shown, too


def run(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill config show`.

    Raises:
        BadArgument: a value that `pagemill transcribe` would not take.
    """
    transcribe.check(arguments)
    print(as_yaml({name: value for name, value in vars(arguments).items() if name not in _NOT_SHOWN}), end="")
    return 0


def as_yaml(values: dict[str, Any]) -> str:
    """The file for `--config` that gives these arguments.

    >>> print(as_yaml({"inputs": ["a b"], "single_line": True, "limit": None, "dpi": 300}), end="")
    inputs: [a b]
    single-line: true
    limit: null
    dpi: 300
    """
    import yaml

    return "".join(
        f"{name.replace('_', '-')}: {yaml.safe_dump(value, default_flow_style=True, width=10**6).split(chr(10))[0]}\n"
        for name, value in values.items()
    )
