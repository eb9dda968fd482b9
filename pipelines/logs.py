"""What a run says on stderr: lines for a person or, with `--json-logs`, a JSON object a line for a program.

Child processes inherit the choice through the environment.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from pipelines.clock import now

FLAG = "--json-logs"
_CHOICE = "PAGEMILL_JSON_LOGS"


def choose(argv: Sequence[str]) -> None:
    """Has this process and its children write JSON, if the words of the command line say so."""
    if FLAG in argv:
        os.environ[_CHOICE] = "1"


def are_json() -> bool:
    """Whether JSON is to be written."""
    return bool(os.environ.get(_CHOICE))


def tell(text: str, level: str = "info", stream: TextIO | None = None, **fields: Any) -> None:
    """Writes a line: the text, or an object of time, level, text and fields.

    Raises:
        OSError: nobody is listening any more.
    """
    stream = stream or sys.stderr
    line = json.dumps({"time": now(), "level": level, "message": text, **fields}) if are_json() else text
    stream.write(f"{line}\n")
    stream.flush()
