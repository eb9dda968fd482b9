"""Figures of fine-tuning: the default bundle on 300 lines of Fraktur, what it gains and what it loses.

    python -m tests.figures.finetune --data DATA --output OUT

`DATA` holds `train/SOURCE/lines` and `real/SOURCE/lines`. Prints a Markdown table: character error rates of the start
bundle and of two fine-tuned ones (all layers; `--freeze backbone`) on lines that were not trained on.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path

from ocr_model.bundle import load_bundle
from ocr_model.metrics import comparable
from ocr_model.self_check import character_error_rate, read_line_images
from trainer.collection import as_cut, load_folder
from trainer.finetune import FREEZABLE, FROZEN_LEARNING_RATE, LOOP, FineTuning, finetune
from trainer.line_data import RealLine

SOURCE = "archiscribe_fraktur_de"
OTHERS = ("ajmc_books_en", "ehri_typed_en", "newspaper_en", "oldbooks_en", "sroie_receipts_en")


def some_lines(folder: Path, count: int, output: Path) -> Path:
    """A folder with `count` lines of a source, evenly taken over its names."""
    shutil.rmtree(output, ignore_errors=True)
    target = output / SOURCE / "lines"
    target.mkdir(parents=True)
    names = sorted(p.name.removesuffix(".gt.txt") for p in folder.glob("*.gt.txt"))
    for i in range(count):
        name = names[i * len(names) // count]
        for path in folder.glob(f"{name}.*"):
            shutil.copy(path, target)
    return output


def all_lines(folder: Path, at_most: int) -> list[RealLine]:
    """Lines of a folder, whatever the division."""
    found = load_folder(folder, 0.5)
    lines = sorted((*found.training, *found.validation), key=lambda line: (line.document, line.text))
    return lines[:: max(1, len(lines) // at_most)][:at_most]


def error_rates(bundle: Path | None, sources: dict[str, list[RealLine]]) -> dict[str, tuple[float, float]]:
    """Per source the CER to the letter, and with kinds of quotes and dashes and the long s folded."""
    loaded = load_bundle(bundle)
    rates = {}
    for name, lines in sources.items():
        read = [r.text for r in read_line_images(loaded, [as_cut(line) for line in lines])]
        texts = [line.text for line in lines]
        folded = [[comparable(t, "receipts" in name, True) for t in side] for side in (texts, read)]
        rates[name] = character_error_rate(texts, read), character_error_rate(*folded)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=300)
    parser.add_argument("--sample", type=int, default=60, help="lines of each other source")
    parser.add_argument("--steps", type=int, default=LOOP.steps)
    parser.add_argument("--learning-rate", type=float, help="default: that of the command")
    parser.add_argument("--freeze", choices=FREEZABLE, action="append", help="default: both")
    parser.add_argument("--replay-share", type=float, default=FineTuning(lines=Path()).replay_share)
    parser.add_argument("--layer-decay", type=float, default=FineTuning(lines=Path()).layer_decay)
    arguments = parser.parse_args()
    lines = some_lines(arguments.data / "train" / SOURCE / "lines", arguments.lines, arguments.output / "lines")
    real, others = arguments.data / "real", arguments.output / "others"
    shutil.rmtree(others, ignore_errors=True)
    for name in OTHERS:
        shutil.copytree(real / name / "lines", others / name / "lines")
    sources = {SOURCE: all_lines(real / SOURCE, 10_000)}
    sources |= {name: all_lines(real / name, arguments.sample) for name in OTHERS}
    rates, costs = {"start": error_rates(None, sources)}, {}
    for freeze in arguments.freeze or FREEZABLE:
        began, cpu = time.monotonic(), _cpu_seconds()
        usual = LOOP.learning_rate if freeze == "none" else FROZEN_LEARNING_RATE
        loop = replace(LOOP, steps=arguments.steps, learning_rate=arguments.learning_rate or usual)
        config = FineTuning(
            lines=lines,
            watch=others,
            freeze=freeze,
            loop=loop,
            replay_share=arguments.replay_share,
            layer_decay=arguments.layer_decay,
        )
        shutil.rmtree(arguments.output / freeze, ignore_errors=True)
        outcome = finetune(config, arguments.output / freeze)
        costs[freeze] = time.monotonic() - began, _cpu_seconds() - cpu, outcome.after["step"]
        if outcome.bundle is not None:
            rates[f"freeze {freeze}"] = error_rates(outcome.bundle, sources)
    print(f"\nCER %, to the letter / folded, {arguments.lines} lines trained and validated on\n")
    print("| source | lines | " + " | ".join(rates) + " |\n|---|---|" + "---|" * len(rates))
    for name, found in sources.items():
        cells = [f"{100 * rates[run][name][0]:.2f} / {100 * rates[run][name][1]:.2f}" for run in rates]
        print(f"| {name} | {len(found)} | " + " | ".join(cells) + " |")
    for freeze, (wall, spent, step) in costs.items():
        print(f"\nfreeze {freeze}: {wall:.0f} s, {spent:.0f} CPU s with checks and export, best step {step:.0f}")


def _cpu_seconds() -> float:
    return sum(
        u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    main()
