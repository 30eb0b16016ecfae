"""How a mask becomes boxes: regions at full resolution, or the report's own way for comparison."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from pipeline.datasets.annotations.types import AnnotatedBoxes, Flags, RunLengthMask, fill_flags, no_flags
from pipeline.datasets.card import Card
from pipeline.imaging.run_length import RunLengthEncoding, encode_runs
from pipeline.stages.extract.connected_components import Regions, bridge_gaps, find_regions

__all__ = ["ExtractedObjects", "annotated_objects", "components_recipe", "epfl_recipe", "flag_suspicious"]

EPFL_SIZE = 300


@dataclass(frozen=True)
class ExtractedObjects:
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


def components_recipe(card: Card, mask: RunLengthMask, bridge: float = 0.0) -> ExtractedObjects:
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
            lookup[card.names.index(name)] = card.labelled_classes.index(label)
        layer = lookup[values]
        if bridge > 0:
            occluders = (layer < 0) & np.isin(values, [card.names.index(name) for name in card.occluders])
            layer = bridge_gaps(layer, runs, occluders, round(bridge * runs.width))
        regions = find_regions(replace(runs, values=layer).select(layer >= 0))
        found += [
            (label, _select_value(regions, card.labelled_classes.index(label)))
            for label in dict.fromkeys(members.values())
        ]
    return _merge_regions(card, found, runs)


def epfl_recipe(card: Card, mask: RunLengthMask) -> ExtractedObjects:
    """Return the report's boxes: squash to 300x300, blur 5x5 and threshold (which grows by 2), outer contours.

    A 5x5 mean over a mask of 0 and 255 is above 1 wherever one pixel of the 25 is set: it is a maximum filter. Outer
    contours are the regions that lie in no hole of another. The report knows no union and no smallest area.
    """
    image = _squash(mask.runs)
    scale = np.array([mask.runs.width, mask.runs.height] * 2) / EPFL_SIZE
    found = []
    for label in card.labelled_classes:
        grown = ndimage.maximum_filter(image == card.names.index(label), size=5)
        outer = encode_runs(ndimage.binary_fill_holes(grown))
        regions = find_regions(outer.select(outer.values))
        found.append((label, regions))
    labels = tuple(label for label, regions in found for _ in regions.areas)
    xyxy = np.concatenate([regions.xyxy for _, regions in found]) * scale
    areas = np.concatenate([regions.areas for _, regions in found]) * scale[0] * scale[1]
    return ExtractedObjects(labels, xyxy, np.round(areas).astype(np.int64), {})


def annotated_objects(card: Card, boxes: AnnotatedBoxes, width: int, height: int) -> ExtractedObjects:
    """Return drawn boxes as they are, cut at the image's border; those of no area inside are counted as dropped."""
    limits = np.array([width, height, width, height], np.float64)
    xyxy = np.clip(boxes.xyxy, 0, limits).astype(np.float32).astype(np.float64)  # as the table will hold them
    wanted = np.array([label in card.labelled_classes for label in boxes.labels], np.bool_)
    inside = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    dropped = [label for label, keep in zip(boxes.labels, wanted & ~inside, strict=True) if keep]
    kept = np.flatnonzero(wanted & inside)
    kept = kept[np.argsort([card.labelled_classes.index(boxes.labels[i]) for i in kept], kind="stable")]
    labels, areas = tuple(boxes.labels[i] for i in kept), np.full(len(kept), -1, np.int64)
    counts = {label: dropped.count(label) for label in card.labelled_classes if label in dropped}
    return ExtractedObjects(labels, xyxy[kept], areas, counts, boxes.difficult[kept], boxes.ignore[kept])


def flag_suspicious(objects: ExtractedObjects) -> list[str | None]:
    """Flag what looks wrong with each object: `speck`, `merged`, or None. No object is changed.

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
    plain = {label: label for label in card.labelled_classes if label not in card.merge_into}
    unions = [{label: label} | dict.fromkeys(members, label) for label, members in card.merge_into.items()]
    return ([plain] if plain else []) + unions


def _select_value(regions: Regions, value: int) -> Regions:
    own = regions.values == value
    return Regions(regions.values[own], regions.xyxy[own], regions.areas[own])


def _merge_regions(card: Card, class_regions: list[tuple[str, Regions]], runs: RunLengthEncoding) -> ExtractedObjects:
    """Return regions as objects in order of class, without those under their class's smallest area."""
    class_regions = sorted(class_regions, key=lambda entry: card.labelled_classes.index(entry[0]))
    kept: list[tuple[str, Regions]] = []
    dropped: dict[str, int] = {}
    for label, regions in class_regions:
        large = regions.areas >= card.minimum_area(label, runs.height * runs.width)
        kept.append((label, Regions(regions.values[large], regions.xyxy[large], regions.areas[large])))
        if not large.all():
            dropped[label] = int((~large).sum())
    labels = tuple(label for label, regions in kept for _ in regions.areas)
    xyxy = np.concatenate([regions.xyxy for _, regions in kept]).astype(np.float64)
    return ExtractedObjects(labels, xyxy, np.concatenate([regions.areas for _, regions in kept]), dropped)


def _squash(runs: RunLengthEncoding) -> npt.NDArray[np.int16]:
    """Return the mask at 300x300, nearest neighbour as OpenCV has it: pixel i takes floor(i * scale)."""
    rows = np.arange(EPFL_SIZE) * runs.height // EPFL_SIZE
    columns = np.arange(EPFL_SIZE) * runs.width // EPFL_SIZE
    image: npt.NDArray[np.int16] = runs.to_array()[np.ix_(rows, columns)]
    return image
