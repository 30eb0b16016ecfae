"""Average precision as the VOC development kit counts it, on any number of images at once.

Four steps, each of use alone: the truth that each detection is about (`match_rows`), what each detection counts for at
an IoU (`outcomes`), precision and recall along the score (`curves`), and the average (`average_precision`). Only the
first looks at boxes, so that any number of IoUs cost one look:

    matches = match_images(found, targets, classes)
    half, all_ious = voc_ap(matches, 0.5, 11), [voc_ap(matches, iou) for iou in COCO_IOUS]

All is float64 and whole numbers on the CPU. Boxes are half-open: the kit's `+ 1` is not added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from ssd.containers import Detections, Target
from ssd.metrics.flat_arrays import DetectionArrays, GroundTruthArrays
from ssd.metrics.pairs import CHUNK, Pairs, chunks, iou_of_pairs, match_keys

__all__ = [
    "COCO_IOUS",
    "FALSE_POSITIVE",
    "NOT_COUNTED",
    "TRUE_POSITIVE",
    "ClassAps",
    "Curve",
    "Matches",
    "Points",
    "average_precision",
    "match_arrays",
    "match_images",
    "match_outcomes",
    "pr_curves",
    "voc_ap",
]

TRUE_POSITIVE: Final = 1
FALSE_POSITIVE: Final = 0
NOT_COUNTED: Final = -1

# Divided and not added up: an IoU of 11/20 is the very number .55, and not below .5 + .05.
COCO_IOUS: Final = tuple(twentieths / 20 for twentieths in range(10, 20))

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
AnyFloats = npt.NDArray[np.floating[Any]]
Points = Literal[11, "all"]


@dataclass(frozen=True)
class Matches:
    """The ground truth that each detection overlaps most, whatever IoU threshold is applied later.

    Attributes:
        detections: the rows that were matched.
        ground_truths: the rows that they were matched with.
        ground_truth: (N,) row of the ground truth of the same image and class with the largest IoU, ignored or not, the
            first of equal ones; -1 where nothing overlaps.
        iou: (N,) that IoU; 0 where nothing overlaps.
        counts: (N,) false where the image's annotation would not show the class.
        order: (N,) rows by class, then by falling score.
    """

    detections: DetectionArrays
    ground_truths: GroundTruthArrays
    ground_truth: Ints
    iou: Floats
    counts: Bools
    order: Ints


@dataclass(frozen=True)
class Curve:
    """One class's detections that count, best first, K of them.

    Attributes:
        scores: (K,) falling.
        hits: (K,) true positives down to each detection.
        positives: how many there are to find.
    """

    scores: AnyFloats
    hits: Ints
    positives: int

    @property
    def precision(self) -> Floats:
        """(K,) the share of true positives down to each detection."""
        return self.hits / np.arange(1, len(self.hits) + 1)

    @property
    def recall(self) -> Floats:
        """(K,) the share of the positives found down to each detection; NaN where there are none to find."""
        return self.hits / (self.positives or math.nan)


@dataclass(frozen=True)
class ClassAps:
    """The average precision (C,) of each label; NaN where there is nothing to find, as for 0, the background."""

    by_label: Floats

    @property
    def mean(self) -> float:
        """The mean over the classes that have something to find; NaN if none has."""
        known = self.by_label[~np.isnan(self.by_label)]
        return float(known.mean()) if len(known) else math.nan


def match_images(detections: Sequence[Detections], targets: Sequence[Target], classes: int) -> Matches:
    """Return the matches of the images' detections with their targets; `classes` is C, background included."""
    if len(detections) != len(targets):
        raise ValueError(f"Each image has detections and a target; got {len(detections)} and {len(targets)}.")
    return match_arrays(DetectionArrays.from_detections(detections), GroundTruthArrays.from_targets(targets, classes))


def match_arrays(detections: DetectionArrays, ground_truths: GroundTruthArrays, chunk: int = CHUNK) -> Matches:
    """Return for each detection the truth that it is about; at most about `chunk` pairs are in memory at a time."""
    ground_truths.check_labels("A detection", detections.labels)
    counts = ground_truths.labelled_at(detections.images, detections.labels)
    keys, wanted = match_keys(ground_truths, ground_truths.classes), match_keys(detections, ground_truths.classes)
    true_rows, found_rows = np.argsort(keys, kind="stable"), np.argsort(wanted)  # in step, whatever order they came in
    keys, wanted = keys[true_rows], wanted[found_rows]
    begins = np.searchsorted(keys, wanted)
    sizes = np.searchsorted(keys, wanted, side="right") - begins
    truth, iou = np.full(len(detections), -1), np.zeros(len(detections))
    for part in chunks(sizes, chunk):
        pairs, rows = Pairs.from_runs(begins[part], sizes[part]), found_rows[part]
        overlap = iou_of_pairs(detections.boxes[rows][pairs.first], ground_truths.boxes[true_rows[pairs.second]])
        largest, at = pairs.max_per_row(overlap)
        iou[rows], truth[rows] = largest, np.where(largest > 0, true_rows[pairs.second[at]], -1)
    return Matches(detections, ground_truths, truth, iou, counts, _sort_order(detections))


def match_outcomes(matches: Matches, iou: float) -> npt.NDArray[np.int8]:
    """Return (N,) what each detection counts for: TRUE_POSITIVE, FALSE_POSITIVE or NOT_COUNTED.

    The kit's rule: of the detections that overlap a truth enough, the best is right and the others are wrong, even if
    they overlap another truth enough; about an ignored truth none counts.
    """
    if not 0 < iou <= 1:
        raise ValueError(f"The IoU of a true positive is above 0 and at most 1; got {iou!r}.")
    near = matches.order[(matches.iou >= iou)[matches.order]]
    about = matches.ground_truth[near]
    best = np.full(len(matches.ground_truths), -1)
    best[about[::-1]] = near[::-1]  # of rows about the same truth the last one written stays: the best
    result = np.full(len(matches.detections), FALSE_POSITIVE, dtype=np.int8)
    result[best[best >= 0]] = TRUE_POSITIVE
    if matches.ground_truths.ignore is not None:
        result[near[matches.ground_truths.ignore[about]]] = NOT_COUNTED
    result[~matches.counts] = NOT_COUNTED
    return result


def pr_curves(matches: Matches, iou: float) -> tuple[Curve, ...]:
    """Return the curve of each label, C of them; that of 0, the background, is empty."""
    result, scores, positives = (
        match_outcomes(matches, iou),
        matches.detections.scores,
        matches.ground_truths.positives(),
    )
    ends = np.cumsum(np.bincount(matches.detections.labels.astype(np.int64), minlength=matches.ground_truths.classes))
    made = []
    for rows, count in zip(np.split(matches.order, ends[:-1]), positives, strict=True):
        counted = rows[result[rows] != NOT_COUNTED]
        made.append(Curve(scores[counted], np.cumsum(result[counted], dtype=np.int64), int(count)))
    return tuple(made)


def average_precision(curve: Curve, points: Points = "all") -> float:
    """Return the average precision; NaN if there is nothing to find.

    With 11 points, as VOC 2007, it is the mean over recalls 0, .1, ..., 1 of the best precision at this recall or
    above; with all, as VOC from 2010, the area below the precision made monotone. A recall is reached when
    `10 * hits >= k * positives`, in whole numbers: 3 of 10 reach .3, which `3 * .1` of floats is above.
    """
    if points not in (11, "all"):
        raise ValueError(f"Average precision is over 11 points or 'all'; got {points!r}.")
    if not curve.positives:
        return math.nan
    best = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
    if points == 11:
        needed = -(-np.arange(11) * curve.positives // 10)
        return float(best[np.searchsorted(curve.hits, needed)].mean())
    return float(best[:-1][np.diff(curve.hits, prepend=0) > 0].sum() / curve.positives)


def voc_ap(matches: Matches, iou: float = 0.5, points: Points = "all") -> ClassAps:
    """Return the average precision of each label at an IoU."""
    return ClassAps(np.array([average_precision(curve, points) for curve in pr_curves(matches, iou)]))


def _sort_order(detections: DetectionArrays) -> Ints:
    by_score = np.argsort(-detections.scores, kind="stable")
    return by_score[np.argsort(detections.labels[by_score], kind="stable")]
