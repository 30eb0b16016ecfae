"""Non-maximum suppression: torchvision's operator, without its package, whose import takes longer than PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["nms", "nms_of_labels"]


def nms(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Return the rows, best first, of boxes (N, 4) that no better one overlaps by a larger IoU."""
    return _operator()(boxes, scores, overlap)


def nms_of_labels(boxes: Tensor, scores: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """Return the rows, best first, of boxes (N, 4) that no better one of the same label overlaps by a larger IoU."""
    of_labels = [torch.nonzero(labels == label)[:, 0] for label in sorted(set(labels.tolist()))]
    kept = torch.cat([labels[:0], *(rows[nms(boxes[rows], scores[rows], overlap)] for rows in of_labels)])
    return kept[scores[kept].argsort(descending=True, stable=True)]


@cache
def _operator() -> Callable[[Tensor, Tensor, float], Tensor]:
    package = find_spec("torchvision")  # found, not imported
    for library in Path(package.origin).parent.glob("_C.*") if package and package.origin else ():
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    if not hasattr(torch.ops.torchvision, "nms"):  # it lies elsewhere on this system; the package knows
        import torchvision  # noqa: F401
    operator: Callable[[Tensor, Tensor, float], Tensor] = torch.ops.torchvision.nms
    return operator
