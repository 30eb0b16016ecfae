"""Resize photos to the detector's input size."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

__all__ = ["resize_photo"]

# torch 2.13 resizes to a width of one pixel wrongly as floats (by up to 232 grey levels), and to 1x1 not at all.
MIN_SIDE: Final = 2


def resize_photo(photo: Tensor, height: int, width: int) -> Tensor:
    """Return a photo (3, H, W) squashed to (3, height, width), both uint8, for training and detection alike.

    Bilinear without aliasing, within one grey level of Pillow's; where noise is enlarged, within two.
    """
    check_resize(photo, height, width)
    if photo.shape[1:] == (height, width):
        return photo.clone()
    if supports_uint8_resize(photo.device):
        return resize_batch(photo, height, width)
    return to_bytes(resize_batch(photo.float(), height, width)).to(torch.uint8)


def check_resize(photo: Tensor, height: int, width: int) -> None:
    if photo.dtype != torch.uint8 or photo.ndim != 3 or photo.shape[0] != 3 or not photo.numel():
        raise ValueError(f"A photo is uint8 of shape (3, H, W); got {photo.dtype} {tuple(photo.shape)}.")
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"A photo is resized to {MIN_SIDE} pixels or more each way; got {(height, width)}.")


def supports_uint8_resize(device: torch.device) -> bool:
    """Return whether torch resizes uint8 there, as it does on a CPU alone."""
    return device.type == "cpu"


def resize_batch(photo: Tensor, height: int, width: int) -> Tensor:
    return interpolate(photo[None], (height, width), mode="bilinear", antialias=True)[0]


def to_bytes(floats: Tensor) -> Tensor:
    """Return the whole grey levels that uint8 would hold, in place."""
    return floats.round_().clamp_(0, 255)
