"""How well two sets of boxes of the same images agree: the measure of the mask-to-box recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["Agreement", "agreement", "boxes_by_image", "iou_xyxy"]

Boxes = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Counts over all images: boxes found, true boxes, and pairs of them at each IoU threshold."""

    found: int
    true: int
    matched: dict[float, int]

    def recall(self, threshold: float) -> float:
        """Return the share of the true boxes that were found."""
        return self.matched[threshold] / max(self.true, 1)

    def precision(self, threshold: float) -> float:
        """Return the share of the found boxes that are true."""
        return self.matched[threshold] / max(self.found, 1)


def agreement(
    found: Mapping[str, Boxes], true: Mapping[str, Boxes], thresholds: tuple[float, ...] = (0.5, 0.75)
) -> Agreement:
    """Return how boxes agree image by image; each box is paired once at most, the best overlaps first."""
    matched = dict.fromkeys(thresholds, 0)
    for image in found.keys() & true.keys():
        overlaps = iou_xyxy(found[image], true[image])
        for threshold in thresholds:
            matched[threshold] += _pairs(overlaps, threshold)
    return Agreement(sum(map(len, found.values())), sum(map(len, true.values())), matched)


def boxes_by_image(boxes: pa.Table, label: str) -> dict[str, Boxes]:
    """Return the (G, 4) boxes of one class of a `boxes` table, by image path without dataset and suffix."""
    rows = boxes.select(["image_id", "label", "xmin", "ymin", "xmax", "ymax"]).to_pylist()
    grouped: dict[str, list[list[float]]] = {}
    for row in rows:
        if row["label"] == label:
            name = row["image_id"].partition("/")[2].rpartition(".")[0]
            grouped.setdefault(name, []).append([row["xmin"], row["ymin"], row["xmax"], row["ymax"]])
    return {name: np.array(values) for name, values in grouped.items()}


def iou_xyxy(first: Boxes, second: Boxes) -> Boxes:
    """Return the (N, G) intersections over unions of two sets of xyxy boxes."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    overlaps: Boxes = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return overlaps


def _pairs(overlaps: Boxes, threshold: float) -> int:
    overlaps, count = overlaps.copy(), 0
    while overlaps.size and overlaps.max() >= threshold:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        overlaps[row, :] = overlaps[:, column] = -1
        count += 1
    return count
