"""Non-maximum suppression: torchvision's operator, without its package, whose import takes longer than PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ssd.boxes import iou_xyxy

__all__ = ["batched_nms_mask", "class_aware_nms", "nms"]

# Overlaps that are in memory at once.
MAX_PAIRS_IN_MEMORY: Final = 1 << 24


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Return the rows, best first, of boxes (N, 4) that no better one overlaps by a larger IoU."""
    return _operator()(boxes, scores, iou_threshold)


def class_aware_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_threshold: float) -> Tensor:
    """Return the rows, best first, of boxes (N, 4) that no better one of the same label overlaps by a larger IoU."""
    of_labels = [torch.nonzero(labels == label)[:, 0] for label in sorted(set(labels.tolist()))]
    kept = torch.cat([labels[:0], *(rows[nms(boxes[rows], scores[rows], iou_threshold)] for rows in of_labels)])
    return kept[scores[kept].argsort(descending=True, stable=True)]


def batched_nms_mask(boxes: Tensor, candidates: Tensor, iou_threshold: float) -> Tensor:
    """Return a mask of the candidates (N, K) that non-maximum suppression keeps of boxes (N, K, 4), best first.

    What `nms` says of each row, for all rows at once. Everything stays at first; then, again and again, what a better
    one that stayed overlaps goes, until nothing changes. After so many rounds as the longest chain of boxes, each of
    which would suppress the next, that is what going through them one by one gives; a chain is a few boxes long.
    """
    if not candidates.numel():
        return candidates
    rows = MAX_PAIRS_IN_MEMORY // boxes.shape[1] ** 2
    if not rows:
        return torch.stack([_per_image(*row, iou_threshold) for row in zip(boxes, candidates, strict=True)])
    parts = zip(torch.split(boxes, rows), torch.split(candidates, rows), strict=True)
    return torch.cat([_batched(*part, iou_threshold) for part in parts])


def _per_image(boxes: Tensor, candidates: Tensor, iou_threshold: float) -> Tensor:
    own = candidates.nonzero()[:, 0]
    best_first = torch.arange(len(own), 0, -1, device=own.device, dtype=boxes.dtype)
    return torch.zeros_like(candidates).index_fill_(0, own[nms(boxes[own], best_first, iou_threshold)], True)


def _batched(boxes: Tensor, candidates: Tensor, iou_threshold: float) -> Tensor:
    # Overlaps are compared as `nms` does, in double precision: with the largest float that is not above.
    limit = np.float32(iou_threshold)
    limit = np.nextafter(limit, np.float32(-1)) if float(limit) > iou_threshold else limit
    rivals = (iou_xyxy(boxes, boxes) > float(limit)).triu_(1)  # [n, i, j]: i is better than j
    before, kept = candidates, candidates & ~(rivals & candidates[..., None]).any(dim=1)
    while not before.equal(kept):
        before, kept = kept, candidates & ~(rivals & kept[..., None]).any(dim=1)
    return kept


@cache
def _operator() -> Callable[[Tensor, Tensor, float], Tensor]:
    package = find_spec("torchvision")  # found, not imported
    for library in Path(package.origin).parent.glob("_C.*") if package and package.origin else ():
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    if not hasattr(torch.ops.torchvision, "nms"):  # it lies elsewhere on this system; the package knows
        import torchvision  # noqa: F401
    operator: Callable[[Tensor, Tensor, float], Tensor] = torch.ops.torchvision.nms
    return operator
