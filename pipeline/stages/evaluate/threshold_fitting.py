"""Fit an operating point: calibrate scores to probabilities, and find the threshold of the best F1.

The probability of a score rises with it. It is fitted to the number of objects in the photos and to which detections
were right. Photos that neither was fitted to decide whether a photo's detections are selected by the sum of their
probabilities or by one threshold for all photos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.models.operating_point import ClassPoint, OperatingPoint, round_half_up
from pipeline.stages.evaluate.data import EvaluationData
from pipeline.stages.evaluate.error_analysis import CORRECT, IGNORED, ErrorAnalysis

__all__ = ["ClassDetections", "count_errors", "count_ground_truths", "expected_counts", "fit_operating_point"]

FOLDS: Final = 5
MAX_PHOTOS: Final = 3000  # more would tell no more of two dozen numbers
KNOTS: Final = 24  # the calibration is linear between so many scores
DETECTION_WEIGHT: Final = 0.3  # weight of each detection being right, relative to the count of a photo being right
TOTAL_WEIGHT: Final = 2.0  # what it weighs that the number of all photos together is right
IRLS_ITERATIONS: Final = 6  # of least squares, each with the weights that make it one of absolute errors
CONSTRAINT_WEIGHT: Final = 1e4  # weight of the constraint that no probability exceeds 1

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def fit_operating_point(data: EvaluationData, analysis: ErrorAnalysis, model: str, split: str) -> OperatingPoint:
    """Return the operating point of a model that found in these photos; of the classes that have something to find."""
    classes, true = {}, count_ground_truths(data)
    for number, name in enumerate(data.classes, start=1):
        own = ClassDetections.from_data(data, analysis, number)
        if own.hits.any():
            classes[name] = _fit_class(own, true[own.labelled_photos, number])
    return OperatingPoint(model, len(data.images), split, classes)


@dataclass(frozen=True)
class ClassDetections:
    """One class's detections that count, best first, in the photos whose annotation shows the class.

    Attributes:
        labelled_photos: (B,) true for those photos.
        images: (K,) their number among those photos.
        scores: (K,) falling.
        hits: (K,) true where one is right.
        num_missed: how many objects nothing is right about.
    """

    labelled_photos: Bools
    images: Ints
    scores: Floats
    hits: Bools
    num_missed: int

    @classmethod
    def from_data(cls, data: EvaluationData, analysis: ErrorAnalysis, number: int) -> ClassDetections:
        """Return the detections of a label."""
        found, order = data.detections, analysis.matches.order
        labelled = data.ground_truths.labelled
        shown = np.ones(len(data.images), np.bool_) if labelled is None else labelled[:, number]
        rows = order[(found.labels[order] == number) & (analysis.outcomes[order] != IGNORED)]
        places = np.cumsum(shown) - 1
        missed = int((analysis.missed() & (data.ground_truths.labels == number)).sum())
        scores = found.scores[rows].astype(np.float64)
        return cls(shown, places[found.images[rows]], scores, analysis.outcomes[rows] == CORRECT, missed)

    @property
    def num_photos(self) -> int:
        """How many photos show the class."""
        return int(self.labelled_photos.sum())

    def select_photos(self, mask: Bools) -> ClassDetections:
        """Select the detections of some of the photos that label the class, renumbered."""
        rows, numbers = mask[self.images], np.cumsum(mask) - 1
        shown = np.ones(int(mask.sum()), np.bool_)
        return ClassDetections(shown, numbers[self.images[rows]], self.scores[rows], self.hits[rows], 0)

    def counts_above(self, thresholds: Floats) -> Ints:
        """Return (T, B) how many detections each photo has from each threshold on."""
        return np.stack(
            [np.bincount(self.images[self.scores >= least], minlength=self.num_photos) for least in thresholds.tolist()]
        )


def _fit_class(detections: ClassDetections, true_counts: Ints) -> ClassPoint:
    hits = np.cumsum(detections.hits)
    positives = int(hits[-1]) + detections.num_missed
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + positives)
    last = np.append(detections.scores[1:] < detections.scores[:-1], True)  # a threshold takes all of the same score
    best = int(np.flatnonzero(last)[np.argmax(f1[last])])
    some = np.arange(len(true_counts)) % -(-len(true_counts) // MAX_PHOTOS) == 0
    return ClassPoint(
        threshold=float(detections.scores[best]),
        precision=round(float(hits[best] / (best + 1)), 4),
        recall=round(float(hits[best] / positives), 4),
        f1=round(float(f1[best]), 4),
        **_fit_counts(detections.select_photos(some), true_counts[some]),
    )


def _fit_counts(detections: ClassDetections, true_counts: Ints) -> dict[str, Any]:
    """Fit the parts of a class's operating point that depend on the numbers of objects."""
    scores, probabilities = _fit_calibration(detections, true_counts)
    return {
        "count_threshold": _fit_count_threshold(detections, true_counts),
        "use_count_calibration": _count_based_wins(detections, true_counts),
        "scores": tuple(float(score) for score in scores),
        "probabilities": tuple(float(value) for value in probabilities),
    }


def _count_based_wins(detections: ClassDetections, true_counts: Ints) -> bool:
    """Return whether sums come nearer to the numbers of photos that they were not fitted to than a threshold does."""
    ours = theirs = 0.0
    for fold in range(FOLDS):
        kept = np.arange(len(true_counts)) % FOLDS == fold
        fitted, other = detections.select_photos(~kept), detections.select_photos(kept)
        if not fitted.hits.any():
            continue
        probabilities = np.interp(other.scores, *_fit_calibration(fitted, true_counts[~kept]))
        number = round_half_up(np.bincount(other.images, probabilities, minlength=other.num_photos))
        above = other.counts_above(np.array([_fit_count_threshold(fitted, true_counts[~kept])]))[0]
        ours += float(np.abs(number - true_counts[kept]).sum())
        theirs += float(np.abs(above - true_counts[kept]).sum())
    return ours <= theirs


def _fit_count_threshold(detections: ClassDetections, true_counts: Ints) -> float:
    """Return the score from which on the mean absolute error of the number of detections is least."""
    tried = np.unique(np.quantile(detections.scores, np.linspace(0, 1, 201), method="lower"))
    errors = np.abs(detections.counts_above(tried) - true_counts).mean(axis=1)
    return float(tried[np.argmin(errors)])


def _fit_calibration(detections: ClassDetections, true_counts: Ints) -> tuple[Floats, Floats]:
    """Return rising scores and their probabilities, from 0 to 1, rising too.

    The probability of a score is a sum of steps of at least 0, one at each knot, that add up to at most 1. They are
    fitted to three things at once: that a photo's sum is its number of objects (by absolute errors, for some photos
    have ten times as many as others); that the sum of all is the number of all; and that right detections have 1.
    """
    from scipy.optimize import nnls

    knots = np.unique(np.quantile(detections.scores, np.linspace(0, 1, KNOTS + 1)[:-1], method="lower"))
    bins = np.searchsorted(knots, detections.scores, side="right") - 1
    sizes = np.bincount(bins, minlength=len(knots)).astype(np.float64)
    right = np.bincount(bins[detections.hits], minlength=len(knots))
    each = DETECTION_WEIGHT * np.tril(np.ones((len(knots), len(knots)))) * np.sqrt(sizes)[:, None]
    rate = DETECTION_WEIGHT * np.divide(right, np.sqrt(sizes), out=np.zeros(len(knots)), where=sizes > 0)
    numbers, weights = detections.counts_above(knots).T.astype(np.float64), np.ones(len(true_counts))
    whole = TOTAL_WEIGHT / np.sqrt(len(true_counts))
    fixed = np.concatenate(
        [whole * numbers.sum(axis=0, keepdims=True), each, np.full((1, len(knots)), CONSTRAINT_WEIGHT)]
    )
    slack = np.append(np.zeros(len(true_counts) + len(fixed) - 1), CONSTRAINT_WEIGHT)[
        :, None
    ]  # what is left of 1 above the highest score
    for _ in range(IRLS_ITERATIONS):
        heavy = np.sqrt(weights / weights.mean())
        wanted = np.hstack([np.concatenate([numbers * heavy[:, None], fixed]), slack])
        steps = nnls(
            wanted, np.concatenate([true_counts * heavy, [whole * true_counts.sum()], rate, [CONSTRAINT_WEIGHT]])
        )[0][:-1]
        weights = 1 / np.maximum(np.abs(numbers @ steps - true_counts), 1.0)
    middles = np.bincount(bins, detections.scores, minlength=len(knots)) / np.maximum(sizes, 1)
    return middles, np.minimum(np.cumsum(steps), 1.0)


def expected_counts(point: ClassPoint, detections: ClassDetections) -> Floats:
    """Return (B,) how many objects of a class to expect in each photo."""
    return np.bincount(detections.images, point.probability(detections.scores), minlength=detections.num_photos).astype(
        np.float64
    )


def count_ground_truths(data: EvaluationData) -> Ints:
    """Return (B, C) how many objects each photo has of each label."""
    truths = data.ground_truths
    counted = np.ones(len(truths), np.bool_) if truths.ignore is None else ~truths.ignore
    keys = truths.images[counted] * truths.classes + truths.labels[counted]
    numbers = np.bincount(keys.astype(np.int64), minlength=len(data.images) * truths.classes)
    return numbers.reshape(-1, truths.classes)


def count_errors(data: EvaluationData, analysis: ErrorAnalysis, point: OperatingPoint) -> dict[str, tuple[Floats, ...]]:
    """Return by class how far off the numbers of chosen detections are in each photo (B,): ours, and a threshold's.

    NaN where a photo's annotation does not show the class; under "" the mean over the classes.
    """
    errors: dict[str, tuple[Floats, ...]] = {}
    true = count_ground_truths(data)
    for number, name in enumerate(data.classes, start=1):
        if (own := point.classes.get(name)) is not None:
            seen = ClassDetections.from_data(data, analysis, number)
            theirs = seen.counts_above(np.array([own.count_threshold]))[0]
            there = np.bincount(seen.images, minlength=seen.num_photos)
            ours = np.minimum(round_half_up(expected_counts(own, seen)), there) if own.use_count_calibration else theirs
            errors[name] = tuple(
                _scatter(np.abs(each - true[seen.labelled_photos, number]), seen.labelled_photos)
                for each in (ours, theirs)
            )
    if errors:
        errors[""] = tuple(_nan_mean([pair[which] for pair in errors.values()]) for which in (0, 1))
    return errors


def _scatter(values: npt.NDArray[Any], labelled_photos: Bools) -> Floats:
    """Return the values of some photos in their places among all."""
    spread = np.full(len(labelled_photos), np.nan)
    spread[labelled_photos] = values
    return spread


def _nan_mean(values: Sequence[Floats]) -> Floats:
    known = ~np.isnan(values)
    return np.where(known.any(axis=0), np.nansum(values, axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)
