"""Boxes as tensors: formats, areas, overlap. Pixels, half-open: a box from 2 to 5 is 3 wide."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["area_xyxy", "clip_xyxy", "cxcywh_to_xyxy", "iou_xyxy", "xyxy_to_cxcywh"]


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Return centres and sizes (..., 4) of corners (..., 4)."""
    starts, ends = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(starts + ends) / 2, ends - starts], dim=-1)


def cxcywh_to_xyxy(cxcywh: Tensor) -> Tensor:
    """Return corners (..., 4) of centres and sizes (..., 4)."""
    centres, halves = cxcywh[..., :2], 0.5 * cxcywh[..., 2:]
    return torch.cat([centres - halves, centres + halves], dim=-1)


def area_xyxy(boxes: Tensor) -> Tensor:
    """Return the areas (...) of boxes (..., 4); a box whose end lies before its start has none."""
    sizes = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sizes[..., 0] * sizes[..., 1]


def clip_xyxy(boxes: Tensor, height: float, width: float) -> Tensor:
    """Return the part of boxes (..., 4) inside an image of H x W; a box outside it is left without area."""
    return torch.stack(
        [part.clamp(0, most) for part, most in zip(boxes.unbind(-1), (width, height) * 2, strict=True)], -1
    )


def iou_xyxy(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union (..., N, G) of boxes (..., N, 4) with boxes (..., G, 4).

    A box without area overlaps nothing, itself included, where torchvision divides zero by zero. A coordinate that is
    not a number still shows as NaN: it is a fault of whoever made the box. One coordinate at a time takes .4 to .6 of
    torchvision's time, most of which goes to memory (`bench_iou.py`).
    """
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    xmin, ymin, xmax, ymax = first.to(dtype)[..., None, :].unbind(-1)
    left, top, right, bottom = second.to(dtype).movedim(-1, 0).contiguous()[..., None, :]
    width = torch.minimum(xmax, right).sub_(torch.maximum(xmin, left)).clamp_(min=0)
    height = torch.minimum(ymax, bottom).sub_(torch.maximum(ymin, top)).clamp_(min=0)
    shared = width.mul_(height)
    area = area_xyxy(first.to(dtype))
    area = area.masked_fill(area == 0, 1.0)  # nothing is shared with such a box; any divisor but 0 will do
    return shared.div_((area[..., None] + area_xyxy(second.to(dtype))[..., None, :]).sub_(shared))
