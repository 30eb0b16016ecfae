"""How an operating point is found: what scores are worth, and from which score on F1 is best.

What a score is worth rises with it, and is fitted to how many objects the photos had and to whether detections were
right. Whether a photo is better chosen from by the sum of what its scores are worth or by one threshold for all photos,
photos tell that neither was fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.models.operating_point import ClassPoint, OperatingPoint, rounded
from pipeline.stages.evaluate.data import Judged
from pipeline.stages.evaluate.error_analysis import CORRECT, IGNORED, Verdicts

__all__ = ["Seen", "counting_errors", "expected", "fit", "numbers_true"]

FOLDS: Final = 5
MOST_PHOTOS: Final = 3000  # more would tell no more of two dozen numbers
KNOTS: Final = 24  # scores between which what they are worth goes straight
EACH: Final = 0.3  # what it weighs that a detection is right, beside that the number of a photo is
WHOLE: Final = 2.0  # what it weighs that the number of all photos together is right
ROUNDS: Final = 6  # of least squares, each with the weights that make it one of absolute errors
FIRM: Final = 1e4  # what it weighs that nothing is worth more than 1

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def fit(judged: Judged, verdicts: Verdicts, model: str, split: str) -> OperatingPoint:
    """Return the operating point of a model that found in these photos; of the classes that have something to find."""
    classes, true = {}, numbers_true(judged)
    for number, name in enumerate(judged.classes, start=1):
        own = Seen.of(judged, verdicts, number)
        if own.hits.any():
            classes[name] = _class_point(own, true[own.shown, number])
    return OperatingPoint(model, len(judged.images), split, classes)


@dataclass(frozen=True)
class Seen:
    """One class's detections that count, best first, in the photos whose annotation shows the class.

    Attributes:
        shown: (B,) true for those photos.
        images: (K,) their number among those photos.
        scores: (K,) falling.
        hits: (K,) true where one is right.
        missed: how many objects nothing is right about.
    """

    shown: Bools
    images: Ints
    scores: Floats
    hits: Bools
    missed: int

    @classmethod
    def of(cls, judged: Judged, verdicts: Verdicts, number: int) -> Seen:
        """Return the detections of a label."""
        found, order = judged.detections, verdicts.matches.order
        labelled = judged.truths.labelled
        shown = np.ones(len(judged.images), np.bool_) if labelled is None else labelled[:, number]
        rows = order[(found.labels[order] == number) & (verdicts.kinds[order] != IGNORED)]
        places = np.cumsum(shown) - 1
        missed = int((verdicts.missed() & (judged.truths.labels == number)).sum())
        scores = found.scores[rows].astype(np.float64)
        return cls(shown, places[found.images[rows]], scores, verdicts.kinds[rows] == CORRECT, missed)

    @property
    def photos(self) -> int:
        """How many photos show the class."""
        return int(self.shown.sum())

    def of_photos(self, wanted: Bools) -> Seen:
        """Return the detections of some of the photos that show the class, numbered anew."""
        rows, numbers = wanted[self.images], np.cumsum(wanted) - 1
        shown = np.ones(int(wanted.sum()), np.bool_)
        return Seen(shown, numbers[self.images[rows]], self.scores[rows], self.hits[rows], 0)

    def numbers_above(self, thresholds: Floats) -> Ints:
        """Return (T, B) how many detections each photo has from each threshold on."""
        return np.stack(
            [np.bincount(self.images[self.scores >= least], minlength=self.photos) for least in thresholds.tolist()]
        )


def _class_point(seen: Seen, true: Ints) -> ClassPoint:
    hits = np.cumsum(seen.hits)
    positives = int(hits[-1]) + seen.missed
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + positives)
    last = np.append(seen.scores[1:] < seen.scores[:-1], True)  # a threshold takes all of the same score
    best = int(np.flatnonzero(last)[np.argmax(f1[last])])
    some = np.arange(len(true)) % -(-len(true) // MOST_PHOTOS) == 0
    return ClassPoint(
        threshold=float(seen.scores[best]),
        precision=round(float(hits[best] / (best + 1)), 4),
        recall=round(float(hits[best] / positives), 4),
        f1=round(float(f1[best]), 4),
        **_counting(seen.of_photos(some), true[some]),
    )


def _counting(seen: Seen, true: Ints) -> dict[str, Any]:
    """Return what of a class's point is fitted to the numbers of objects."""
    scores, probabilities = _calibrated(seen, true)
    return {
        "counting": _counting_threshold(seen, true),
        "by_number": _by_number(seen, true),
        "scores": tuple(float(score) for score in scores),
        "probabilities": tuple(float(value) for value in probabilities),
    }


def _by_number(seen: Seen, true: Ints) -> bool:
    """Return whether sums come nearer to the numbers of photos that they were not fitted to than a threshold does."""
    ours = theirs = 0.0
    for fold in range(FOLDS):
        kept = np.arange(len(true)) % FOLDS == fold
        fitted, other = seen.of_photos(~kept), seen.of_photos(kept)
        if not fitted.hits.any():
            continue
        worth = np.interp(other.scores, *_calibrated(fitted, true[~kept]))
        number = rounded(np.bincount(other.images, worth, minlength=other.photos))
        above = other.numbers_above(np.array([_counting_threshold(fitted, true[~kept])]))[0]
        ours += float(np.abs(number - true[kept]).sum())
        theirs += float(np.abs(above - true[kept]).sum())
    return ours <= theirs


def _counting_threshold(seen: Seen, true: Ints) -> float:
    """Return the score from which on the mean absolute error of the number of detections is least."""
    tried = np.unique(np.quantile(seen.scores, np.linspace(0, 1, 201), method="lower"))
    errors = np.abs(seen.numbers_above(tried) - true).mean(axis=1)
    return float(tried[np.argmin(errors)])


def _calibrated(seen: Seen, true: Ints) -> tuple[Floats, Floats]:
    """Return rising scores and what they are worth, from 0 to 1, rising too.

    The worth of a score is a sum of steps of at least 0, one at each knot, and of all together at most 1. They are
    fitted to three things at once: that a photo's sum is its number of objects, by absolute errors, for some photos
    have ten times as many as others; that the sum of all is theirs; and that a detection is worth 1 if it is right.
    """
    from scipy.optimize import nnls

    knots = np.unique(np.quantile(seen.scores, np.linspace(0, 1, KNOTS + 1)[:-1], method="lower"))
    bins = np.searchsorted(knots, seen.scores, side="right") - 1
    sizes = np.bincount(bins, minlength=len(knots)).astype(np.float64)
    right = np.bincount(bins[seen.hits], minlength=len(knots))
    each = EACH * np.tril(np.ones((len(knots), len(knots)))) * np.sqrt(sizes)[:, None]
    rate = EACH * np.divide(right, np.sqrt(sizes), out=np.zeros(len(knots)), where=sizes > 0)
    numbers, weights = seen.numbers_above(knots).T.astype(np.float64), np.ones(len(true))
    whole = WHOLE / np.sqrt(len(true))
    fixed = np.concatenate([whole * numbers.sum(axis=0, keepdims=True), each, np.full((1, len(knots)), FIRM)])
    slack = np.append(np.zeros(len(true) + len(fixed) - 1), FIRM)[:, None]  # what is left of 1 above the highest score
    for _ in range(ROUNDS):
        heavy = np.sqrt(weights / weights.mean())
        wanted = np.hstack([np.concatenate([numbers * heavy[:, None], fixed]), slack])
        steps = nnls(wanted, np.concatenate([true * heavy, [whole * true.sum()], rate, [FIRM]]))[0][:-1]
        weights = 1 / np.maximum(np.abs(numbers @ steps - true), 1.0)
    middles = np.bincount(bins, seen.scores, minlength=len(knots)) / np.maximum(sizes, 1)
    return middles, np.minimum(np.cumsum(steps), 1.0)


def expected(point: ClassPoint, seen: Seen) -> Floats:
    """Return (B,) how many objects of a class to expect in each photo."""
    return np.bincount(seen.images, point.probability(seen.scores), minlength=seen.photos).astype(np.float64)


def numbers_true(judged: Judged) -> Ints:
    """Return (B, C) how many objects each photo has of each label."""
    truths = judged.truths
    counted = np.ones(len(truths), np.bool_) if truths.ignore is None else ~truths.ignore
    keys = truths.images[counted] * truths.classes + truths.labels[counted]
    numbers = np.bincount(keys.astype(np.int64), minlength=len(judged.images) * truths.classes)
    return numbers.reshape(-1, truths.classes)


def counting_errors(judged: Judged, verdicts: Verdicts, point: OperatingPoint) -> dict[str, tuple[Floats, ...]]:
    """Return by class how far off the numbers of chosen detections are in each photo (B,): ours, and a threshold's.

    NaN where a photo's annotation does not show the class; under "" the mean over the classes.
    """
    errors: dict[str, tuple[Floats, ...]] = {}
    true = numbers_true(judged)
    for number, name in enumerate(judged.classes, start=1):
        if (own := point.classes.get(name)) is not None:
            seen = Seen.of(judged, verdicts, number)
            theirs = seen.numbers_above(np.array([own.counting]))[0]
            there = np.bincount(seen.images, minlength=seen.photos)
            ours = np.minimum(rounded(expected(own, seen)), there) if own.by_number else theirs
            errors[name] = tuple(
                _spread(np.abs(each - true[seen.shown, number]), seen.shown) for each in (ours, theirs)
            )
    if errors:
        errors[""] = tuple(_mean([pair[which] for pair in errors.values()]) for which in (0, 1))
    return errors


def _spread(values: npt.NDArray[Any], shown: Bools) -> Floats:
    """Return the values of some photos in their places among all."""
    spread = np.full(len(shown), np.nan)
    spread[shown] = values
    return spread


def _mean(parts: Sequence[Floats]) -> Floats:
    known = ~np.isnan(parts)
    return np.where(known.any(axis=0), np.nansum(parts, axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)
