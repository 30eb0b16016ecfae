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
    DetectionRows,
    Matches,
    TruthRows,
    average_precision,
    match_rows,
    outcomes,
)

__all__ = ["ERRORS", "KINDS", "Verdicts", "costs", "judge"]

NEAR: Final = 0.1  # Hoiem: a detection of the right class with less overlap is about nothing
CORRECT, IGNORED, DUPLICATE, LOCALISATION, CLASS, BACKGROUND = range(6)
KINDS: Final = ("correct", "ignored", "duplicate", "localisation", "class", "background")
MISSED: Final = "missed"
ERRORS: Final = (*KINDS[DUPLICATE:], MISSED)

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Verdicts:
    """What became of each detection and each truth at an IoU.

    Attributes:
        matches: each detection with the truth of its class that it is about.
        kinds: (N,) places in `KINDS`.
        truth: (N,) the truth that a detection is about, or lies on as one of another class; -1 for background.
        overlap: (N,) the IoU with it.
        found: (G,) true where a detection that is correct is about a truth.
    """

    matches: Matches
    kinds: Ints
    truth: Ints
    overlap: Floats
    found: Bools

    def counts(self, of: Bools | None = None) -> dict[str, Ints]:
        """Return (C,) how many of each label there are of each kind of detection, of some of them or of all."""
        labels, classes = self.matches.detections.labels, self.matches.truths.classes
        shown = np.ones(len(labels), np.bool_) if of is None else of
        return {
            kind: np.bincount(labels[shown & (self.kinds == place)], minlength=classes)
            for place, kind in enumerate(KINDS)
        }

    def missed(self, of: Bools | None = None) -> Bools:
        """Return (G,) which truths nothing correct is about, not even among some of the detections."""
        found = self.found
        if of is not None:
            found = np.zeros(len(self.found), np.bool_)
            found[self.truth[of & (self.kinds == CORRECT)]] = True
        ignore = self.matches.truths.ignore
        return ~found if ignore is None else ~found & ~ignore


def judge(detections: DetectionRows, truths: TruthRows, iou: float = 0.5) -> Verdicts:
    """Return what each detection is at an IoU."""
    matches = match_rows(detections, truths)
    result = outcomes(matches, iou)
    across, on = _of_any_class(detections, truths)
    other = (on >= iou) & (truths.labels[across] != detections.labels) if len(truths) else np.zeros(len(on), np.bool_)
    kinds = np.full(len(detections), BACKGROUND)
    kinds[matches.iou >= NEAR] = LOCALISATION
    kinds[other] = CLASS
    kinds[matches.iou >= iou] = DUPLICATE
    kinds[result == NOT_COUNTED] = IGNORED
    kinds[result == TRUE_POSITIVE] = CORRECT
    truth = np.where(kinds == CLASS, across, np.where(kinds == BACKGROUND, -1, matches.truth))
    overlap = np.where(kinds == CLASS, on, matches.iou)
    found = np.zeros(len(truths), np.bool_)
    found[matches.truth[kinds == CORRECT]] = True
    return Verdicts(matches, kinds, truth, overlap, found)


def _of_any_class(detections: DetectionRows, truths: TruthRows) -> tuple[Ints, Floats]:
    """Return for each detection the truth of any class, not ignored, that it overlaps most, and the IoU."""
    count = np.zeros(len(truths), np.bool_) if truths.ignore is None else truths.ignore
    rows = np.flatnonzero(~count)
    ones = np.ones(len(rows), np.int64)
    anything = DetectionRows(detections.images, np.ones(len(detections), np.int64), detections.scores, detections.boxes)
    matches = match_rows(anything, TruthRows(truths.images[rows], ones, truths.boxes[rows], 2))
    there = matches.truth >= 0
    return np.where(there, rows[matches.truth] if len(rows) else 0, 0), np.where(there, matches.iou, 0.0)


def costs(verdicts: Verdicts) -> Mapping[str, Floats]:
    """Return by how much the all-point average precision (C,) of each label would be better without each error."""
    matches, plain = verdicts.matches, _Ranking.of(verdicts)
    before = plain.precisions()
    fixed = {kind: plain.without(verdicts.kinds == KINDS.index(kind)) for kind in ("duplicate", "background")}
    fixed |= {kind: plain.mended(verdicts, KINDS.index(kind)) for kind in ("localisation", "class")}
    missed = np.bincount(matches.truths.labels[verdicts.missed()].astype(np.int64), minlength=matches.truths.classes)
    fixed[MISSED] = _Ranking(plain.labels, plain.scores, plain.result, plain.positives - missed)
    return {kind: fixed[kind].precisions() - before for kind in ERRORS}


@dataclass(frozen=True)
class _Ranking:
    """What average precision is counted from: labels and scores (N,), outcomes (N,), positives (C,)."""

    labels: Ints
    scores: Any
    result: Ints
    positives: Ints

    @classmethod
    def of(cls, verdicts: Verdicts) -> _Ranking:
        rows = verdicts.matches.detections
        result = np.where(verdicts.kinds == IGNORED, NOT_COUNTED, (verdicts.kinds == CORRECT).astype(np.int64))
        return cls(rows.labels.astype(np.int64), rows.scores, result, verdicts.matches.truths.positives())

    def without(self, gone: Bools) -> _Ranking:
        return _Ranking(self.labels, self.scores, np.where(gone, NOT_COUNTED, self.result), self.positives)

    def mended(self, verdicts: Verdicts, kind: int) -> _Ranking:
        """Return the ranking with the best such detection of each truth that is not found as its finder."""
        rows = np.flatnonzero(verdicts.kinds == kind)
        rows = rows[np.argsort(-self.scores[rows], kind="stable")]
        truths = verdicts.truth[rows]
        first = np.zeros(len(rows), np.bool_)
        first[np.unique(truths, return_index=True)[1]] = True
        right = first & verdicts.missed()[truths]
        result, labels = self.result.copy(), self.labels.copy()
        result[rows] = np.where(right, TRUE_POSITIVE, NOT_COUNTED)
        labels[rows] = verdicts.matches.truths.labels[truths]
        return _Ranking(labels, self.scores, result, self.positives)

    def precisions(self) -> Floats:
        order = np.argsort(-self.scores, kind="stable")
        order = order[self.result[order] != NOT_COUNTED]
        found = []
        for label, count in enumerate(self.positives.tolist()):
            own = order[self.labels[order] == label]
            curve = Curve(self.scores[own], np.cumsum(self.result[own] == TRUE_POSITIVE), count)
            found.append(average_precision(curve))
        return np.array(found)
