"""`pagemill ablate`: its flags, and the comparison that they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ocr_model.errors import BadInput
from trainer.task import positive

EXAMPLES = """examples:
  pagemill ablate --data DATA --test TEST --text TEXT --output runs/ablation --report ablation.md
  pagemill ablate --data DATA --test TEST --text TEXT --wear runs/wear/exported --seeds 5 --output runs/ablation

DATA holds real lines with truth as for `pagemill train`, TEST line images with truth, SOURCE/lines/NAME.png with
NAME.gt.txt. The same small recogniser is trained from scratch with real lines only, and with rendered, damaged and
worn lines beside them; the report has the CER of each source with intervals. What is finished is not done again: a run
that was stopped goes on when the same command is given, and more seeds can be added."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pagemill ablate`."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="real lines with truth, to train on")
    parser.add_argument("--test", type=Path, required=True, metavar="DIR", help="line images with truth, to read")
    parser.add_argument("--text", type=Path, metavar="DIR", help="text files for the rendered lines")
    parser.add_argument("--wear", type=Path, metavar="DIR", help="exported wear; without it its arms are left out")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the runs")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="NAME.md, beside it NAME.svg (default: in --output)"
    )
    parser.add_argument(
        "--arm",
        action="append",
        metavar="NAME",
        help="one of: real only, + rendered, + damage, + wear GAN, + all (default: all)",
    )
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="runs of each arm (default 3)")
    parser.add_argument("--real-lines", type=positive, default=500, metavar="N", help="in every run (default 500)")
    parser.add_argument(
        "--synthetic-lines", type=positive, default=6000, metavar="N", help="of each kind (default 6000)"
    )
    parser.add_argument(
        "--real-share", type=float, default=0.4, metavar="X", help="of a batch with others (default 0.4)"
    )
    parser.add_argument("--steps", type=positive, default=2000, metavar="N", help="of every run (default 2000)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, metavar="X", help="its peak (default 0.003)")
    parser.add_argument(
        "--batch-px", type=positive, default=12_000, metavar="N", help="width of a batch (default 12000)"
    )
    parser.add_argument(
        "--max-width", type=positive, default=1300, metavar="PX", help="of lines at 40 px (default 1300)"
    )
    parser.add_argument(
        "--filters", type=positive, default=96, metavar="N", help="channels of the recogniser (default 96)"
    )
    parser.add_argument("--blocks", type=positive, default=5, metavar="N", help="blocks of the recogniser (default 5)")
    parser.add_argument(
        "--exclude", action="append", metavar="SOURCE", help="of --data (default: archiscribe_fraktur_de)"
    )
    parser.add_argument(
        "--ignore-case", action="append", default=[], metavar="SOURCE", help="of --test: truth in capitals"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "mixed_bfloat16"),
        default="mixed_bfloat16",
        help="of the arithmetic (default mixed_bfloat16)",
    )
    parser.add_argument("--threads", type=int, default=0, help="threads of TensorFlow (default 0: all cores)")


def run(arguments: argparse.Namespace, beam_flags: Sequence[str], argv: Sequence[str]) -> int:
    """Runs `pagemill ablate`."""
    for folder in (arguments.data, arguments.test):
        if not folder.is_dir():
            raise BadInput(f"no folder {folder}", "check --data and --test")
    from trainer.ablation import ARMS, SMALL, Ablation, ablate
    from trainer.ablation_report import findings, table, write_report
    from trainer.loop import Ways
    from trainer.strategy import Hardware, limit_threads

    limit_threads(arguments.threads)  # before the wear is loaded, which starts TensorFlow
    config = Ablation(
        arguments.data,
        arguments.test,
        arguments.text,
        arguments.wear,
        exclude=tuple(arguments.exclude or Ablation.exclude),
        arms=tuple(arguments.arm or ARMS),
        seeds=arguments.seeds,
        real_lines=arguments.real_lines,
        synthetic_lines=arguments.synthetic_lines,
        real_share=arguments.real_share,
        steps=arguments.steps,
        learning_rate=arguments.learning_rate,
        batch_px=arguments.batch_px,
        max_width_px=arguments.max_width,
        ignore_case=tuple(arguments.ignore_case),
        network=replace(SMALL, trunk_filters=arguments.filters, trunk_blocks=arguments.blocks),
    )
    outcome = ablate(config, arguments.output, Ways(Hardware(threads=arguments.threads), arguments.precision))
    path = arguments.report or arguments.output / "ablation.md"
    write_report(outcome, path)
    print("\n".join([table(outcome), "", *findings(outcome), "", f"report: {path}"]))
    return 0
