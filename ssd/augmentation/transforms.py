"""Photos resampled to the input of the detector: the plain resize, and what a plan draws and does to the boxes.

A plan is plain numbers. Both of its rectangles are whole pixels, so the boxes are mapped by the very scale at which
the pixels are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssd.containers import Target, construct_unchecked
from ssd.resize import check_resize, resize_batch, supports_uint8_resize, to_bytes

__all__ = ["TransformPlan", "apply_plans", "map_target", "map_targets"]

Rectangle = tuple[int, int, int, int]
Floats = npt.NDArray[np.float64]

LUMA: Final = np.array([0.299, 0.587, 0.114])
# NTSC's I and Q; each sums to zero, so a grey has no chroma.
CHROMA: Final = np.array([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB_TO_YIQ: Final = np.vstack([LUMA, CHROMA])
_YIQ_TO_RGB: Final = np.linalg.inv(_RGB_TO_YIQ)
_GREY_MATRIX: Final = np.outer(_YIQ_TO_RGB[:, 0], LUMA)
_HUE_QUARTER_TURN: Final = (
    _YIQ_TO_RGB @ np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]]) @ _RGB_TO_YIQ
)  # a turn from red towards yellow


@dataclass(frozen=True)
class TransformPlan:
    """How one photo is drawn into one input.

    Attributes:
        source: xyxy, the whole pixels of the photo that are seen.
        destination: xyxy, the whole pixels of the input that they fill.
        input_size: (height, width) of the input.
        flip: true where the photo is drawn mirrored, left for right, in the same destination.
        fill: red, green and blue of the input around the destination; the colour numbers do not touch it.
        min_side: a box with a side below it, in pixels of the input, becomes ignored rather than an object.
        brightness: factor of all channels.
        brightness_added: grey levels added to all channels.
        contrast: factor of the distance from the mean grey of what is seen of the photo.
        saturation: factor of the distance from each pixel's own grey.
        hue: turns, from red towards yellow.
    """

    source: Rectangle
    destination: Rectangle
    input_size: tuple[int, int]
    flip: bool = False
    fill: tuple[float, float, float] = (0.0, 0.0, 0.0)
    min_side: float = 0.0
    brightness: float = 1.0
    brightness_added: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        height, width = self.input_size
        for name, (left, top, right, bottom) in (("source", self.source), ("destination", self.destination)):
            if not (0 <= left < right and 0 <= top < bottom):
                raise ValueError(f"The {name} of a plan is xyxy from 0 with a size; got {(left, top, right, bottom)}.")
        if self.destination[2] > width or self.destination[3] > height:
            raise ValueError(f"The destination of a plan lies inside {self.input_size}; got {self.destination}.")

    @property
    def recolours(self) -> bool:
        """True where the colours of the photo change."""
        factors = (self.brightness, self.contrast, self.saturation)
        return factors != (1.0, 1.0, 1.0) or (self.brightness_added, self.hue) != (0.0, 0.0)


def apply_plans(photos: Sequence[Tensor] | Tensor, plans: Sequence[TransformPlan]) -> Tensor:
    """Return the inputs (B, 3, height, width), float32 RGB 0..255, of uint8 photos (3, H, W) of any sizes.

    The work is done, and the inputs lie, where the photos lie; a GPU is never waited for. The memory format is the
    usual one: drawing is planar, and a network in channels_last converts in 0.2 ms a photo (bench_augmentation.py).
    """
    if len(photos) != len(plans) or not plans or len({plan.input_size for plan in plans}) > 1:
        sizes = sorted({plan.input_size for plan in plans})
        raise ValueError(
            f"Photos and plans are as many, one at least, for one input size; got {len(photos)} photos and "
            f"{len(plans)} plans for {sizes}."
        )
    kind = torch.uint8 if supports_uint8_resize(photos[0].device) else torch.float32
    drawn = photos[0].new_zeros((len(plans), 3, *plans[0].input_size), dtype=kind)
    for canvas, photo, plan in zip(drawn, photos, plans, strict=True):
        _paste(canvas, photo, plan)
    # Of floats all photos are rounded at once: few steps, each of which a GPU is told by Python.
    inputs = to_bytes(drawn) if drawn.is_floating_point() else drawn.float()
    return _fill_margins(_recolour(inputs, plans) if any(plan.recolours for plan in plans) else inputs, plans)


def map_target(target: Target, plan: TransformPlan) -> Target:
    """Map a target to the input: boxes clipped to the visible part of the photo, in pixels of the input.

    An object stays where its centre is seen, a region to ignore where any of it is. No box is left without a size.
    """
    return map_targets([target], [plan])[0]


def map_targets(targets: Sequence[Target], plans: Sequence[TransformPlan]) -> list[Target]:
    """Map many targets at once, as `map_target` does.

    As arrays of all boxes: of the few boxes of one photo, Python would take longer than the arithmetic.
    """
    counts = [len(target.boxes) for target in targets]
    boxes = np.concatenate([target.boxes.numpy() for target in targets]).astype(np.float64)
    labels = np.concatenate([target.labels.numpy() for target in targets])
    ignore = np.concatenate([_ignore_mask(target) for target in targets])
    sources, destinations = (
        np.array([getattr(plan, name) for plan in plans], dtype=np.float64).repeat(counts, axis=0)
        for name in ("source", "destination")
    )
    flips, min_sides = (np.array([getattr(p, name) for p in plans]).repeat(counts) for name in ("flip", "min_side"))
    mapped = _map_boxes(boxes, sources, destinations, flips)
    sides = np.minimum(mapped[:, 2] - mapped[:, 0], mapped[:, 3] - mapped[:, 1])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    seen = ((sources[:, :2] < centres) & (centres < sources[:, 2:])).all(axis=1)
    kept = (sides > 0) & (ignore | seen)
    sizes = [int(some.sum()) for some in np.split(kept, np.cumsum(counts)[:-1])]
    parts = (mapped[kept], labels[kept], (ignore | (sides < min_sides))[kept])
    split = (torch.split(torch.from_numpy(part), sizes) for part in parts)
    return [
        construct_unchecked(Target, boxes=some, labels=their, ignore=ignored, labelled=target.labelled)
        for target, some, their, ignored in zip(targets, *split, strict=True)
    ]


def _ignore_mask(target: Target) -> npt.NDArray[np.bool_]:
    return np.zeros(len(target.boxes), dtype=np.bool_) if target.ignore is None else target.ignore.numpy()


def _map_boxes(
    boxes: Floats, sources: Floats, destinations: Floats, flips: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Return boxes (N, 4) of photos, clipped to their sources, in their destinations.

    Multiplied before divided, and whole: a box that ends with the source ends exactly with the destination.
    """
    (start, end), (to_start, to_end) = (np.hsplit(rows, 2) for rows in (sources, destinations))
    corners = [np.minimum(np.maximum(corner, start), end) for corner in np.hsplit(boxes, 2)]
    low, high = ((corner - start) * (to_end - to_start) / (end - start) for corner in corners)
    whole = (to_end - to_start)[flips, 0]
    low[flips, 0], high[flips, 0] = whole - high[flips, 0], whole - low[flips, 0]
    return np.concatenate([to_start + low, to_start + high], axis=1).astype(np.float32)


def _paste(canvas: Tensor, photo: Tensor, plan: TransformPlan) -> None:
    """Draw the photo, resampled and in its own colours, into a canvas (3, height, width)."""
    (left, top, right, bottom), (x0, y0, x1, y1) = plan.source, plan.destination
    if right > photo.shape[-1] or bottom > photo.shape[-2]:
        raise ValueError(f"The source of a plan lies inside its photo, {tuple(photo.shape)}; got {plan.source}.")
    check_resize(photo, y1 - y0, x1 - x0)
    seen = photo[:, top:bottom, left:right].to(canvas.dtype)
    window = seen if seen.shape[1:] == (y1 - y0, x1 - x0) else resize_batch(seen, y1 - y0, x1 - x0)
    canvas[:, y0:y1, x0:x1] = window.flip(-1) if plan.flip else window


def _recolour(inputs: Tensor, plans: Sequence[TransformPlan]) -> Tensor:
    """Return pictures (B, 3, H, W) in their new colours, 0..255: one affine map of red, green and blue for each.

    The mean grey that contrast turns around is taken over the destination; the canvas around it is black.
    """
    numbers = np.array([[p.brightness, p.brightness_added, p.contrast, p.saturation, p.hue] for p in plans])
    areas = np.array([(p.destination[2] - p.destination[0]) * (p.destination[3] - p.destination[1]) for p in plans])
    matrices, around = _colour_matrices(*numbers.T[[0, 2, 3, 4]])
    weights = np.outer(around / areas, LUMA)
    matrix, weight, added = (_send(array, inputs) for array in (matrices, weights, numbers[:, 1]))
    offset = (inputs.sum(dim=(2, 3)) * weight).sum(dim=1) + added
    with _full_precision(inputs.device):
        return torch.baddbmm(offset[:, None, None], matrix, inputs.flatten(2)).clamp_(0, 255).view_as(inputs)


def _full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Return a context without autocast: half the bits would round greys to whole numbers."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def _colour_matrices(brightness: Floats, contrast: Floats, saturation: Floats, hue: Floats) -> tuple[Floats, Floats]:
    """Return matrices (B, 3, 3), and the factors (B,) of the mean grey that is added to what they give.

    Hue turns the plane of I and Q, in place of HSV's angle, because that is linear: the four changes are one matrix,
    luma is kept, and no pixel takes a branch. Their order means nothing here: saturation and hue keep luma, and so
    the mean grey, and map a grey to itself. (In torchvision and the paper's code the order differs by what is
    clipped in between; here only the end is clipped.)
    """
    angle = 2 * np.pi * hue[:, None, None]
    turned = saturation[:, None, None] * (
        np.cos(angle) * (np.eye(3) - _GREY_MATRIX) + np.sin(angle) * _HUE_QUARTER_TURN
    )
    return (brightness * contrast)[:, None, None] * (_GREY_MATRIX + turned), brightness * (1 - contrast)


def _fill_margins(inputs: Tensor, plans: Sequence[TransformPlan]) -> Tensor:
    """Return the inputs with each plan's fill around its destination."""
    height, width = plans[0].input_size
    if all(plan.destination == (0, 0, width, height) for plan in plans):
        return inputs
    numbers = _send(np.array([(*plan.destination, *plan.fill) for plan in plans]), inputs)
    left, top, right, bottom = numbers[:, :4, None].unbind(dim=1)
    x, y = (torch.arange(side, device=inputs.device) for side in (width, height))
    seen = ((left <= x) & (x < right))[:, None, None, :] & ((top <= y) & (y < bottom))[:, None, :, None]
    return torch.where(seen, inputs, numbers[:, 4:, None, None])


def _send(array: Floats, like: Tensor) -> Tensor:
    """Return the numbers as float32 where `like` lies, without waiting for it."""
    return torch.from_numpy(array.astype(np.float32)).to(like.device, non_blocking=True)
