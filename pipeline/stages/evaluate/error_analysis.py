"""What each detection is, and what each kind of error costs: the error analysis of the SSD paper, after Hoiem.

Of a detection: correct; a duplicate of a better one; localisation, where it lies on an object of its class but not well
enough; class, where it lies well on an object of another one; background. Of a truth: found or missed. An error's cost
is what the average precision would gain if errors of its kind were put right: a box that lies badly or has another
class takes its object's place if that is free; duplicates and background go; misses are no longer asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ssd import (
    NOT_COUNTED,
    TRUE_POSITIVE,
    Curve,
    DetectionArrays,
    GroundTruthArrays,
    Matches,
    average_precision,
    match_arrays,
    match_outcomes,
)

__all__ = ["ERROR_KINDS", "OUTCOMES", "ErrorAnalysis", "analyse_errors", "ap_gain_if_fixed"]

BACKGROUND_IOU: Final = 0.1  # Hoiem: a detection of the right class with less overlap is about nothing
CORRECT, IGNORED, DUPLICATE, LOCALISATION, CLASS, BACKGROUND = range(6)
OUTCOMES: Final = ("correct", "ignored", "duplicate", "localisation", "class", "background")
MISSED: Final = "missed"
ERROR_KINDS: Final = (*OUTCOMES[DUPLICATE:], MISSED)

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ErrorAnalysis:
    """What became of each detection and each truth at an IoU.

    Attributes:
        matches: each detection with the truth of its class that it is about.
        outcomes: (N,) places in `KINDS`.
        ground_truth: (N,) the truth that a detection is about, or lies on as one of another class; -1 for background.
        iou: (N,) the IoU with it.
        detected: (G,) true where a detection that is correct is about a truth.
    """

    matches: Matches
    outcomes: Ints
    ground_truth: Ints
    iou: Floats
    detected: Bools

    def counts(self, mask: Bools | None = None) -> dict[str, Ints]:
        """Return (C,) how many of each label there are of each kind of detection, of some of them or of all."""
        labels, classes = self.matches.detections.labels, self.matches.ground_truths.classes
        shown = np.ones(len(labels), np.bool_) if mask is None else mask
        return {
            kind: np.bincount(labels[shown & (self.outcomes == place)], minlength=classes)
            for place, kind in enumerate(OUTCOMES)
        }

    def missed(self, mask: Bools | None = None) -> Bools:
        """Return (G,) which truths nothing correct is about, not even among some of the detections."""
        found = self.detected
        if mask is not None:
            found = np.zeros(len(self.detected), np.bool_)
            found[self.ground_truth[mask & (self.outcomes == CORRECT)]] = True
        ignore = self.matches.ground_truths.ignore
        return ~found if ignore is None else ~found & ~ignore


def analyse_errors(detections: DetectionArrays, ground_truths: GroundTruthArrays, iou: float = 0.5) -> ErrorAnalysis:
    """Classify each detection at an IoU."""
    matches = match_arrays(detections, ground_truths)
    result = match_outcomes(matches, iou)
    across, on = _match_any_class(detections, ground_truths)
    other = (
        (on >= iou) & (ground_truths.labels[across] != detections.labels)
        if len(ground_truths)
        else np.zeros(len(on), np.bool_)
    )
    kinds = np.full(len(detections), BACKGROUND)
    kinds[matches.iou >= BACKGROUND_IOU] = LOCALISATION
    kinds[other] = CLASS
    kinds[matches.iou >= iou] = DUPLICATE
    kinds[result == NOT_COUNTED] = IGNORED
    kinds[result == TRUE_POSITIVE] = CORRECT
    truth = np.where(kinds == CLASS, across, np.where(kinds == BACKGROUND, -1, matches.ground_truth))
    overlap = np.where(kinds == CLASS, on, matches.iou)
    found = np.zeros(len(ground_truths), np.bool_)
    found[matches.ground_truth[kinds == CORRECT]] = True
    return ErrorAnalysis(matches, kinds, truth, overlap, found)


def _match_any_class(detections: DetectionArrays, ground_truths: GroundTruthArrays) -> tuple[Ints, Floats]:
    """Return for each detection the truth of any class, not ignored, that it overlaps most, and the IoU."""
    count = np.zeros(len(ground_truths), np.bool_) if ground_truths.ignore is None else ground_truths.ignore
    rows = np.flatnonzero(~count)
    ones = np.ones(len(rows), np.int64)
    anything = DetectionArrays(
        detections.images, np.ones(len(detections), np.int64), detections.scores, detections.boxes
    )
    matches = match_arrays(anything, GroundTruthArrays(ground_truths.images[rows], ones, ground_truths.boxes[rows], 2))
    there = matches.ground_truth >= 0
    return np.where(there, rows[matches.ground_truth] if len(rows) else 0, 0), np.where(there, matches.iou, 0.0)


def ap_gain_if_fixed(analysis: ErrorAnalysis) -> Mapping[str, Floats]:
    """Return by how much the all-point average precision (C,) of each label would be better without each error."""
    matches, plain = analysis.matches, _RankedDetections.from_analysis(analysis)
    before = plain.average_precisions()
    fixed = {kind: plain.drop(analysis.outcomes == OUTCOMES.index(kind)) for kind in ("duplicate", "background")}
    fixed |= {kind: plain.with_errors_fixed(analysis, OUTCOMES.index(kind)) for kind in ("localisation", "class")}
    missed = np.bincount(
        matches.ground_truths.labels[analysis.missed()].astype(np.int64), minlength=matches.ground_truths.classes
    )
    fixed[MISSED] = _RankedDetections(plain.labels, plain.scores, plain.outcomes, plain.positives - missed)
    return {kind: fixed[kind].average_precisions() - before for kind in ERROR_KINDS}


@dataclass(frozen=True)
class _RankedDetections:
    """What average precision is counted from: labels and scores (N,), outcomes (N,), positives (C,)."""

    labels: Ints
    scores: Any
    outcomes: Ints
    positives: Ints

    @classmethod
    def from_analysis(cls, analysis: ErrorAnalysis) -> _RankedDetections:
        rows = analysis.matches.detections
        result = np.where(analysis.outcomes == IGNORED, NOT_COUNTED, (analysis.outcomes == CORRECT).astype(np.int64))
        return cls(rows.labels.astype(np.int64), rows.scores, result, analysis.matches.ground_truths.positives())

    def drop(self, mask: Bools) -> _RankedDetections:
        return _RankedDetections(self.labels, self.scores, np.where(mask, NOT_COUNTED, self.outcomes), self.positives)

    def with_errors_fixed(self, analysis: ErrorAnalysis, outcome: int) -> _RankedDetections:
        """Return the ranking with the best such detection of each truth that is not found as its finder."""
        rows = np.flatnonzero(analysis.outcomes == outcome)
        rows = rows[np.argsort(-self.scores[rows], kind="stable")]
        truths = analysis.ground_truth[rows]
        first = np.zeros(len(rows), np.bool_)
        first[np.unique(truths, return_index=True)[1]] = True
        right = first & analysis.missed()[truths]
        result, labels = self.outcomes.copy(), self.labels.copy()
        result[rows] = np.where(right, TRUE_POSITIVE, NOT_COUNTED)
        labels[rows] = analysis.matches.ground_truths.labels[truths]
        return _RankedDetections(labels, self.scores, result, self.positives)

    def average_precisions(self) -> Floats:
        order = np.argsort(-self.scores, kind="stable")
        order = order[self.outcomes[order] != NOT_COUNTED]
        found = []
        for label, count in enumerate(self.positives.tolist()):
            own = order[self.labels[order] == label]
            curve = Curve(self.scores[own], np.cumsum(self.outcomes[own] == TRUE_POSITIVE), count)
            found.append(average_precision(curve))
        return np.array(found)
