"""How well priors cover boxes, and what training would make of them: counted on the priors' true places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.imaging.boxes import pairwise_iou
from ssd.priors.spec import PriorSpec

__all__ = ["GroundTruthBoxes", "coverage_score", "prior_coverage"]

Floats = npt.NDArray[np.float32]
POSITIVE_IOU = 0.5  # a prior with this IoU learns the object (the paper, section 2.2)
# What trains well, read off training runs: about as many positives an object as the paper's COCO priors give windows
# (2.4), and not so many that large objects take over (31 an object did).
MIN_POSITIVES, MAX_POSITIVES = 2.5, 12.0


@dataclass(frozen=True)
class GroundTruthBoxes:
    """Boxes to cover: xyxy (G, 4) as shares of the photo's sides, class (G,) and image (G,) indices."""

    classes: tuple[str, ...]
    xyxy: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]

    def to_input_pixels(self, spec: PriorSpec) -> Floats:
        """Return the boxes in the input pixels of a spec."""
        height, width = spec.input_size
        scaled: Floats = (self.xyxy * [width, height, width, height]).astype(np.float32)
        return scaled

    def select(self, rows: npt.NDArray[Any]) -> GroundTruthBoxes:
        """Return some of the boxes."""
        return GroundTruthBoxes(self.classes, self.xyxy[rows], self.labels[rows], self.images[rows])


def prior_coverage(spec: PriorSpec, ground_truths: GroundTruthBoxes) -> list[dict[str, Any]]:
    """Return a row a class: coverage at IoU .5 and .7, mean best IoU, positives an object, share of all positives.

    Positives are those of the matching: every box takes its best prior, then every prior above .5 its best box.
    """
    priors = spec.xyxy_array().astype(np.float32)
    best, positives = np.zeros(len(ground_truths.labels)), np.zeros(len(ground_truths.labels))
    boxes = ground_truths.to_input_pixels(spec)
    for image in np.unique(ground_truths.images):
        own = np.flatnonzero(ground_truths.images == image)
        best[own], positives[own] = _match_priors(boxes[own], priors)
    everything = max(positives.sum(), 1.0)
    rows = []
    for position, label in enumerate(ground_truths.classes):
        own = ground_truths.labels == position
        if own.any():
            row = {"label": label, "boxes": int(own.sum()), "mean_iou": float(best[own].mean())}
            row |= {"coverage_50": float((best[own] >= 0.5).mean()), "coverage_70": float((best[own] >= 0.7).mean())}
            rows.append(
                row | {"positives": float(positives[own].mean()), "share": float(positives[own].sum() / everything)}
            )
    return rows


def coverage_score(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return one figure to choose by, higher is better: coverage, less what makes training lopsided.

    The mean over classes of coverage at .5 and half of that at .7, less a fifth for each doubling by which a class has
    fewer positives an object than trains well, or more than lets the other classes learn.
    """
    if not rows:
        return 0.0
    values = []
    for row in rows:
        few = max(0.0, np.log2(MIN_POSITIVES / max(row["positives"], 0.1)))
        many = max(0.0, np.log2(max(row["positives"], 0.1) / MAX_POSITIVES))
        values.append(row["coverage_50"] + 0.5 * row["coverage_70"] - 0.2 * (few + many))
    return float(np.mean(values))


def _match_priors(boxes: Floats, priors: Floats) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the best IoU of each box and the number of priors that would learn it."""
    overlaps = pairwise_iou(boxes, priors)
    taken = np.where(overlaps.max(0) >= POSITIVE_IOU, overlaps.argmax(0), -1)
    taken[overlaps.argmax(1)] = np.arange(len(boxes))
    return overlaps.max(1), np.bincount(taken[taken >= 0], minlength=len(boxes))
