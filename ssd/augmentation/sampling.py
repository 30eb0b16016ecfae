"""Training photos that differ each time they are shown: windows and colours, sampled as plans before any pixel moves.

Every photo has one window (zoom out, crop, flip and resize in one resampling) and one colour transform.
`ssd.resampling` draws them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ssd.augmentation.config import AugmentationConfig
from ssd.augmentation.transforms import TransformPlan, apply_plans, map_targets
from ssd.containers import Target
from ssd.resize import MIN_SIDE

__all__ = ["augment", "plan_augmentation"]

Booleans = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
# Boxes (G, 4), and which photo each is of.
_PackedObjects = tuple[Floats, Ints]


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
    return apply_plans(photos, plans), map_targets(targets, plans)


def plan_augmentation(
    sizes: Sequence[tuple[int, int]],
    targets: Sequence[Target],
    config: AugmentationConfig,
    input_size: tuple[int, int],
    generator: np.random.Generator,
) -> list[TransformPlan]:
    """Return a plan for each photo of size (H, W) with its target; the generator alone decides which."""
    if len(sizes) != len(targets):
        raise ValueError(f"Each photo has a target; got {len(sizes)} photos and {len(targets)} targets.")
    photos = np.array([[0, 0, width, height] for height, width in sizes], dtype=np.float64).reshape(-1, 4)
    grounds = _sample_zooms(photos, config, generator)
    crops = _sample_crops(grounds, photos, _pack_objects(targets), config, generator)
    sources, destinations = _to_windows(photos, crops, input_size)
    flips = generator.random(len(photos)) < config.flip_chance
    destinations[flips, ::2] = input_size[1] - destinations[flips, 2::-2]
    return [
        TransformPlan(tuple(source), tuple(destination), input_size, flip, config.fill, config.min_side, *colours)
        for source, destination, flip, colours in zip(
            sources.astype(int).tolist(),
            destinations.astype(int).tolist(),
            flips.tolist(),
            _sample_colours(len(photos), config, generator).tolist(),
            strict=True,
        )
    ]


def _pack_objects(targets: Sequence[Target]) -> _PackedObjects:
    """Pack the boxes of all photos that are not ignored."""
    boxes = [t.boxes.numpy() if t.ignore is None else t.boxes.numpy()[~t.ignore.numpy()] for t in targets]
    owners = np.repeat(np.arange(len(targets)), [len(some) for some in boxes])
    return np.concatenate([np.zeros((0, 4)), *boxes], dtype=np.float64), owners


def _sample_zooms(photos: Floats, config: AugmentationConfig, generator: np.random.Generator) -> Floats:
    """Return the ground (B, 4) that each photo lies on, in pixels of the photo: the photo itself, or more around it."""
    sides = photos[:, 2:]
    zoomed = generator.random(len(photos)) < config.zoom_chance
    factors = np.where(zoomed, generator.uniform(*config.zoom, len(photos)), 1.0)
    larger = np.floor(sides * factors[:, None])
    starts = generator.integers((sides - larger).astype(np.int64), 1)
    return np.concatenate([starts, starts + larger], axis=1)


def _sample_crops(
    canvases: Floats,
    photos: Floats,
    objects: _PackedObjects,
    config: AugmentationConfig,
    generator: np.random.Generator,
) -> Floats:
    """Return a crop (B, 4) of each ground that meets one of the overlaps, or the ground.

    They are tried in random order, each once, so that this ends; the paper's code and torchvision sample again, also
    those that failed, until one is met.
    """
    crops, looking = canvases.copy(), np.arange(len(canvases))
    overlaps = np.array([np.nan if overlap is None else overlap for overlap in config.min_crop_ious])
    for places in generator.permuted(np.tile(np.arange(len(overlaps)), (len(canvases), 1)), axis=1).T:
        looking = looking[~np.isnan(overlaps[places[looking]])]  # of the others, the whole ground is the crop
        if not len(looking):
            break
        tried, allowed = _propose_crops(canvases[looking], config, generator)
        met = allowed & _keeps_object(tried, photos[looking], _objects_of(objects, looking), overlaps[places[looking]])
        found, first = met.any(axis=1), met.argmax(axis=1)
        crops[looking[found]] = tried[found, first[found]]
        looking = looking[~found]
    return crops


def _propose_crops(
    canvases: Floats, config: AugmentationConfig, generator: np.random.Generator
) -> tuple[Floats, Booleans]:
    """Return crops (N, trials, 4) of whole pixels, and whether the settings allow their ratios (N, trials)."""
    start, end = canvases[:, None, :2], canvases[:, None, 2:]
    shape = (len(canvases), config.trials, 2)
    sides = np.maximum(np.rint(generator.uniform(*config.crop_scale, shape) * (end - start)), 1)
    starts = start + np.floor(generator.random(shape) * (end - start - sides + 1))
    ratios = sides[..., 0] / sides[..., 1]
    allowed: Booleans = (config.crop_ratio[0] <= ratios) & (ratios <= config.crop_ratio[1])
    return np.concatenate([starts, starts + sides], axis=2), allowed


def _objects_of(objects: _PackedObjects, photos: Ints) -> _PackedObjects:
    """Return the objects of some photos, which are told by their places among these."""
    boxes, owners = objects
    places = np.searchsorted(photos, owners).clip(max=len(photos) - 1)
    theirs = photos[places] == owners
    return boxes[theirs], places[theirs]


def _keeps_object(crops: Floats, photos: Floats, objects: _PackedObjects, min_ious: Floats) -> Booleans:
    """Return (N, trials) true for crops with an object whose centre they show and whose IoU with them is the overlap.

    Where there are no objects, a crop shows photo at its own centre: some of it may be ground, not all.
    """
    boxes, owners = objects
    middles = (crops[..., :2] + crops[..., 2:]) / 2
    bare = np.bincount(owners, minlength=len(photos)) == 0
    met: Booleans = bare[:, None] & ((middles > 0) & (middles < photos[:, None, 2:])).all(axis=2)
    areas = (crops[..., 2] - crops[..., 0]) * (crops[..., 3] - crops[..., 1])
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    able = sizes >= (min_ious * areas.min(axis=1))[owners]  # windows mostly are too small for any crop
    boxes, owners, sizes = boxes[able], owners[able], sizes[able, None]
    # An array a coordinate: along an axis of two or four numbers NumPy takes several times as long.
    left, top, right, bottom = np.ascontiguousarray(np.moveaxis(crops[owners], 2, 0))
    xmin, ymin, xmax, ymax = boxes.T[..., None]
    width, height = photos[owners].T[2:, :, None]
    x, y = (xmin + xmax) / 2, (ymin + ymax) / 2
    shown = (np.maximum(left, 0) < x) & (x < np.minimum(right, width))
    shown &= (np.maximum(top, 0) < y) & (y < np.minimum(bottom, height))
    wide, high = np.minimum(right, xmax) - np.maximum(left, xmin), np.minimum(bottom, ymax) - np.maximum(top, ymin)
    common = np.maximum(wide, 0) * np.maximum(high, 0)
    iou = common / (areas[owners] + sizes - common)
    np.logical_or.at(met, owners, shown & (iou >= min_ious[owners, None]))
    return met


def _to_windows(photos: Floats, crops: Floats, input_size: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return the pixels of a photo that its crop shows, and of the input those that they fill, two or more a side."""
    start, end, sides = crops[:, :2], crops[:, 2:], np.array(input_size[::-1])
    first, last = np.maximum(start, 0), np.minimum(end, photos[:, 2:])
    scale = sides / (end - start)
    drawn = np.minimum(np.rint((first - start) * scale), sides - MIN_SIDE)
    until = np.maximum(np.rint((last - start) * scale), drawn + MIN_SIDE)
    return np.concatenate([first, last], axis=1), np.concatenate([drawn, until], axis=1)


def _sample_colours(count: int, config: AugmentationConfig, generator: np.random.Generator) -> Floats:
    """Return the colour numbers of so many plans, (B, 5) in the order of `Plan`; chance leaves some out."""
    names = ("brightness", "brightness_added", "contrast", "saturation", "hue")
    low, high = np.array([getattr(config, name) for name in names]).T
    changed = (generator.random((count, 4)) < config.colour_chance)[:, [0, 0, 1, 2, 3]]  # brightness is one of four
    return np.where(changed, generator.uniform(low, high, (count, 5)), [1.0, 0.0, 1.0, 1.0, 0.0])
