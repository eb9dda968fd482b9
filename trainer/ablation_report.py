"""Table and plot of an ablation: error rates with intervals, and what they say."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainer.ablation import Outcome, RunResult
from trainer.checkpoints import write_text

DRAWS = 2000
_COLOURS = ("#666666", "#3b78b5", "#2a9d57", "#c8452c", "#8a4fb0")


@dataclass(frozen=True)
class Rate:
    """A CER with its 95 % interval, all as shares."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} ({100 * self.low:.1f}–{100 * self.high:.1f})"

    def below(self, other: Rate) -> bool:
        """Whether the intervals lie apart, this one lower."""
        return self.high < other.low


def rate_of(runs: Sequence[RunResult], source: str | None, seed: int = 1) -> Rate:
    """CER over the lines of a source (None: of all), as the mean of the runs.

    The interval is a bootstrap (Efron 1979) over documents, the lines of a page not being independent, and over runs.

    Args:
        runs: of one arm, with the same lines.
    """
    edits, lengths = _by_document(runs, source)
    total = lengths.sum()
    if not total:
        return Rate(0.0, 0.0, 0.0)
    rng = np.random.default_rng(seed)
    drawn = np.empty(DRAWS)
    for i in range(DRAWS):
        documents = rng.integers(edits.shape[1], size=edits.shape[1])
        chosen = rng.integers(edits.shape[0], size=edits.shape[0])
        drawn[i] = edits[np.ix_(chosen, documents)].mean(axis=0).sum() / max(1, lengths[documents].sum())
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Rate(float(edits.mean(axis=0).sum() / total), float(low), float(high))


def difference_of(
    runs: Sequence[RunResult], others: Sequence[RunResult], source: str | None, seed: int = 1
) -> tuple[float, float, float]:
    """CER of the runs less that of the others, with its 95 % interval: documents are drawn for both alike."""
    edits, lengths = _by_document(runs, source)
    other, _ = _by_document(others, source)
    rng = np.random.default_rng(seed)
    drawn = np.empty(DRAWS)
    for i in range(DRAWS):
        documents = rng.integers(edits.shape[1], size=edits.shape[1])
        size = max(1, lengths[documents].sum())
        mine, theirs = (
            e[np.ix_(rng.integers(e.shape[0], size=e.shape[0]), documents)].mean(axis=0).sum() for e in (edits, other)
        )
        drawn[i] = (mine - theirs) / size
    low, high = np.percentile(drawn, [2.5, 97.5])
    value = (edits.mean(axis=0).sum() - other.mean(axis=0).sum()) / max(1, lengths.sum())
    return float(value), float(low), float(high)


def _by_document(
    runs: Sequence[RunResult], source: str | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Edits [runs, documents] and characters [documents]."""
    names = sorted({(x.source, x.document) for x in runs[0].lines if source in (None, x.source)})
    place = {name: i for i, name in enumerate(names)}
    edits, lengths = np.zeros((len(runs), len(names))), np.zeros(len(names))
    for row, run in enumerate(runs):
        for line in run.lines:
            if (line.source, line.document) in place:
                column = place[line.source, line.document]
                edits[row, column] += line.edits
                lengths[column] += line.length if row == 0 else 0
    return edits, lengths


def by_arm(outcome: Outcome) -> dict[str, list[RunResult]]:
    """Arm → its runs, in the order of the configuration."""
    return {arm: found for arm in outcome.config.arms if (found := [r for r in outcome.results if r.arm == arm])}


def sources_of(outcome: Outcome) -> list[str]:
    return sorted({line.source for line in outcome.results[0].lines})


def held_out(outcome: Outcome) -> list[str]:
    """Test sources that gave lines neither to the recogniser's training nor to the wear's."""
    return [s for s in sources_of(outcome) if s not in outcome.trained_on | outcome.worn_like]


def findings(outcome: Outcome) -> list[str]:
    """Sentences: what each synthetic arm did on the held-out sources, and whether the intervals lie apart."""
    runs = by_arm(outcome)
    if "real only" not in runs:
        return []
    told = []
    for arm in [arm for arm in runs if arm != "real only"]:
        lower = [s for s in held_out(outcome) if rate_of(runs[arm], s).below(rate_of(runs["real only"], s))]
        told.append(
            f"**{arm}** against real only: lower, with intervals that do not overlap, on "
            + (f"{', '.join(lower)}." if lower else "no held-out source.")
        )
    for arm, other in (("+ wear GAN", "+ rendered"), ("+ wear GAN", "+ damage"), ("+ all", "+ damage")):
        if arm in runs and other in runs:
            told.append(_comparison(outcome, runs, arm, other))
    return told


def _comparison(outcome: Outcome, runs: dict[str, list[RunResult]], arm: str, other: str) -> str:
    lower: list[str] = []
    higher: list[str] = []
    for source in held_out(outcome):
        _, low, high = difference_of(runs[arm], runs[other], source)
        if high < 0:
            lower.append(source)
        elif low > 0:
            higher.append(source)
    value, low, high = difference_of(runs[arm], runs[other], None)
    sides = [f"{word} on {', '.join(found)}" for word, found in (("lower", lower), ("higher", higher)) if found]
    return (
        f"**{arm}** against **{other}**, page by page: {'; '.join(sides) or 'no difference shown'} among the held-out "
        f"sources; over all lines {100 * value:+.1f} points of CER ({100 * low:+.1f} to {100 * high:+.1f})."
    )


def table(outcome: Outcome) -> str:
    """Markdown: a row a source, a column an arm, CER in per cent with its interval."""
    runs = by_arm(outcome)
    lines = [f"| source | lines | pages | {' | '.join(runs)} |", "|---|---|---|" + "---|" * len(runs)]
    first = outcome.results[0]
    for source in [*sources_of(outcome), None]:
        mine = [x for x in first.lines if source in (None, x.source)]
        name = "all" if source is None else source + (" †" if source in held_out(outcome) else "")
        pages = len({(x.source, x.document) for x in mine})
        cells = " | ".join(str(rate_of(found, source)) for found in runs.values())
        lines.append(f"| {name} | {len(mine)} | {pages} | {cells} |")
    return "\n".join(lines)


def plot(outcome: Outcome) -> str:
    """SVG: of each source the CER of the arms with their intervals."""
    runs, names = by_arm(outcome), [*sources_of(outcome), None]
    rates = {(n, arm): rate_of(found, n) for n in names for arm, found in runs.items()}
    top = max(0.01, *(r.high for r in rates.values()))
    left, width, pitch = 170, 560, 14
    block = pitch * len(runs) + 14
    height = 46 + block * len(names) + 34
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 30}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{left + width + 30}" height="{height}" fill="white"/>',
    ]
    for i, arm in enumerate(runs):
        out.append(f'<circle cx="{left + 8 + 112 * i}" cy="16" r="4" fill="{_COLOURS[i % 5]}"/>')
        out.append(f'<text x="{left + 16 + 112 * i}" y="20">{html.escape(arm)}</text>')
    for tick in range(6):
        x, value = left + width * tick / 5, 100 * top * tick / 5
        out.append(f'<line x1="{x:.1f}" y1="34" x2="{x:.1f}" y2="{height - 30}" stroke="#dddddd"/>')
        out.append(f'<text x="{x:.1f}" y="{height - 14}" text-anchor="middle">{value:.1f}</text>')
    out.append(f'<text x="{left - 8}" y="{height - 14}" text-anchor="end">CER %</text>')
    for row, name in enumerate(names):
        begin = 46 + block * row
        label = "all" if name is None else name + (" †" if name in held_out(outcome) else "")
        out.append(
            f'<text x="{left - 8}" y="{begin + block / 2 - 4:.1f}" text-anchor="end">{html.escape(label)}</text>'
        )
        for i, arm in enumerate(runs):
            rate, y = rates[name, arm], begin + pitch * i + 6
            low, middle, high = (left + width * v / top for v in (rate.low, rate.value, rate.high))
            colour = _COLOURS[i % 5]
            out.append(f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
            out.append(f'<circle cx="{middle:.1f}" cy="{y}" r="4" fill="{colour}"/>')
    return "\n".join([*out, "</svg>"]) + "\n"


def report(outcome: Outcome, plot_name: str) -> str:
    """The whole Markdown page."""
    c = outcome.config
    missing = f" Left out, for want of a wear: {', '.join(outcome.left_out)}." if outcome.left_out else ""
    seeds = len({r.seed for r in outcome.results})
    real, pools = outcome.counts.get("real lines", 0), f"{c.synthetic_lines:,} lines of the same texts and layouts"
    facts = [
        f"Each run: a recogniser of {c.network.trunk_filters} channels and {c.network.trunk_blocks} blocks from "
        f"scratch, {c.steps} steps of about {c.batch_px:,} px of lines, {real} real lines (the same in every run), and "
        f"where there are synthetic ones {100 * (1 - c.real_share):.0f} % of them, out of pools of {pools}. "
        f"{seeds} seeds an arm.{missing}",
        "CER in per cent as the mean over the seeds; in brackets the 95 % interval of a bootstrap over pages and "
        "seeds. † gave no line to the training of the recogniser or of the wear.",
    ]
    told = "\n".join(f"- {sentence}" for sentence in findings(outcome))
    heads = "# Does synthetic data help?\n\nWritten by `pagemill ablate`.\n"
    return f"{heads}\n{facts[0]}\n\n{table(outcome)}\n\n{facts[1]}\n\n![CER of each arm]({plot_name})\n\n{told}\n"


def write_report(outcome: Outcome, path: Path) -> None:
    """Writes `NAME.md` and `NAME.svg` beside it.

    Raises:
        CannotWrite: the folder cannot be written.
    """
    picture = path.with_suffix(".svg")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(picture, plot(outcome))
    write_text(path, report(outcome, picture.name))
