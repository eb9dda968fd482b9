"""Prefix beam search (Hannun et al. 2014) with a character language model, where the network is in doubt.

Most steps of a line are certain; there the search has one way to go. So it runs on the doubtful stretches alone, with
what stands before and after as context, and its result is again a class a step: boxes and words come out as they do
from the best path.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ocr_model.ctc import BLANK
from ocr_model.language_model import START, STEPS_PER_NAT, LanguageModel

Classes = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
Prefix = tuple[int, ...]


@dataclass(frozen=True)
class BeamConfig:
    """
    Attributes:
        certain: probability of the best class from which a step is not doubted.
        possible: probability from which a class is followed.
        negligible: share of the best prefix's probability below which a prefix is dropped.
        width: prefixes that are kept.
        gap: certain steps that join two doubtful stretches.
        hopeless: share of doubtful steps from which a line is left as it is: sideways or no text.
    """

    certain: float = 0.9
    possible: float = 0.01
    negligible: float = 0.01
    width: int = 8
    gap: int = 8
    hopeless: float = 0.4


def stretches(doubtful: npt.NDArray[np.int64], steps: int, gap: int) -> list[tuple[int, int]]:
    """Doubtful stretches, end exclusive, each with the step after it where there is one.

    Args:
        doubtful: the doubtful steps, rising.
        steps: of the line.

    >>> stretches(np.array([1, 4, 5]), 6, gap=1)
    [(1, 3), (4, 6)]
    """
    if doubtful.size == 0:
        return []
    breaks = np.flatnonzero(np.diff(doubtful) > gap + 1)
    starts = doubtful[np.concatenate(([0], breaks + 1))]
    ends = np.minimum(doubtful[np.concatenate((breaks, [doubtful.size - 1]))] + 2, steps)
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def probabilities_of(scores: Floats) -> Floats:
    """Softmax of logits, over the last axis."""
    exps = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(exps / exps.sum(-1, keepdims=True), np.float32)


def doubtful_steps(
    classes: Classes, confidences: Floats, scores: Floats, config: BeamConfig
) -> list[npt.NDArray[np.int64]]:
    """Per line the steps whose class is in doubt, rising, but for those where the text is not: where one character goes
    over into the next or into a blank, a step between may belong to either.

    Args:
        classes, confidences: [lines, time]; scores: [lines, time, classes].
    """
    lines, steps = np.nonzero(confidences < config.certain)
    last = classes.shape[1] - 1
    earlier, later = np.maximum(steps - 1, 0), np.minimum(steps + 1, last)
    before, after = classes[lines, earlier], classes[lines, later]
    border = np.flatnonzero(
        (before != after)
        # false at either end of the line
        & (np.minimum(confidences[lines, earlier], confidences[lines, later]) >= config.certain)
    )
    before, after = before[border], after[border]
    rows, at = probabilities_of(scores[lines[border], steps[border]]), np.arange(border.size)
    either = rows[:, BLANK] + rows[at, before] * (before != BLANK) + rows[at, after] * (after != BLANK)
    certain = border[either > 1 - config.possible]
    lines, steps = np.delete(lines, certain), np.delete(steps, certain)
    return np.split(steps, np.searchsorted(lines, np.arange(1, len(classes))))


def labels_of(path: Classes, before: int = BLANK) -> Prefix:
    """Characters of a path: repeats joined, blanks dropped; a repeat of `before` at the beginning is none.

    >>> labels_of(np.array([2, 2, 0, 2, 3], np.int32), before=2)
    (2, 3)
    """
    firsts = np.concatenate(([path[0] != before], path[1:] != path[:-1])) & (path != BLANK)
    return tuple(path[firsts].tolist())


def search(
    probabilities: Floats, before: int, context: Prefix, following: Prefix, model: LanguageModel, config: BeamConfig
) -> tuple[Prefix, float]:
    """The best text of a stretch and its share of the probability of all texts that the beam kept.

    Args:
        probabilities: [time, classes].
        before: class of the step before; context: characters before; following: those after.
    """
    # by prefix its negative log probability in steps, and the model's place after it
    known: dict[Prefix, tuple[int, int]] = {(): (0, model.context_of(context))}

    def prior(prefix: Prefix, after: Prefix = ()) -> float:
        if not model.weight:
            return model.bonus * len(prefix)
        length = len(prefix)
        while (found := known.get(prefix[:length])) is None:
            length -= 1
        total, place = found
        while length < len(prefix):
            cost, place = model.after(place, prefix[length])
            total, length = total + cost, length + 1
            known[prefix[:length]] = total, place
        for label in after:
            cost, place = model.after(place, label)
            total += cost
        return model.weight * (-total / STEPS_PER_NAT) + model.bonus * len(prefix)

    def kept(beam: dict[Prefix, tuple[float, float]]) -> dict[Prefix, tuple[float, float]]:
        least = config.negligible * max(map(sum, beam.values()))
        rest = {prefix: mass for prefix, mass in beam.items() if sum(mass) >= least}
        if len(rest) <= config.width:
            return rest
        scores = {prefix: math.log(sum(mass)) + prior(prefix) for prefix, mass in rest.items()}
        return {prefix: rest[prefix] for prefix in sorted(rest, key=lambda p: (-scores[p], p))[: config.width]}

    # per prefix the probability of the paths that end in a blank, and of those that end in its last character
    beam: dict[Prefix, tuple[float, float]] = {(): (1.0, 0.0) if before == BLANK else (0.0, 1.0)}
    highest = probabilities.max(1, keepdims=True)
    scaled = probabilities / highest  # so that masses do not vanish in a long stretch
    steps: list[list[tuple[int, float]]] = [[] for _ in probabilities]
    for step, label in np.argwhere(probabilities >= np.minimum(highest, config.possible)).tolist():
        steps[step].append((label, float(scaled[step, label])))
    for pairs in steps:
        beam = _longer(beam, pairs, before)
        if len(beam) > 1:
            beam = kept(beam)
    if len(beam) == 1:
        return next(iter(beam)), 1.0
    scores = {prefix: math.log(sum(mass)) + prior(prefix, following) for prefix, mass in beam.items()}
    best = min(scores, key=lambda prefix: (-scores[prefix], prefix))
    return best, 1 / sum(math.exp(score - scores[best]) for score in scores.values())


def _longer(
    beam: dict[Prefix, tuple[float, float]], pairs: list[tuple[int, float]], before: int
) -> dict[Prefix, tuple[float, float]]:
    """The beam after a step, for the possible classes and their probabilities."""
    grown: dict[Prefix, tuple[float, float]] = {}
    for prefix, (blank, other) in beam.items():
        last = prefix[-1] if prefix else before
        for label, p in pairs:
            if label == BLANK:
                b, o = grown.get(prefix, (0.0, 0.0))
                grown[prefix] = (b + p * (blank + other), o)
                continue
            if label == last:
                b, o = grown.get(prefix, (0.0, 0.0))
                grown[prefix] = (b, o + p * other)
            mass = blank if label == last else blank + other
            if mass:
                longer = (*prefix, label)
                b, o = grown.get(longer, (0.0, 0.0))
                grown[longer] = (b, o + p * mass)
    return grown


def aligned(probabilities: Floats, before: int, labels: Prefix) -> Classes:
    """The most probable path of a text: [time] classes. The text must fit."""
    states = [BLANK if i % 2 == 0 else labels[i // 2] for i in range(2 * len(labels) + 1)]
    if before != BLANK:
        states[0:0] = [before]  # to go on with the character before
    logs = np.log(np.maximum(probabilities[:, states], 1e-9))
    count = len(states)
    may_skip = [i >= 2 and states[i] != BLANK and states[i] != states[i - 2] for i in range(count)]
    no_skip = np.where(may_skip, 0.0, -np.inf)
    # scores with two states before the first that nothing comes from; before the stretch the path is in the first
    # one: the character before, or the blank
    scores = np.full(count + 2, -np.inf)
    scores[2] = 0.0
    options, moves = np.empty((3, count)), []
    for row in logs:
        options[0], options[1] = scores[2:], scores[1:-1]
        np.add(scores[:-2], no_skip, out=options[2])
        moves.append(options.argmax(0))
        np.add(options.max(0), row, out=scores[2:])
    scores = scores[2:]
    last = count - 1
    if labels and scores[count - 2] > scores[count - 1]:
        last = count - 2
    elif not labels and count == 2 and scores[0] > scores[1]:
        last = 0
    path = []
    for move in reversed(moves):
        path.append(states[last])
        last -= int(move[last])
    return np.array(path[::-1], np.int32)


def refined(
    classes: Classes, confidences: Floats, scores: Floats, model: LanguageModel, config: BeamConfig = BeamConfig()
) -> tuple[Classes, Floats]:
    """The class of each step after the search, and its confidence, both [lines, time].

    Where the search agrees with the best path, both are those of the best path. Where it does not, the confidence is
    that of the chosen text, its share of all texts that were left: measured on lines, what has a share of 0.6 is right
    in seven cases of ten.

    Args:
        classes, confidences: [lines, time], of the best path.
        scores: [lines, time, classes], logits.
    """
    doubtful = doubtful_steps(classes, confidences, scores, config)
    classes, confidences = classes.copy(), confidences.copy()
    for line, steps in enumerate(doubtful):
        if 0 < steps.size < config.hopeless * classes.shape[1]:
            _refine(classes[line], confidences[line], scores[line], steps, model, config)
    return classes, confidences


def _refine(
    classes: Classes,
    confidences: Floats,
    scores: Floats,
    steps: npt.NDArray[np.int64],
    model: LanguageModel,
    config: BeamConfig,
) -> None:
    """`refined` for one line in place; `steps` are the doubtful ones."""
    begins = np.flatnonzero(np.concatenate(([True], classes[1:] != classes[:-1])) & (classes != BLANK))
    labels, places = classes[begins].tolist(), begins.tolist()
    known, done = [START], 0  # characters so far; those of the best path that are passed
    for start, end in stretches(steps, len(classes), config.gap):
        before = int(classes[start - 1]) if start else BLANK
        probabilities = probabilities_of(scores[start:end])
        if confidences[end - 1] >= config.certain:  # has one way to go
            probabilities[-1] = 0.0
            probabilities[-1, classes[end - 1]] = 1.0
        first, last = bisect_left(places, start), bisect_left(places, end)
        known += labels[done:first]
        greedy, done = tuple(labels[first:last]), last
        following = tuple(labels[last : last + model.order - 1])
        best, share = search(probabilities, before, tuple(known[-model.order :]), following, model, config)
        known += best
        if best != greedy:
            classes[start:end] = aligned(probabilities, before, best)
            confidences[start:end] = share
