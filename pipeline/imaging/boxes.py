"""Boxes as NumPy arrays, xyxy. `ssd` has the same on tensors, but importing it takes as long as importing PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["pairwise_iou"]

Floats = npt.NDArray[Any]


def pairwise_iou(first: Floats, second: Floats) -> Floats:
    """Return the IoU (N, G) of each of the boxes (N, 4) with each of the boxes (G, 4); a box without area has 0."""
    width, height = (
        np.minimum(first[:, high, None], second[:, high]) - np.maximum(first[:, low, None], second[:, low])
        for low, high in ((0, 2), (1, 3))
    )
    shared = np.maximum(width, 0, out=width)
    shared *= np.maximum(height, 0, out=height)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1] - shared
    iou: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou
