"""Training photos that differ each time they are shown: windows and colours, sampled as plans before any pixel moves.

Every photo has one window (zoom out, crop, flip and resize in one resampling) and one colour transform.
`ssd.resampling` draws them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ssd.augmentation_config import AugmentationConfig
from ssd.containers import Target
from ssd.resampling import LEAST_SIDE, Plan, Rectangle, apply_plans, centres_inside, map_target

__all__ = ["augment", "plan_augmentation"]

Booleans = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def augment(
    photos: Sequence[Tensor] | Tensor,
    targets: Sequence[Target],
    config: AugmentationConfig,
    input_size: tuple[int, int],
    generator: np.random.Generator,
) -> tuple[Tensor, list[Target]]:
    """Return inputs (B, 3, height, width), float32 RGB 0..255 where the photos lie, and what each should show.

    Photos are uint8 (3, H, W) of any sizes, on any device; targets are in their pixels, on the CPU.
    """
    sizes = [(photo.shape[-2], photo.shape[-1]) for photo in photos]
    plans = plan_augmentation(sizes, targets, config, input_size, generator)
    return apply_plans(photos, plans), [map_target(*pair) for pair in zip(targets, plans, strict=True)]


def plan_augmentation(
    sizes: Sequence[tuple[int, int]],
    targets: Sequence[Target],
    config: AugmentationConfig,
    input_size: tuple[int, int],
    generator: np.random.Generator,
) -> list[Plan]:
    """Return a plan for each photo of size (H, W) with its target; the generator alone decides which."""
    if len(sizes) != len(targets):
        raise ValueError(f"Each photo has a target; got {len(sizes)} photos and {len(targets)} targets.")
    return [_plan(*pair, config, input_size, generator) for pair in zip(sizes, targets, strict=True)]


def _plan(
    size: tuple[int, int],
    target: Target,
    config: AugmentationConfig,
    input_size: tuple[int, int],
    generator: np.random.Generator,
) -> Plan:
    boxes = target.boxes.numpy().astype(np.float64)
    objects = boxes if target.ignore is None else boxes[~target.ignore.numpy()]
    ground = _zoomed_out(size, config, generator)
    crop = _cropped(ground, size, objects, config, generator)
    source, destination = _window(size, crop, input_size)
    flip = bool(generator.random() < config.flip_chance)
    if flip:
        left, top, right, bottom = destination
        destination = (input_size[1] - right, top, input_size[1] - left, bottom)
    colours = _colours(config, generator)
    return Plan(source, destination, input_size, flip, config.fill, config.smallest, **colours)


def _zoomed_out(size: tuple[int, int], config: AugmentationConfig, generator: np.random.Generator) -> Rectangle:
    """Return the ground that a photo lies on, xyxy in pixels of the photo: the photo itself, or more around it."""
    height, width = size
    if generator.random() >= config.zoom_chance:
        return 0, 0, width, height
    factor = generator.uniform(*config.zoom)
    wide, high = int(width * factor), int(height * factor)
    left, top = generator.integers(width - wide, 1), generator.integers(height - high, 1)
    return int(left), int(top), int(left) + wide, int(top) + high


def _cropped(
    ground: Rectangle,
    size: tuple[int, int],
    boxes: Floats,
    config: AugmentationConfig,
    generator: np.random.Generator,
) -> Rectangle:
    """Return a crop of the ground that meets one of the overlaps, or the ground.

    They are asked for in random order, each once, so that this ends; the paper's code and torchvision draw anew, also
    what has failed, until one is met.
    """
    for place in generator.permutation(len(config.overlaps)):
        overlap = config.overlaps[place]
        if overlap is None:
            break
        crops = _crops(ground, config, generator)
        met = crops[_meets(crops, size, boxes, overlap)]
        if len(met):
            left, top, right, bottom = met[0].astype(int).tolist()
            return left, top, right, bottom
    return ground


def _crops(ground: Rectangle, config: AugmentationConfig, generator: np.random.Generator) -> Floats:
    """Return crops (at most `trials`, 4) of whole pixels, xyxy, all of a ratio that the settings allow."""
    start, end = np.array(ground[:2]), np.array(ground[2:])
    shares = generator.uniform(*config.crop_scale, (config.trials, 2))
    sides = np.maximum(np.rint(shares * (end - start)), 1)
    starts = start + np.floor(generator.random((config.trials, 2)) * (end - start - sides + 1))
    ratios = sides[:, 0] / sides[:, 1]
    allowed = (config.crop_ratio[0] <= ratios) & (ratios <= config.crop_ratio[1])
    crops: Floats = np.concatenate([starts, starts + sides], axis=1)[allowed]
    return crops


def _meets(crops: Floats, size: tuple[int, int], boxes: Floats, overlap: float) -> Booleans:
    """Return (N,) true for crops with an object whose centre they show and whose IoU with them is the overlap or more.

    Where there are no objects, a crop shows photo at its own centre: some of it may be ground, not all.
    """
    photo = np.array([0.0, 0.0, size[1], size[0]])
    if not len(boxes):
        return centres_inside(crops, photo[None]).reshape(-1)
    shown = np.concatenate([np.maximum(crops[:, :2], photo[:2]), np.minimum(crops[:, 2:], photo[2:])], axis=1)
    met: Booleans = np.logical_or.reduce(centres_inside(boxes, shown) & (_iou(crops, boxes) >= overlap), axis=1)
    return met


def _iou(crops: Floats, boxes: Floats) -> Floats:
    """Return the intersection over union (N, G) of crops (N, 4) with boxes (G, 4), all with an area."""
    starts, ends = np.maximum(crops[:, None, :2], boxes[:, :2]), np.minimum(crops[:, None, 2:], boxes[:, 2:])
    sides = np.maximum(ends - starts, 0)
    common = sides[..., 0] * sides[..., 1]  # `prod` along two numbers takes six times as long
    areas, others = ((rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1]) for rows in (crops, boxes))
    iou: Floats = common / (areas[:, None] + others - common)
    return iou


def _window(size: tuple[int, int], crop: Rectangle, input_size: tuple[int, int]) -> tuple[Rectangle, Rectangle]:
    """Return the pixels of the photo that a crop shows, and those of the input that they fill."""
    spans = [_span(crop[axis], crop[axis + 2], size[1 - axis], input_size[1 - axis]) for axis in (0, 1)]
    (left, right, x0, x1), (top, bottom, y0, y1) = spans
    return (left, top, right, bottom), (x0, y0, x1, y1)


def _span(start: int, end: int, side: int, input_side: int) -> tuple[int, int, int, int]:
    """Return from where to where of the photo, then of the input, for one axis of a crop; two pixels at least."""
    first, last = max(start, 0), min(end, side)
    scale = input_side / (end - start)
    drawn = min(round((first - start) * scale), input_side - LEAST_SIDE)
    return first, last, drawn, max(round((last - start) * scale), drawn + LEAST_SIDE)


def _colours(config: AugmentationConfig, generator: np.random.Generator) -> dict[str, float]:
    """Return the colour numbers of a plan; one that chance leaves out is as in `Plan`."""
    names = (("brightness", "brightness_added"), ("contrast",), ("saturation",), ("hue",))
    colours: dict[str, float] = {}
    for group in names:
        if generator.random() < config.colour_chance:
            colours |= {name: generator.uniform(*getattr(config, name)) for name in group}
    return colours
