"""How well two sets of boxes of the same images agree: the measure of the mask-to-box recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.imaging.boxes import pairwise_iou

__all__ = ["Agreement", "boxes_by_image", "measure_agreement"]

Boxes = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Counts over all images: boxes found, true boxes, and pairs of them at each IoU threshold."""

    num_detections: int
    num_ground_truths: int
    num_matches: dict[float, int]

    def recall(self, threshold: float) -> float:
        """Return the share of the true boxes that were found."""
        return self.num_matches[threshold] / max(self.num_ground_truths, 1)

    def precision(self, threshold: float) -> float:
        """Return the share of the found boxes that are true."""
        return self.num_matches[threshold] / max(self.num_detections, 1)


def measure_agreement(
    detections: Mapping[str, Boxes], ground_truths: Mapping[str, Boxes], thresholds: tuple[float, ...] = (0.5, 0.75)
) -> Agreement:
    """Measure the agreement of boxes image by image; each box is paired at most once, largest overlaps first."""
    matched = dict.fromkeys(thresholds, 0)
    for image in detections.keys() & ground_truths.keys():
        overlaps = pairwise_iou(detections[image], ground_truths[image])
        for threshold in thresholds:
            matched[threshold] += _count_matches(overlaps, threshold)
    return Agreement(sum(map(len, detections.values())), sum(map(len, ground_truths.values())), matched)


def boxes_by_image(boxes: pa.Table, label: str) -> dict[str, Boxes]:
    """Return the (G, 4) boxes of one class of a `boxes` table, by image path without dataset and suffix."""
    rows = boxes.select(["image_id", "label", "xmin", "ymin", "xmax", "ymax"]).to_pylist()
    grouped: dict[str, list[list[float]]] = {}
    for row in rows:
        if row["label"] == label:
            name = row["image_id"].partition("/")[2].rpartition(".")[0]
            grouped.setdefault(name, []).append([row["xmin"], row["ymin"], row["xmax"], row["ymax"]])
    return {name: np.array(values) for name, values in grouped.items()}


def _count_matches(overlaps: Boxes, threshold: float) -> int:
    overlaps, count = overlaps.copy(), 0
    while overlaps.size and overlaps.max() >= threshold:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        overlaps[row, :] = overlaps[:, column] = -1
        count += 1
    return count
