"""How good it is: rows of the `scores` table, by split, dataset, class, size and shape, by several protocols."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.stages.evaluate.bootstrap import bootstrap_aps, bootstrap_counts, percentile_interval, rank_classes
from pipeline.stages.evaluate.data import EvaluationData
from ssd import Curve, Matches, Points, coco_ap, match_arrays, pr_curves, voc_ap

__all__ = ["ALL", "CLEAN_PART", "HEADLINE", "PARTS", "headline_rows", "part_indices", "score_rows"]

CLEAN_PART: Final = "without suspicious labels"
ALL: Final = ""  # of `dataset`, `label` and `part`: the whole; a mean over classes
HEADLINE: Final = "voc11_50"  # the report's and the SSD paper's
# Name, IoU and points of each VOC protocol.
VOC_PROTOCOLS: Final[Mapping[str, tuple[float, Points]]] = {
    HEADLINE: (0.5, 11),
    "voc11_75": (0.75, 11),
    "voc_50": (0.5, "all"),
}
COCO_MAX_DETECTIONS: Final = (100, 500)
# Shares of a class's objects by size and by shape, as the SSD paper's figures 4 and 6 have them, after Hoiem.
PART_QUANTILES: Final = (0.1, 0.3, 0.7, 0.9)
PARTS: Final = {"size": ("XS", "S", "M", "L", "XL"), "shape": ("XT", "T", "M", "W", "XW")}
REFERENCE_SIDE: Final = 300

Floats = npt.NDArray[np.float64]


NO_SCORES: Final = np.zeros(0)


@dataclass(frozen=True)
class _Score:
    """A figure of each class, with where it lies in drawings of the photos."""

    protocol: str
    by_label: Floats
    bootstrap: Floats | None = None  # (R, C - 1)


def score_rows(data: EvaluationData, bootstrap_samples: int) -> list[dict[str, Any]]:
    """Return the rows of each split, of all datasets and of each, with intervals from so many drawings."""
    rows: list[dict[str, Any]] = []
    for split in sorted(set(data.column("split").tolist())):
        of_split = data.select_split(split)
        datasets = sorted(set(of_split.column("dataset").tolist()))
        for dataset in (ALL, *(datasets if len(datasets) > 1 else ())):
            part = of_split if dataset == ALL else of_split.select_images(of_split.column("dataset") == dataset)
            rows += [{"split": split, "dataset": dataset, **row} for row in _dataset_rows(part, bootstrap_samples)]
    return rows


def _dataset_rows(data: EvaluationData, bootstrap_samples: int) -> Iterator[dict[str, Any]]:
    matches = match_arrays(data.detections, data.ground_truths)
    positives = matches.ground_truths.positives()
    known = positives > 0  # figures of a class with nothing to find are none
    known[0] = False
    for one in _compute_scores(data, matches, bootstrap_samples):
        for number in np.flatnonzero(known):
            own = None if one.bootstrap is None else one.bootstrap[:, number - 1]
            yield _row(data, data.classes[number - 1], one, one.by_label[number], own, int(positives[number]))
        if known.any():
            mean = None if one.bootstrap is None else _class_mean(one.bootstrap[:, known[1:]])
            yield _row(data, ALL, one, float(one.by_label[known].mean()), mean, int(positives[known].sum()))
    yield from _part_rows(data, matches)


def _row(
    data: EvaluationData, label: str, score: _Score, value: float, bootstrap: Floats | None, positives: int
) -> dict[str, Any]:
    low, high = (None, None) if bootstrap is None else percentile_interval(bootstrap)
    figures = {"value": value, "low": low, "high": high, "positives": positives, "images": len(data.images)}
    return {"label": label, "part": ALL, "protocol": score.protocol, **figures}


def _compute_scores(data: EvaluationData, matches: Matches, bootstrap_samples: int) -> Iterator[_Score]:
    weights = bootstrap_counts(len(data.images), bootstrap_samples) if bootstrap_samples else None
    for name, (iou, points) in VOC_PROTOCOLS.items():
        aps = voc_ap(matches, iou, points).by_label
        again = None
        if weights is not None:
            classes = rank_classes(matches, iou, len(data.images))
            again = np.stack([bootstrap_aps(one, weights, points) for one in classes], axis=1)
        yield _Score(name, aps, again)
    for most, found in coco_ap(data.detections, data.ground_truths, COCO_MAX_DETECTIONS).items():
        yield _Score(f"coco_{most}", found.by_label)


def _class_mean(bootstrap: Floats) -> Floats:
    """Return the mean over classes (R,) of each drawing; NaN where none has anything to find."""
    known = ~np.isnan(bootstrap)
    count = known.sum(axis=1)
    total = np.where(known, bootstrap, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


# Sizes and shapes


def part_indices(data: EvaluationData) -> Mapping[str, npt.NDArray[np.int64]]:
    """Return of each truth (G,) the place in `PARTS` by its size at the network's input, and by width over height.

    -1 for those that are ignored. Edges are those of the photos at hand, of all splits of them.
    """
    boxes = data.ground_truths.boxes.astype(np.float64)
    sizes = np.stack([data.column("width"), data.column("height")], axis=1)[data.ground_truths.images]
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    area, ratio = (sides / sizes * REFERENCE_SIDE).prod(axis=1), sides[:, 0] / sides[:, 1]
    return {"size": _quantile_bins(area, data), "shape": _quantile_bins(ratio, data)}


def _quantile_bins(values: Floats, data: EvaluationData) -> npt.NDArray[np.int64]:
    places = np.full(len(values), -1)
    for label in range(1, data.ground_truths.classes):
        own = (data.ground_truths.labels == label) & ~_ignore_mask(data)
        if own.any():
            edges = np.quantile(values[own], PART_QUANTILES)
            places[own] = np.searchsorted(edges, values[own], side="left")
    return places


def _part_rows(data: EvaluationData, matches: Matches) -> Iterator[dict[str, Any]]:
    """Yield, of each part of each class, the normalised average precision and how much of it is found."""
    totals, ignored = matches.ground_truths.positives(), _ignore_mask(data)
    for kind, places in part_indices(data).items():
        for place, name in enumerate(PARTS[kind]):
            truths = replace(matches.ground_truths, ignore=ignored | (places != place))
            for number, curve in enumerate(pr_curves(replace(matches, ground_truths=truths), 0.5)):
                if curve.positives:
                    found = int(curve.hits[-1]) / curve.positives if len(curve.hits) else 0.0
                    normalised = _normalised_ap(curve, int(totals[number]))
                    for protocol, value in (("voc11_50_normalised", normalised), ("recall_50", found)):
                        row = _row(
                            data, data.classes[number - 1], _Score(protocol, NO_SCORES), value, None, curve.positives
                        )
                        yield {**row, "part": f"{kind} {name}"}


def _normalised_ap(curve: Curve, total: int) -> float:
    """Return the 11-point average precision as if the part were as common as the class: Hoiem's AP_N.

    All false positives of the class count for each part; without this, a part of a tenth would have a tenth of the
    precision.
    """
    false = np.arange(1, len(curve.hits) + 1) - curve.hits
    right = curve.recall * total
    precision = np.divide(right, right + false, out=np.zeros(len(right)), where=right + false > 0)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    needed = [math.ceil(tenth * curve.positives / 10 - 1e-9) for tenth in range(11)]
    return float(best[np.searchsorted(curve.hits, needed)].mean())


def _ignore_mask(data: EvaluationData) -> npt.NDArray[np.bool_]:
    ignore = data.ground_truths.ignore
    return np.zeros(len(data.ground_truths), np.bool_) if ignore is None else ignore


def headline_rows(
    rows: Sequence[Mapping[str, Any]], split: str, protocol: str = HEADLINE
) -> dict[str, Mapping[str, Any]]:
    """Return the rows of a split and protocol over all datasets, by label, the mean first."""
    own = [row for row in rows if (row["split"], row["dataset"], row["part"]) == (split, ALL, ALL)]
    return {row["label"]: row for row in sorted(own, key=lambda row: row["label"]) if row["protocol"] == protocol}
