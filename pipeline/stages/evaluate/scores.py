"""How good it is: rows of the `scores` table, by split, dataset, class, size and shape, by several protocols."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.stages.evaluate.bootstrap import drawings, interval, ranked, resampled_aps
from pipeline.stages.evaluate.data import Judged
from ssd import Curve, Matches, Points, coco_ap, curves, match_rows, voc_ap

__all__ = ["ALL", "HEADLINE", "PARTS", "headline", "parts_of", "score_rows"]

ALL: Final = ""  # of `dataset`, `label` and `part`: the whole; a mean over classes
HEADLINE: Final = "voc11_50"  # the report's and the SSD paper's
# Name, IoU and points of each VOC protocol.
VOC: Final[Mapping[str, tuple[float, Points]]] = {HEADLINE: (0.5, 11), "voc11_75": (0.75, 11), "voc_50": (0.5, "all")}
MOST: Final = (100, 500)
# Shares of a class's objects by size and by shape, as the SSD paper's figures 4 and 6 have them, after Hoiem.
SHARES: Final = (0.1, 0.3, 0.7, 0.9)
PARTS: Final = {"size": ("XS", "S", "M", "L", "XL"), "shape": ("XT", "T", "M", "W", "XW")}
SQUASHED: Final = 300

Floats = npt.NDArray[np.float64]


NONE: Final = np.zeros(0)


@dataclass(frozen=True)
class _Score:
    """A figure of each class, with where it lies in drawings of the photos."""

    protocol: str
    by_label: Floats
    drawn: Floats | None = None  # (R, C - 1)


def score_rows(judged: Judged, drawn: int) -> list[dict[str, Any]]:
    """Return the rows of each split, of all datasets and of each, with intervals from so many drawings."""
    rows: list[dict[str, Any]] = []
    for split in sorted(set(judged.column("split").tolist())):
        of_split = judged.of_split(split)
        datasets = sorted(set(of_split.column("dataset").tolist()))
        for dataset in (ALL, *(datasets if len(datasets) > 1 else ())):
            part = of_split if dataset == ALL else of_split.of_images(of_split.column("dataset") == dataset)
            rows += [{"split": split, "dataset": dataset, **row} for row in _rows_of(part, drawn)]
    return rows


def _rows_of(judged: Judged, drawn: int) -> Iterator[dict[str, Any]]:
    matches = match_rows(judged.detections, judged.truths)
    positives = matches.truths.positives()
    known = positives > 0  # figures of a class with nothing to find are none
    known[0] = False
    for one in _scores(judged, matches, drawn):
        for number in np.flatnonzero(known):
            own = None if one.drawn is None else one.drawn[:, number - 1]
            yield _row(judged, judged.classes[number - 1], one, one.by_label[number], own, int(positives[number]))
        if known.any():
            mean = None if one.drawn is None else _mean(one.drawn[:, known[1:]])
            yield _row(judged, ALL, one, float(one.by_label[known].mean()), mean, int(positives[known].sum()))
    yield from _part_rows(judged, matches)


def _row(judged: Judged, label: str, one: _Score, value: float, drawn: Floats | None, positives: int) -> dict[str, Any]:
    low, high = (None, None) if drawn is None else interval(drawn)
    figures = {"value": value, "low": low, "high": high, "positives": positives, "images": len(judged.images)}
    return {"label": label, "part": ALL, "protocol": one.protocol, **figures}


def _scores(judged: Judged, matches: Matches, drawn: int) -> Iterator[_Score]:
    weights = drawings(len(judged.images), drawn) if drawn else None
    for name, (iou, points) in VOC.items():
        aps = voc_ap(matches, iou, points).by_label
        again = None
        if weights is not None:
            classes = ranked(matches, iou, len(judged.images))
            again = np.stack([resampled_aps(one, weights, points) for one in classes], axis=1)
        yield _Score(name, aps, again)
    for most, found in coco_ap(judged.detections, judged.truths, MOST).items():
        yield _Score(f"coco_{most}", found.by_label)


def _mean(drawn: Floats) -> Floats:
    """Return the mean over classes (R,) of each drawing; NaN where none has anything to find."""
    known = ~np.isnan(drawn)
    count = known.sum(axis=1)
    total = np.where(known, drawn, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


# Sizes and shapes


def parts_of(judged: Judged) -> Mapping[str, npt.NDArray[np.int64]]:
    """Return of each truth (G,) the place in `PARTS` by its size at the network's input, and by width over height.

    -1 for those that are ignored. Edges are those of the photos at hand, of all splits of them.
    """
    boxes = judged.truths.boxes.astype(np.float64)
    sizes = np.stack([judged.column("width"), judged.column("height")], axis=1)[judged.truths.images]
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    area, ratio = (sides / sizes * SQUASHED).prod(axis=1), sides[:, 0] / sides[:, 1]
    return {"size": _places(area, judged), "shape": _places(ratio, judged)}


def _places(values: Floats, judged: Judged) -> npt.NDArray[np.int64]:
    places = np.full(len(values), -1)
    for label in range(1, judged.truths.classes):
        own = (judged.truths.labels == label) & ~_ignored(judged)
        if own.any():
            edges = np.quantile(values[own], SHARES)
            places[own] = np.searchsorted(edges, values[own], side="left")
    return places


def _part_rows(judged: Judged, matches: Matches) -> Iterator[dict[str, Any]]:
    """Yield, of each part of each class, the normalised average precision and how much of it is found."""
    totals, ignored = matches.truths.positives(), _ignored(judged)
    for kind, places in parts_of(judged).items():
        for place, name in enumerate(PARTS[kind]):
            truths = replace(matches.truths, ignore=ignored | (places != place))
            for number, curve in enumerate(curves(replace(matches, truths=truths), 0.5)):
                if curve.positives:
                    found = int(curve.hits[-1]) / curve.positives if len(curve.hits) else 0.0
                    normalised = _normalised(curve, int(totals[number]))
                    for protocol, value in (("voc11_50_normalised", normalised), ("recall_50", found)):
                        row = _row(
                            judged, judged.classes[number - 1], _Score(protocol, NONE), value, None, curve.positives
                        )
                        yield {**row, "part": f"{kind} {name}"}


def _normalised(curve: Curve, total: int) -> float:
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


def _ignored(judged: Judged) -> npt.NDArray[np.bool_]:
    ignore = judged.truths.ignore
    return np.zeros(len(judged.truths), np.bool_) if ignore is None else ignore


def headline(rows: Sequence[Mapping[str, Any]], split: str, protocol: str = HEADLINE) -> dict[str, Mapping[str, Any]]:
    """Return the rows of a split and protocol over all datasets, by label, the mean first."""
    own = [row for row in rows if (row["split"], row["dataset"], row["part"]) == (split, ALL, ALL)]
    return {row["label"]: row for row in sorted(own, key=lambda row: row["label"]) if row["protocol"] == protocol}
