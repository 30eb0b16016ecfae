"""Boxes as offsets from priors: what the network learns (equation 2 of the SSD paper), and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ssd.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh

__all__ = ["NO_VARIANCES", "decode_offsets", "encode_xyxy"]

# The report writes the offsets without variances.
NO_VARIANCES: Final = (1.0, 1.0, 1.0, 1.0)
# A decoded box is at most so many times its prior, as in torchvision: no exponential of a wild output overflows.
MAX_SCALE: Final = 1000 / 16


def encode_xyxy(boxes: Tensor, priors_cxcywh: Tensor, variances: Sequence[float]) -> Tensor:
    """Return the offsets (..., 4) of boxes (..., 4) from priors (..., 4).

    The centre's way in sizes of the prior, and the logarithm of the growth, each over its variance.
    """
    cxcywh = xyxy_to_cxcywh(boxes)
    centres = (cxcywh[..., :2] - priors_cxcywh[..., :2]) / priors_cxcywh[..., 2:]
    growth = (cxcywh[..., 2:] / priors_cxcywh[..., 2:]).log()
    return torch.cat([centres, growth], dim=-1) / _variances_like(cxcywh, variances)


def decode_offsets(offsets: Tensor, priors_cxcywh: Tensor, variances: Sequence[float]) -> Tensor:
    """Return the boxes (..., 4) xyxy that lie at offsets (..., 4) from priors (..., 4)."""
    scaled = offsets * _variances_like(offsets, variances)
    centres = priors_cxcywh[..., :2] + scaled[..., :2] * priors_cxcywh[..., 2:]
    sizes = priors_cxcywh[..., 2:] * scaled[..., 2:].clamp(max=math.log(MAX_SCALE)).exp()
    return cxcywh_to_xyxy(torch.cat([centres, sizes], dim=-1))


def _variances_like(values: Tensor, variances: Sequence[float]) -> Tensor:
    """Return the variances as what `values` are and where they lie; a GPU is not waited for, as `new_tensor` does."""
    return torch.tensor(variances, dtype=values.dtype).to(values.device, non_blocking=True)
