"""Figures of worn lines: how far from real ones, how various, how legible, how easily told apart. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trainer.metrics import CharacterErrors

Matrix = npt.NDArray[np.floating]

LEGIBLE_CER = 0.05


def frechet_distance(first: Matrix, second: Matrix) -> float:
    """Fréchet distance of two normal distributions fitted to features, as in FID (Heusel et al. 2017).

    Args:
        first, second: [samples, features]; more samples than features, or both distances are too large alike.

    >>> x = np.random.default_rng(1).standard_normal((500, 3))
    >>> bool(frechet_distance(x, x) < 1e-8), round(float(frechet_distance(x, x + [2.0, 0, 0])), 6)
    (True, 4.0)
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    apart = ((first.mean(0) - second.mean(0)) ** 2).sum()
    one, other = (
        np.asarray(np.cov(x, rowvar=False), np.float64).reshape(x.shape[1], x.shape[1]) for x in (first, second)
    )
    root = _square_root(one)
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ other @ root), 0, None)).sum()
    return float(max(0.0, apart + np.trace(one) + np.trace(other) - 2 * shared))


def _square_root(matrix: Matrix) -> npt.NDArray[np.float64]:
    """Of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)


def diversity(looks: Matrix, real: Matrix) -> float:
    """How far styles spread, against real lines: 0 where all worn lines look alike, about 1 where they vary as much.

    The mean over the features of the ratio of their standard deviations.

    Args:
        looks: [texts, styles, features], the same text in several styles.
        real: [lines, features] of the same kind.
    """
    spread = np.asarray(looks, np.float64).std(axis=1).mean(axis=0)
    return float((spread / np.maximum(1e-6, np.asarray(real, np.float64).std(axis=0))).mean())


LOOKS = ("ink", "paper", "white", "spread of the paper", "grain", "steepest steps", "stains")


def look_of(grey: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """[B, 7] plain measures of a look that a text hardly changes: tones, contrast, grain and stains.

    Args:
        grey: [B, 40, W] of 0 black to 1 white.

    Returns:
        As in `LOOKS`: tone of the ink (2nd percentile) and of the paper (median, 95th), spread of the paper's tone,
        grain (neighbours' differences in the lighter half), blur (steepest steps), and what is left in coarse cells of
        8 px.
    """
    grey = np.asarray(grey, np.float64)
    flat = grey.reshape(len(grey), -1)
    ink, middle, paper = np.percentile(flat, [2, 50, 95], axis=1)
    across = np.abs(np.diff(grey, axis=2))
    light = (grey[:, :, 1:] > middle[:, None, None]) & (grey[:, :, :-1] > middle[:, None, None])
    rough = (across * light).sum(axis=(1, 2)) / np.maximum(1, light.sum(axis=(1, 2)))
    steep = np.percentile(across.reshape(len(grey), -1), 99, axis=1)
    height, width = grey.shape[1] // 8 * 8, grey.shape[2] // 8 * 8
    cells = np.percentile(grey[:, :height, :width].reshape(len(grey), height // 8, 8, width // 8, 8), 90, axis=(2, 4))
    stains = cells.reshape(len(grey), -1).std(axis=1)
    spread = paper - np.percentile(flat, 60, axis=1)
    return np.stack([ink, middle, paper, spread, rough, steep, stains], axis=1)


def legible_share(truths: Sequence[str], readings: Sequence[str]) -> float:
    """Share of the lines that were read with a CER below 5 %.

    >>> legible_share(["abc", "abd"], ["abc", "xyz"])
    0.5
    """
    rates = [CharacterErrors.of(truth, read).rate for truth, read in zip(truths, readings, strict=True)]
    return float(np.mean([rate < LEGIBLE_CER for rate in rates])) if rates else 0.0


def told_apart(
    made: Matrix, real: Matrix, documents: Sequence[str], seeds: int = 5, folds: int = 5
) -> npt.NDArray[np.float64]:
    """How well a logistic regression tells made from real samples of documents that it was not fitted to.

    Fitted by iteratively reweighted least squares with a ridge; documents are divided anew for each seed.

    Args:
        made, real: [pairs, features], a row of each belonging together (of the same text, say).
        documents: of the pairs; a document is in one fold only.

    Returns:
        [pairs] share of right answers; 0.5 is chance.
    """
    count = len(documents)
    if len(made) != count or len(real) != count or len(set(documents)) < folds:
        raise ValueError(
            f"{len(made)} and {len(real)} samples, {count} names of {len(set(documents))} documents, {folds} folds"
        )
    values = np.concatenate([made, real]).astype(np.float64)
    kinds = np.repeat([0.0, 1.0], count)
    right = np.zeros(2 * count)
    for seed in range(seeds):
        part = np.tile(_folds(np.random.default_rng(seed), documents, folds), 2)
        for fold in range(folds):
            train, test = part != fold, part == fold
            mean, deviation = values[train].mean(0), values[train].std(0) + 1e-6
            scaled = np.column_stack([(values - mean) / deviation, np.ones(len(values))])
            weights = _logistic(scaled[train], kinds[train])
            right[test] += (scaled[test] @ weights > 0) == (kinds[test] > 0.5)
    return (right[:count] + right[count:]) / (2 * seeds)


def _folds(rng: np.random.Generator, documents: Sequence[str], folds: int) -> npt.NDArray[np.int64]:
    """The fold of each pair: documents in any order, the large ones first, each to the smallest fold."""
    names, where, sizes = np.unique(np.asarray(documents), return_inverse=True, return_counts=True)
    fold_of, filled = np.zeros(len(names), np.int64), np.zeros(folds)
    order = rng.permutation(len(names))
    for name in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of[name] = int(np.argmin(filled + 1e-6 * rng.random(folds)))
        filled[fold_of[name]] += sizes[name]
    return np.asarray(fold_of[where])


def mean_with_interval(
    values: npt.NDArray[np.floating], documents: Sequence[str], seed: int = 1, draws: int = 2000
) -> tuple[float, float, float]:
    """The mean of values with its 95 % interval, a bootstrap (Efron 1979) over documents.

    >>> mean_with_interval(np.array([1.0, 1.0, 1.0]), ["a", "a", "b"])
    (1.0, 1.0, 1.0)
    """
    _, where = np.unique(np.asarray(documents), return_inverse=True)
    sums, counts = np.bincount(where, values), np.bincount(where)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return float(np.mean(values)), float(low), float(high)


def _logistic(values: npt.NDArray[np.float64], kinds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weights = np.zeros(values.shape[1])
    ridge = np.full(values.shape[1], 0.02 * len(values))
    ridge[-1] = 1e-6
    for _ in range(12):
        chance = 1 / (1 + np.exp(-np.clip(values @ weights, -30, 30)))
        bend = np.maximum(chance * (1 - chance), 1e-4)
        slope = values.T @ (chance - kinds) + ridge * weights
        weights = weights - np.linalg.solve((values.T * bend) @ values + np.diag(ridge), slope)
    return weights
