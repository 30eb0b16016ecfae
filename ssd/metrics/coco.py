"""COCO's average precision, as pycocotools counts it, on any number of images at once.

It differs from VOC's (`ssd.metrics`): a detection takes the best truth that is still free, an ignored one only if no
other is near enough; only the best detections of an image and class count; precision is read at 101 recalls.

An ignored truth is what pycocotools makes of one outside its area range: it sets one detection aside, where a crowd
sets aside any number. The area of a detection plays no part. The only other difference is .9 of `COCO_IOUS`, which in
pycocotools is 1e-16 less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ssd.metrics.flat_arrays import DetectionArrays, GroundTruthArrays
from ssd.metrics.pairs import CHUNK, Pairs, chunks, iou_of_pairs, match_keys
from ssd.metrics.voc import COCO_IOUS, ClassAps

__all__ = ["CocoAps", "coco_ap"]

RECALLS: Final = np.linspace(0, 1, 101)  # not quotients by 100: COCO's .35 is above 35 / 100, which does not reach it

Bools = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint16]  # bit t is about COCO_IOUS[t]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CocoAps:
    """The average precision (10, C) at each of `COCO_IOUS` of each label; NaN where there is nothing to find."""

    by_iou: Floats

    def at(self, iou: float) -> ClassAps:
        """Return the average precisions at one of `COCO_IOUS`."""
        if iou not in COCO_IOUS:
            raise ValueError(f"COCO's average precision is at an IoU of {COCO_IOUS}; got {iou!r}.")
        return ClassAps(self.by_iou[COCO_IOUS.index(iou)])

    @property
    def by_label(self) -> Floats:
        """(C,) the mean over the IoUs."""
        mean: Floats = self.by_iou.mean(axis=0)
        return mean

    @property
    def mean(self) -> float:
        """COCO's AP: the mean over the IoUs, and the classes that have something to find; NaN if none has."""
        return ClassAps(self.by_label).mean

    @property
    def mean_50(self) -> float:
        """COCO's AP50."""
        return self.at(0.5).mean

    @property
    def mean_75(self) -> float:
        """COCO's AP75."""
        return self.at(0.75).mean


def coco_ap(
    detections: DetectionArrays,
    ground_truths: GroundTruthArrays,
    max_detections: Sequence[int] = (100, 500),
    ground_truth_mask: Bools | None = None,
) -> dict[int, CocoAps]:
    """Compute COCO's average precisions for each of `max_detections`; equal scores rank by image, then by row.

    Args:
        detections: the detections, in any order.
        ground_truths: the ground truths. Where `labelled` is false, detections do not count.
        max_detections: number of best detections of an image and class that count: COCO's `maxDets`.
        ground_truth_mask: (G,) the ground truths that count; others are ignored. Unmatched detections still count as
            wrong, where COCO's area ranges leave out detections whose own area is outside.
    """
    if not max_detections or min(max_detections) < 1:
        raise ValueError(f"The most detections of an image and class are 1 or more; got {tuple(max_detections)}.")
    ground_truths.check_labels("A detection", detections.labels)
    if ground_truth_mask is not None:
        if ground_truth_mask.shape != (len(ground_truths),) or ground_truth_mask.dtype != np.bool_:
            raise ValueError(
                f"ground_truth_mask must be bool of shape ({len(ground_truths)},), "
                f"got {ground_truth_mask.dtype} {ground_truth_mask.shape}."
            )
        ground_truths = replace(ground_truths, ignore=_ignore_mask(ground_truths) | ~ground_truth_mask)
    ranked, positives = _Ranked.rank(detections, ground_truths, max(max_detections)), ground_truths.positives()
    # One matching serves every limit: what a detection takes does not depend on those with a lower score.
    outcome = _Outcome.match(ranked, ground_truths)
    return {limit: CocoAps(outcome.average_precisions(positives, limit)) for limit in max_detections}


@dataclass(frozen=True)
class _Ranked:
    """The N detections that count, by image and class, then by falling score."""

    detections: DetectionArrays
    rows: Ints  # of `found`
    ranks: Ints  # how many of the same image and class come before
    keys: Ints  # the image and class

    @classmethod
    def rank(cls, detections: DetectionArrays, ground_truths: GroundTruthArrays, max_detections: int) -> _Ranked:
        keys, rows = match_keys(detections, ground_truths.classes), np.argsort(-detections.scores, kind="stable")
        rows = rows[ground_truths.labelled_at(detections.images, detections.labels)[rows]]
        rows = rows[np.argsort(keys[rows], kind="stable")]
        ranks = _positions_in_group(keys[rows])
        kept = ranks < max_detections
        return cls(detections, rows[kept], ranks[kept], keys[rows[kept]])


@dataclass(frozen=True)
class _Outcome:
    """Matches of the N detections that count, by falling score."""

    labels: npt.NDArray[np.integer[Any]]
    ranks: Ints  # how many of the same image and class come before
    correct: Bits  # at which IoUs a truth is found
    ignored: Bits  # at which IoUs only an ignored truth is

    @classmethod
    def match(cls, ranked: _Ranked, ground_truths: GroundTruthArrays) -> _Outcome:
        taken, ignored = np.zeros(len(ground_truths), np.uint16), _ignore_mask(ground_truths)
        right, aside = np.zeros((2, len(ranked.rows)), np.uint16)
        for place, truth, enough in _matching_rounds(ranked, ground_truths):
            got = enough & ~(taken[truth] | right[place] | aside[place])
            taken[truth] |= got
            right[place] |= np.where(ignored[truth], 0, got)
            aside[place] |= np.where(ignored[truth], got, 0)
        order = np.argsort(-ranked.detections.scores[ranked.rows], kind="stable")
        return cls(ranked.detections.labels[ranked.rows[order]], ranked.ranks[order], right[order], aside[order])

    def average_precisions(self, positives: Ints, max_detections: int) -> Floats:
        """Return the average precision (10, C) at each IoU of each label."""
        result = np.full((len(COCO_IOUS), len(positives)), math.nan)
        for label in np.flatnonzero(positives).tolist():
            rows = (self.labels == label) & (self.ranks < max_detections)
            right, aside = self.correct[rows], self.ignored[rows]
            for level in range(len(COCO_IOUS)):
                counted = np.cumsum((aside & (1 << level)) == 0)
                result[level, label] = _precision_at_recalls(counted[(right & (1 << level)) > 0], positives[label])
        return result


def _matching_rounds(ranked: _Ranked, ground_truths: GroundTruthArrays) -> Iterator[tuple[Ints, Ints, Bits]]:
    """Yield the place, the truth and the IoUs that are reached, of pairs that may match, in the order to try them.

    A round has of each image and class the detection of one rank with its first choice, or its second, and so on:
    no detection and no truth is twice in it.
    """
    none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    place, truth, iou = (
        np.concatenate(parts) for parts in zip(none, *_candidate_pairs(ranked, ground_truths), strict=True)
    )
    by_choice = np.lexsort(
        (-truth, -iou, _ignore_mask(ground_truths)[truth], place)
    )  # of equal overlaps pycocotools' is the last
    ranks, choices = ranked.ranks[place[by_choice]], _positions_in_group(place[by_choice])
    by_round = np.lexsort((choices, ranks))
    begins = np.flatnonzero(np.diff(ranks[by_round], prepend=-1) | np.diff(choices[by_round], prepend=-1))
    order = by_choice[by_round]
    enough = ((1 << np.searchsorted(COCO_IOUS, iou[order], side="right")) - 1).astype(np.uint16)
    place, truth = place[order], truth[order]
    for begin, end in pairwise([*begins.tolist(), len(order)]):
        yield place[begin:end], truth[begin:end], enough[begin:end]


def _candidate_pairs(ranked: _Ranked, ground_truths: GroundTruthArrays) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Yield the place, the truth and the IoU of the pairs that reach the lowest of the IoUs, some at a time."""
    keys = match_keys(ground_truths, ground_truths.classes)
    rows = np.argsort(keys, kind="stable")
    begins = np.searchsorted(keys[rows], ranked.keys)
    sizes = np.searchsorted(keys[rows], ranked.keys, side="right") - begins
    for part in chunks(sizes, CHUNK):
        pairs = Pairs.from_runs(begins[part], sizes[part])
        place, truth = part[pairs.first], rows[pairs.second]
        iou = iou_of_pairs(ranked.detections.boxes[ranked.rows[part]][pairs.first], ground_truths.boxes[truth])
        near = iou >= COCO_IOUS[0]
        yield place[near], truth[near], iou[near]


def _precision_at_recalls(counts: Ints, positives: int) -> float:
    """Return the mean over the recalls of the best precision there or above, from how many count down to each hit."""
    hits = np.arange(1, len(counts) + 1)
    best = np.maximum.accumulate((hits / (counts + np.spacing(1)))[::-1])[::-1]
    return float(np.append(best, 0.0)[np.searchsorted(hits / positives, RECALLS)].mean())


def _ignore_mask(ground_truths: GroundTruthArrays) -> Bools:
    return np.zeros(len(ground_truths), np.bool_) if ground_truths.ignore is None else ground_truths.ignore


def _positions_in_group(keys: Ints) -> Ints:
    """Return of each row how many rows with the same key stand before it; equal keys stand together."""
    begins = np.flatnonzero(np.diff(keys, prepend=-1))
    return np.arange(len(keys)) - np.repeat(begins, np.diff(begins, append=len(keys)))
