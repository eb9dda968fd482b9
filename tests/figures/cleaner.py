"""Figures of the cleaner: CER of real lines as they are and cleaned, source by source.

    python -m tests.figures.cleaner --cleaner RUN/exported --data DATA [--sample 100]

`DATA` holds `SOURCE/lines`. Prints a Markdown table with the difference and its 95 % interval over pages.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ocr_model.bundle import load_bundle
from ocr_model.metrics import comparable
from ocr_model.self_check import read_line_images
from trainer.ablation import LineResult, RunResult, test_lines
from trainer.ablation_report import difference_of, rate_of
from trainer.cleaner import Cleaner
from trainer.collection import as_cut
from trainer.metrics import CharacterErrors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cleaner", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sample", type=int, default=100, help="lines of each source")
    parser.add_argument("--exclude", action="append", default=[], metavar="SOURCE")
    arguments = parser.parse_args()
    cleaner, bundle = Cleaner.load(arguments.cleaner), load_bundle(None)
    found: dict[str, list[LineResult]] = {"as they are": [], "cleaned": []}
    sources = {s: x for s, x in test_lines(arguments.data).items() if s not in arguments.exclude}
    seconds = 0.0
    for source, lines in sources.items():
        lines = lines[:: max(1, len(lines) // arguments.sample)][: arguments.sample]
        images = [as_cut(line) for line in lines]
        began = time.process_time()
        cleaned = [cleaner.cleaned(image) for image in images]
        seconds += time.process_time() - began
        for name, strips in (("as they are", images), ("cleaned", cleaned)):
            for line, reading in zip(lines, read_line_images(bundle, strips), strict=True):
                truth, read = (comparable(t, "receipts" in source, True) for t in (line.text, reading.text))
                errors = CharacterErrors.of(truth, read)
                found[name].append(LineResult(source, line.document, errors.edits, errors.length))
    plain, clean = ([RunResult(name, 1, tuple(lines))] for name, lines in found.items())
    print("| source | lines | CER % as they are | cleaned | difference |\n|---|---|---|---|---|")
    for source in [*sources, None]:
        value, low, high = (100 * x for x in difference_of(clean, plain, source))
        count = sum(source in (None, line.source) for line in found["cleaned"])
        cells = f"{100 * rate_of(plain, source).value:.2f} | {100 * rate_of(clean, source).value:.2f}"
        print(f"| {source or 'all'} | {count} | {cells} | {value:+.2f} ({low:+.2f} to {high:+.2f}) |")
    print(f"\n{1000 * seconds / len(found['cleaned']):.0f} CPU ms a line for cleaning")


if __name__ == "__main__":
    main()
