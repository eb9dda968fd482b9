"""Where the CPU time of a page goes: `python -m tests.figures.page_cost --data DATA --source NAME …`.

Reads the scans as a worker does, units of eight files, with one thread on one core, and prints a Markdown table: CPU
milliseconds a page of each step, without the steps inside it.
"""

from __future__ import annotations

import argparse
import functools
import os
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelines.bench import THREAD_VARIABLES, find_items

UNIT_PAGES = 8


class Steps:
    """CPU seconds and calls by step; a step inside another one is taken off that."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._open: list[str] = []
        self._last = time.process_time()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time counted under a name."""

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            self._tick()
            self._open.append(name)
            self.calls[name] += 1
            try:
                return function(*arguments, **options)
            finally:
                self._tick()
                self._open.pop()

        return call

    def reset(self) -> None:
        self.seconds.clear()
        self.calls.clear()

    def _tick(self) -> None:
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._last
        self._last = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--source", action="append", default=[])
    arguments = parser.parse_args()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    from ocr_model import bundle, layout, reader
    from pipelines.decoder import Decoder

    steps = Steps()
    for owner, name, label in (
        (bundle, "refined", "beam search"),
        (reader, "cut_line", "cutting lines"),
        (reader, "normalise_line_image", "bringing lines to 40 px, contrast"),
        (reader, "greedy", "best path to characters"),
        (reader, "settled", "word shapes"),
        (reader.Reader, "_assemble", "boxes of words, baselines"),
        (layout, "reduced", "reducing the page"),
        (layout, "lines_from_maps", "lines from the finder's maps"),
        (layout, "in_reading_order", "reading order"),
        (layout.LineFinder, "find", "finder, other"),
    ):
        setattr(owner, name, steps.timed(label, getattr(owner, name)))
    ours = reader.Reader.load()
    ours.finder.maps = steps.timed("finder's network", ours.finder.maps)
    # `read_lines` searches, too: that is a step of its own
    object.__setattr__(ours.bundle, "read_lines", steps.timed("recogniser's network", ours.bundle.read_lines))
    read = steps.timed("reader, other", ours.read)
    files = [item.image for item in find_items(arguments.data, "pages", arguments.source)]
    with Decoder() as decoder:

        def decoded(file: Path) -> Any:
            decoder.open(str(file))
            return decoder.decode(0).pixels

        def decoder_seconds() -> float:
            used = Path(f"/proc/{decoder.child_pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            return (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")

        decode = steps.timed("taking pages from the decoder", decoded)
        read([decoded(files[0])])  # what is done once
        steps.reset()
        before = decoder_seconds()
        for start in range(0, len(files), UNIT_PAGES):
            read([decode(file) for file in files[start : start + UNIT_PAGES]])
        steps.seconds["decoder's process"] = decoder_seconds() - before
    print("| step | CPU ms a page | calls a page |\n|---|---|---|")
    for name, seconds in sorted(steps.seconds.items(), key=lambda step: -step[1]):
        print(f"| {name} | {1000 * seconds / len(files):.1f} | {steps.calls[name] / len(files):.1f} |")
    print(f"| all | {1000 * sum(steps.seconds.values()) / len(files):.0f} | |")
    print(f"\n{len(files)} pages, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
