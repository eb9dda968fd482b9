"""Trains the line finder: data, model, loss, loop."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np

from ocr_model.document import Box
from ocr_model.finder import FinderConfig, build_finder, maps_function
from ocr_model.layout import LineFinder
from trainer.finder_loss import FinderLoss
from trainer.finder_samples import Place, SampleConfig, divided_pages, samples, stacked
from trainer.loop import FedBatch, Learning, LoopConfig, Ways, train
from trainer.page_truth import TruePage
from trainer.synthesis.fonts import find_fonts
from trainer.synthesis.page_render import render
from trainer.synthesis.pages import draw_page
from trainer.synthesis.text import TextSource

RENDERED = "rendered"


@dataclass(frozen=True)
class FinderTrainingConfig:
    """One run.

    Attributes:
        batch: crops in a step.
        validation_share: of the real documents.
        validation_rendered: rendered pages that are validated on too: real documents are few, and of few kinds.
        loss: weights of its parts.
        policy: keras dtype policy of training; the weights are float32 in any case.
        initial_weights: a `.weights.h5` to go on from.
    """

    network: FinderConfig = field(default_factory=FinderConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=2600, warmup_steps=200, ema=0.995, validate_every=250)
    )
    batch: int = 4
    validation_share: float = 0.1
    validation_rendered: int = 40
    loss: FinderLoss = field(default_factory=FinderLoss)
    policy: str = "mixed_bfloat16"
    initial_weights: Path | None = None


def line_box(line: Any) -> Box:
    """The upright box around baseline, ascender and descender of a true line."""
    points = np.asarray(line.baseline)
    above, below = points - np.array([0, line.ascender]), points + np.array([0, line.descender])
    return Box.around(map(tuple, np.concatenate([above, below]).tolist()))


def matched(found: Sequence[Box], truth: Sequence[Box], iou: float = 0.5) -> int:
    """Number of pairs of boxes, each used once, best overlap first."""
    pairs = sorted(((f.iou(t), i, j) for i, f in enumerate(found) for j, t in enumerate(truth)), reverse=True)
    used_found: set[int] = set()
    used_truth: set[int] = set()
    for value, i, j in pairs:
        if value < iou:
            break
        if i not in used_found and j not in used_truth:
            used_found.add(i)
            used_truth.add(j)
    return len(used_found)


def validation(pages: Sequence[TruePage]) -> Callable[[keras.Model], dict[str, float]]:
    """Detection of lines on whole pages: `hmean` of precision and recall at IoU 0.5, and `miss` = 1 - hmean.

    Real and rendered pages (of the document `RENDERED`) count by their lines; `hmean_real` is of the real ones alone.
    """

    def validate(model: keras.Model) -> dict[str, float]:
        finder = LineFinder(maps_function(model))
        counts = np.zeros((2, 3), int)  # rendered, real; matched, found, true
        upright = 0
        for page in pages:
            found = finder.find(page.image)
            upright += found.quarter_turns == 0
            boxes = [line.box for line in found.lines()]
            truth = [line_box(line) for line in page.lines]
            counts[int(page.document != RENDERED)] += matched(boxes, truth), len(boxes), len(truth)
        hits, found_count, true_count = (int(v) for v in counts.sum(axis=0))
        hmean = hmean_of(counts.sum(axis=0))
        return {
            "miss": 1 - hmean,
            "hmean": hmean,
            "hmean_real": hmean_of(counts[1]),
            "recall": hits / max(1, true_count),
            "precision": hits / max(1, found_count),
            "upright": upright / max(1, len(pages)),
        }

    return validate


def hmean_of(counts: np.ndarray) -> float:
    """The harmonic mean of precision and recall of counts of matched, found and true boxes, [3].

    >>> hmean_of(np.array([3, 4, 6]))
    0.6
    """
    return 2 * int(counts[0]) / max(1, int(counts[1]) + int(counts[2]))


def rendered_pages(texts: Path | None, count: int, seed: int) -> list[TruePage]:
    """Rendered pages that training does not see: their seeds are of another row."""
    fonts, source = find_fonts(), TextSource.load(texts)
    pages = []
    for number in range(count if fonts else 0):
        image, lines = render(draw_page(np.random.default_rng([seed, 0x7A11DA7E, number]), fonts, source))
        pages.append(TruePage(f"rendered page {number} for validation", RENDERED, image, tuple(lines)))
    return pages


def fed(
    pages: Sequence[TruePage], texts: Path | None, config: FinderTrainingConfig, place: object
) -> Generator[FedBatch, None, None]:
    """Batches of crops from a place on; None is the beginning."""
    stream = samples(pages, texts, config.samples, _place_of(place))
    while True:
        drawn = [next(stream) for _ in range(config.batch)]
        group = [sample for sample, _ in drawn]
        yield FedBatch(stacked(group), [sample.name for sample in group], asdict(drawn[-1][1]))


def _place_of(value: Any) -> Place:
    return Place() if value is None else Place(**{**value, "held": tuple((n, i) for n, i in value["held"])})


def found_lines(pages: Sequence[TruePage], count: int = 2) -> Callable[[keras.Model], list[tuple[str, np.ndarray]]]:
    """A function from a model to pictures, [H, W, 3] uint8: the first pages with the boxes of the lines found."""

    def pictures(model: keras.Model) -> list[tuple[str, np.ndarray]]:
        finder, drawn = LineFinder(maps_function(model)), []
        for page in pages[:count]:
            picture = cv2.cvtColor(page.image, cv2.COLOR_GRAY2RGB)
            for line in finder.find(page.image).lines():
                corners = [round(v) for v in (line.box.left, line.box.top, line.box.right, line.box.bottom)]
                cv2.rectangle(picture, tuple(corners[:2]), tuple(corners[2:]), (200, 0, 0), 2)
            drawn.append((page.name, picture))
        return drawn

    return pictures


def train_finder(
    config: FinderTrainingConfig, data: Path, texts: Path | None, output: Path, ways: Ways = Ways()
) -> dict[str, float]:
    """Trains, or goes on with the run in `output`; see `trainer.run_folder.RunFolder` for what it leaves there.

    Args:
        data: folder with `meta.json` and `SOURCE/pages`, see `trainer.page_truth.load_pages`, or of page records.
        texts: folder of `.txt` files for the synthetic pages.
        ways: how it is done; the precision is the configuration's.

    Returns:
        The best validation figures.

    Raises:
        BadInput: no page to learn from or to validate on.
        PagemillError: as `trainer.loop.train`.
    """
    learnt, held_out = divided_pages(data, config.validation_share)
    validated = held_out + rendered_pages(texts, config.validation_rendered, config.samples.seed)

    def build() -> keras.Model:
        model = build_finder(config.network)
        if config.initial_weights:
            model.load_weights(config.initial_weights)
        return model

    learning = Learning(
        build,
        config.loss,
        lambda place: fed(learnt, texts, config, place),
        validation(validated),
        "miss",
        {
            **{k: v for k, v in asdict(config).items() if k != "loop"},
            "pages": len(learnt),
            "validation_pages": len(held_out),
        },
        pictures=found_lines(held_out),
    )
    return train(learning, config.loop, output, replace(ways, precision=config.policy))
