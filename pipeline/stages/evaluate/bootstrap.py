"""How sure a figure is: photos are drawn again and again, with replacement, and the figure counted from each drawing.

What is drawn are whole photos, because detections of one photo are alike. A photo that is drawn twice counts twice, so
that a drawing is a weight for each photo, and average precision is counted from sums of weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ssd import NOT_COUNTED, TRUE_POSITIVE, Matches, Points, match_outcomes

__all__ = [
    "BOOTSTRAP_SAMPLES",
    "ClassRanking",
    "bootstrap_aps",
    "bootstrap_counts",
    "percentile_interval",
    "rank_classes",
]

BOOTSTRAP_SAMPLES: Final = 1000
MAX_CHUNK_WEIGHTS: Final = 1 << 24  # weights of detections that are in memory at a time

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassRanking:
    """One class's detections that count, best first, K of them.

    Attributes:
        images: (K,) the number of the photo of each.
        hits: (K,) true where it is right.
        positives: (B,) how many are to be found in each photo.
    """

    images: Ints
    hits: npt.NDArray[np.bool_]
    positives: Ints


def rank_classes(matches: Matches, iou: float, photos: int) -> list[ClassRanking]:
    """Return the detections of each class from label 1, at an IoU, of so many photos."""
    result, truths, found = match_outcomes(matches, iou), matches.ground_truths, matches.detections
    counted = np.ones(len(truths), np.bool_) if truths.ignore is None else ~truths.ignore
    classes = []
    for label in range(1, truths.classes):
        rows = matches.order[found.labels[matches.order] == label]
        rows = rows[result[rows] != NOT_COUNTED]
        own = truths.images[counted & (truths.labels == label)]
        positives = np.bincount(own.astype(np.int64), minlength=photos)
        classes.append(ClassRanking(found.images[rows].astype(np.int64), result[rows] == TRUE_POSITIVE, positives))
    return classes


def bootstrap_counts(photos: int, count: int = BOOTSTRAP_SAMPLES, seed: int = 0) -> npt.NDArray[np.uint16]:
    """Return (R, B) how often each photo was drawn in each of so many drawings."""
    generator = np.random.default_rng(seed)
    drawn = np.zeros((count, photos), np.uint16)
    for row in drawn:
        row[:] = np.bincount(generator.integers(photos, size=photos), minlength=photos)
    return drawn


def bootstrap_aps(ranking: ClassRanking, counts: npt.NDArray[np.uint16], points: Points = 11) -> Floats:
    """Return (R,) the average precision of a class in each drawing, over 11 points or all; NaN with nothing to find."""
    count = _eleven_points if points == 11 else _all_points
    return np.concatenate([count(*part) for part in _pr_segments(ranking, counts)])


def percentile_interval(values: Floats, share: float = 0.95) -> tuple[float, float]:
    """Return between which figures that share of the drawings lies; NaN without any."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def _pr_segments(ranking: ClassRanking, counts: npt.NDArray[np.uint16]) -> Iterator[tuple[Floats, Ints, Floats]]:
    """Yield precision (R, H) made monotone and hits (R, H) at the places that are right, and positives (R,)."""
    step = max(1, MAX_CHUNK_WEIGHTS // max(len(ranking.images), 1))
    at = np.flatnonzero(ranking.hits)
    for start in range(0, len(counts), step):
        part = counts[start : start + step]
        seen = np.cumsum(part[:, ranking.images], axis=1, dtype=np.int32)[:, at]
        hits = np.cumsum(part[:, ranking.images[at]], axis=1, dtype=np.int64)
        precision = np.divide(hits, seen, out=np.zeros(hits.shape), where=seen > 0)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        yield best, hits, part.astype(np.float64) @ ranking.positives


def _eleven_points(best: Floats, hits: Ints, positives: Floats) -> Floats:
    """Return the mean of the best precision at recalls 0, .1, ..., 1 and above."""
    padded = np.concatenate([best, np.zeros((len(best), 1))], axis=1)
    total = np.zeros(len(best))
    for tenth in range(11):
        needed = -(-tenth * positives // 10)
        places = (hits < np.maximum(needed, 1)[:, None]).sum(axis=1)
        total += padded[np.arange(len(best)), places]
    return np.where(positives > 0, total / 11, np.nan)


def _all_points(best: Floats, hits: Ints, positives: Floats) -> Floats:
    gained = np.diff(hits, axis=1, prepend=0)
    return np.where(positives > 0, (best * gained).sum(axis=1) / np.maximum(positives, 1), np.nan)
