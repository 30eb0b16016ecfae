"""How a mask becomes boxes: regions at full resolution, or the report's own way for comparison."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.datasets.annotations.types import Flags, LabelRuns, TrueBoxes, fill_flags, no_flags
from pipeline.datasets.card import Card
from pipeline.imaging.run_length import Runs, runs_of
from pipeline.stages.extract.connected_components import Regions, bridge_gaps, find_regions

__all__ = ["Objects", "components_recipe", "epfl_recipe", "mark_suspects", "true_objects"]

EPFL_SIZE = 300


@dataclass(frozen=True)
class Objects:
    """The objects of one image: labels, half-open xyxy (G, 4), mask areas (G,) or -1, and how many were too small.

    `difficult` and `ignore` (G,) come from true boxes; left out, they are all False.
    """

    labels: tuple[str, ...]
    xyxy: npt.NDArray[np.float64]
    areas: npt.NDArray[np.int64]
    dropped: dict[str, int]
    difficult: Flags = field(default_factory=no_flags)
    ignore: Flags = field(default_factory=no_flags)

    def __post_init__(self) -> None:
        fill_flags(self, len(self.labels))


def components_recipe(card: Card, mask: LabelRuns, bridge: float = 0.0) -> Objects:
    """Return the 8-connected regions of each class; a class with a union is united with its members first.

    Args:
        card: says which classes get boxes, which names are united, and the smallest areas.
        mask: the annotation.
        bridge: the widest gap, as a share of the image's width, that an occluder may leave in an object; 0 leaves all.
    """
    runs, values = mask.runs, mask.runs.values
    found: list[tuple[str, Regions]] = []
    for members in _layers(card):
        lookup = np.full(len(card.names) + 1, -1, np.int16)  # the last entry is for -1, the unknown
        for name, label in members.items():
            lookup[card.names.index(name)] = card.labelled.index(label)
        layer = lookup[values]
        if bridge > 0:
            occluders = (layer < 0) & np.isin(values, [card.names.index(name) for name in card.occluders])
            layer = bridge_gaps(layer, runs, occluders, round(bridge * runs.width))
        regions = find_regions(replace(runs, values=layer).select(layer >= 0))
        found += [(label, _of_value(regions, card.labelled.index(label))) for label in dict.fromkeys(members.values())]
    return _objects(card, found, runs)


def epfl_recipe(card: Card, mask: LabelRuns) -> Objects:
    """Return the report's boxes: squash to 300x300, blur 5x5 and threshold (which grows by 2), outer contours.

    A 5x5 mean over a mask of 0 and 255 is above 1 wherever one pixel of the 25 is set: it is a maximum filter. Outer
    contours are the regions that lie in no hole of another. The report knows no union and no smallest area.
    """
    image = _squashed(mask.runs)
    scale = np.array([mask.runs.width, mask.runs.height] * 2) / EPFL_SIZE
    found = []
    for label in card.labelled:
        grown = ndimage.maximum_filter(image == card.names.index(label), size=5)
        outer = runs_of(ndimage.binary_fill_holes(grown))
        regions = find_regions(outer.select(outer.values))
        found.append((label, regions))
    labels = tuple(label for label, regions in found for _ in regions.areas)
    xyxy = np.concatenate([regions.xyxy for _, regions in found]) * scale
    areas = np.concatenate([regions.areas for _, regions in found]) * scale[0] * scale[1]
    return Objects(labels, xyxy, np.round(areas).astype(np.int64), {})


def true_objects(card: Card, boxes: TrueBoxes, width: int, height: int) -> Objects:
    """Return drawn boxes as they are, cut at the image's border; those of no area inside are counted as dropped."""
    limits = np.array([width, height, width, height], np.float64)
    xyxy = np.clip(boxes.xyxy, 0, limits).astype(np.float32).astype(np.float64)  # as the table will hold them
    wanted = np.array([label in card.labelled for label in boxes.labels], np.bool_)
    inside = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    dropped = [label for label, keep in zip(boxes.labels, wanted & ~inside, strict=True) if keep]
    kept = np.flatnonzero(wanted & inside)
    kept = kept[np.argsort([card.labelled.index(boxes.labels[i]) for i in kept], kind="stable")]
    labels, areas = tuple(boxes.labels[i] for i in kept), np.full(len(kept), -1, np.int64)
    counts = {label: dropped.count(label) for label in card.labelled if label in dropped}
    return Objects(labels, xyxy[kept], areas, counts, boxes.difficult[kept], boxes.ignore[kept])


def mark_suspects(objects: Objects) -> list[str | None]:
    """Return what looks wrong with each object: `speck`, `merged`, or None. Nothing is changed.

    A speck has a side under 4 pixels. Merged looks like two equal objects that touch in the mask: at least 1.8 times
    the median of its class in the image along one side and about the median along the other, with 5 to compare.
    """
    sides = objects.xyxy[:, 2:] - objects.xyxy[:, :2]
    suspects: list[str | None] = ["speck" if side < 4 else None for side in sides.min(1, initial=np.inf)]
    labels = np.array(objects.labels)
    for label in sorted(set(objects.labels)):
        own = np.flatnonzero(labels == label)
        ratio = sides[own] / np.median(sides[own], axis=0)
        merged = (ratio.max(1) >= 1.8) & (abs(np.log(ratio.min(1))) <= np.log(4 / 3)) & (len(own) >= 5)
        for position in own[merged]:
            suspects[position] = suspects[position] or "merged"
    return suspects


def _layers(card: Card) -> list[dict[str, str]]:
    """Return maps from name to class, one for all classes without a union and one for each class with one."""
    plain = {label: label for label in card.labelled if label not in card.unions}
    unions = [{label: label} | dict.fromkeys(members, label) for label, members in card.unions.items()]
    return ([plain] if plain else []) + unions


def _of_value(regions: Regions, value: int) -> Regions:
    own = regions.values == value
    return Regions(regions.values[own], regions.xyxy[own], regions.areas[own])


def _objects(card: Card, found: list[tuple[str, Regions]], runs: Runs) -> Objects:
    """Return regions as objects in order of class, without those under their class's smallest area."""
    found = sorted(found, key=lambda entry: card.labelled.index(entry[0]))
    kept: list[tuple[str, Regions]] = []
    dropped: dict[str, int] = {}
    for label, regions in found:
        large = regions.areas >= card.minimum_area(label, runs.height * runs.width)
        kept.append((label, Regions(regions.values[large], regions.xyxy[large], regions.areas[large])))
        if not large.all():
            dropped[label] = int((~large).sum())
    labels = tuple(label for label, regions in kept for _ in regions.areas)
    xyxy = np.concatenate([regions.xyxy for _, regions in kept]).astype(np.float64)
    return Objects(labels, xyxy, np.concatenate([regions.areas for _, regions in kept]), dropped)


def _squashed(runs: Runs) -> npt.NDArray[np.int16]:
    """Return the mask at 300x300, nearest neighbour as OpenCV has it: pixel i takes floor(i * scale)."""
    rows = np.arange(EPFL_SIZE) * runs.height // EPFL_SIZE
    columns = np.arange(EPFL_SIZE) * runs.width // EPFL_SIZE
    image: npt.NDArray[np.int16] = runs.to_array()[np.ix_(rows, columns)]
    return image
