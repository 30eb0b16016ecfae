"""Priors fitted to boxes: the report's way made a rule, and greedily.

Both place priors on a grid: feature maps with a size, a step and so many shapes a cell. Each map has an octave of
scales to itself, from 1.75 steps to 3.5, the finest all below as well. Wider ranges cover more boxes and train worse:
objects are then trained on finer maps, whose features see little of them (windows of street photos lost half of their
AP75), and by so many priors there that the small ones, which only the finest map can learn, are outweighed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from pipeline.stages.priors.coverage import GroundTruthBoxes, coverage_score, prior_coverage
from ssd.priors.spec import PriorMap, PriorSpec

__all__ = ["GRIDS", "Grid", "fit_greedy", "fit_statistics", "jittered"]

Floats = npt.NDArray[np.float64]
Shapes = list[tuple[float, float]]
SHAPES_PER_OCTAVE = 4  # candidate shapes are quarters of an octave apart
SCALE_RANGE, FINEST_MIN_SCALE = (
    (1.75, 3.5),
    1.15,
)  # scales of a map's priors in steps, and where those of the finest map begin
MAX_FIT_BOXES, EVALUATION_IMAGES = 8_000, 60
JITTER_COPIES, JITTER_STRETCH, JITTER_SHIFT = (
    4,
    0.1,
    0.05,
)  # copies a box, spread of the log of its sides, largest move as a share of the input
# Gain stops at this IoU, and frequent classes weigh this much more than balance would have it: tried, scored, chosen.
IOU_CAPS, FREQUENCY_EXPONENTS = (0.55, 0.6, 0.65), (0.0, 0.25, 0.5)


@dataclass(frozen=True)
class Grid:
    """Where priors may be: an input size, and (cells a side, step in pixels, shapes a cell) for each map."""

    input_size: int
    maps: tuple[tuple[int, float, int], ...]

    @property
    def count(self) -> int:
        """The number of priors."""
        return sum(cells * cells * shapes for cells, _, shapes in self.maps)

    def scale_range(self, step: float) -> tuple[float, float]:
        """Return the smallest and largest square root of an area that a map with this step should learn."""
        least = FINEST_MIN_SCALE if step == min(step for _, step, _ in self.maps) else SCALE_RANGE[0]
        return min(least * step, 0.6 * self.input_size), min(SCALE_RANGE[1] * step, float(self.input_size))

    def min_side(self, cells: int, step: float) -> float:
        """Return the smallest side that leaves every prior some area: the last of ten centres at step 32 is at 304."""
        return max(4.0, 2 * ((cells - 0.5) * step - self.input_size) + 2)

    def make_spec(self, name: str, shapes: Sequence[Shapes]) -> PriorSpec:
        """Return the priors of these shapes on this grid; a map without shapes has the one that its step suggests."""
        maps = []
        for (cells, step, _), own in zip(self.maps, shapes, strict=True):
            side = min(2 * step, float(self.input_size))
            kept = tuple(sorted(own, key=lambda shape: shape[0] * shape[1])) or ((side, side),)
            maps.append(PriorMap((cells, cells), (step, step), kept))
        return PriorSpec(name, (self.input_size, self.input_size), tuple(maps), clip=True)


GRIDS = {
    300: Grid(300, ((38, 8, 4), (19, 16, 6), (10, 32, 6), (5, 64, 6), (3, 100, 4), (1, 300, 4))),
    512: Grid(512, ((64, 8, 4), (32, 16, 6), (16, 32, 6), (8, 64, 6), (4, 128, 6), (2, 256, 4), (1, 512, 4))),
}


def fit_greedy(grid: Grid, ground_truths: GroundTruthBoxes, seed: int = 0) -> PriorSpec:
    """Return the priors that score best of those that greedy choice makes, over caps and class weights.

    Each slot takes the (map, width, height) with the largest weighted gain of min(best IoU, cap) over jittered boxes at
    their places, so that the shapes are those of many buildings and not of a few.
    """
    rng = np.random.default_rng(seed)
    sample = _sample_boxes(ground_truths, MAX_FIT_BOXES // JITTER_COPIES, rng)
    boxes, labels = jittered(grid, sample, rng)
    gains = _GreedySelector.from_boxes(grid, boxes)
    sampled = _sample_images(ground_truths, EVALUATION_IMAGES, rng)
    best: tuple[float, PriorSpec] | None = None
    for cap, leaning in product(IOU_CAPS, FREQUENCY_EXPONENTS):
        spec = grid.make_spec("greedy", gains.select_shapes(_box_weights(labels, leaning), cap))
        value = coverage_score(prior_coverage(spec, sampled))
        if best is None or value > best[0]:
            best = value, spec
    assert best is not None
    return best[1]


def fit_statistics(grid: Grid, shapes: Mapping[tuple[float, float], float]) -> PriorSpec:
    """Return the report's way as a rule: scales from quantiles of the area ratio, aspect ratios from the histogram.

    Args:
        grid: where the priors go.
        shapes: how often each (width, height) at the input's size occurs, classes balanced.
    """
    sides = np.array(list(shapes), np.float64).reshape(-1, 2)
    weights = np.array(list(shapes.values()), np.float64)
    count = len(grid.maps)
    scales = _weighted_quantiles(np.sqrt(sides.prod(1)), weights, (np.arange(count + 1) + 0.5) / (count + 1))
    chosen: list[Shapes] = []
    for (cells, step, slots), scale, following in zip(grid.maps, scales[:-1], scales[1:], strict=True):
        ratios = _weighted_quantiles(sides[:, 0] / sides[:, 1], weights, (np.arange(slots - 1) + 0.5) / (slots - 1))
        own = [(scale * np.sqrt(ratio), scale / np.sqrt(ratio)) for ratio in ratios]
        extra = np.sqrt(scale * following)  # the paper's additional square between two scales
        bounded = np.clip([*own, (extra, extra)], grid.min_side(cells, step), grid.input_size)
        chosen.append([(float(width), float(height)) for width, height in np.unique(bounded, axis=0)])
    return grid.make_spec("statistics", chosen)


def jittered(
    grid: Grid, ground_truths: GroundTruthBoxes, rng: np.random.Generator
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return boxes in input pixels, each several times, stretched and moved a little inside the input; and classes."""
    size = grid.input_size
    boxes = np.repeat(ground_truths.xyxy, JITTER_COPIES, axis=0) * size
    sides = (boxes[:, 2:] - boxes[:, :2]) * np.exp(rng.normal(0, JITTER_STRETCH, (len(boxes), 2)))
    sides = np.clip(sides, 1.0, size)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + rng.uniform(-JITTER_SHIFT, JITTER_SHIFT, (len(boxes), 2)) * size
    centres = np.clip(centres, sides / 2, size - sides / 2)
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1), np.repeat(
        ground_truths.labels, JITTER_COPIES
    )


@dataclass(frozen=True)
class _GreedySelector:
    """Candidates (K,): their map and shape, and the (K, G) IoU of each box with the candidate at the nearest centre."""

    grid: Grid
    maps: npt.NDArray[np.int64]
    shapes: Floats
    overlaps: npt.NDArray[np.float32]

    @classmethod
    def from_boxes(cls, grid: Grid, boxes: Floats) -> _GreedySelector:
        candidates = _candidates(boxes)
        scale = np.sqrt(candidates.prod(1))
        maps, shapes, overlaps = [], [], []
        for position, (cells, step, _) in enumerate(grid.maps):
            low, high = grid.scale_range(step)
            large = candidates.min(1) >= grid.min_side(cells, step)
            own = candidates[(scale >= low) & (scale <= high) & large]
            maps.append(np.full(len(own), position))
            shapes.append(own)
            overlaps.append(_nearest_overlaps(own, cells, step, grid.input_size, boxes))
        return cls(grid, np.concatenate(maps), np.concatenate(shapes), np.concatenate(overlaps))

    def select_shapes(self, weights: npt.NDArray[np.float32], cap: float) -> list[Shapes]:
        """Return the shapes of each map; where no slot gains below the cap any more, the cap is lifted."""
        left = np.array([slots for _, _, slots in self.grid.maps])
        best = np.zeros(self.overlaps.shape[1], np.float32)
        free = np.ones(len(self.maps), bool)
        chosen: list[Shapes] = [[] for _ in self.grid.maps]
        while (open_ := free & (left[self.maps] > 0)).any():
            gains = _gain(self.overlaps[open_], best, cap) @ weights
            if gains.max() <= 1e-6 and cap < 1:
                cap = 1.0
                continue
            winner = np.flatnonzero(open_)[gains.argmax()]
            chosen[self.maps[winner]].append((float(self.shapes[winner, 0]), float(self.shapes[winner, 1])))
            left[self.maps[winner]] -= 1
            free[winner] = False
            best = np.maximum(best, self.overlaps[winner])
        return chosen


def _gain(overlaps: npt.NDArray[np.float32], best: npt.NDArray[np.float32], cap: float) -> npt.NDArray[np.float32]:
    gained: npt.NDArray[np.float32] = np.maximum(np.minimum(overlaps, cap) - np.minimum(best, cap), 0)
    return gained


def _candidates(boxes: Floats) -> Floats:
    """Return the shapes that occur, rounded to quarters of an octave, those of a single box left out."""
    sides = np.round(np.log2(boxes[:, 2:] - boxes[:, :2]) * SHAPES_PER_OCTAVE)
    shapes, counts = np.unique(sides, axis=0, return_counts=True)
    kept: Floats = np.minimum(2 ** (shapes[counts > 1] / SHAPES_PER_OCTAVE), boxes.max())
    return kept


def _nearest_overlaps(shapes: Floats, cells: int, step: float, size: int, boxes: Floats) -> npt.NDArray[np.float32]:
    """Return the (K, G) IoU of each box with each shape at the centre nearest to it, cut at the input's border."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    centres = (np.clip(np.floor(middles / step), 0, cells - 1) + 0.5) * step
    low = np.maximum(centres[None] - shapes[:, None] / 2, 0)
    high = np.minimum(centres[None] + shapes[:, None] / 2, size)
    shared = (np.minimum(high, boxes[None, :, 2:]) - np.maximum(low, boxes[None, :, :2])).clip(0).prod(-1)
    areas = (high - low).prod(-1) + (boxes[:, 2:] - boxes[:, :2]).prod(-1)[None]
    overlaps: npt.NDArray[np.float32] = (shared / (areas - shared)).astype(np.float32)
    return overlaps


def _box_weights(labels: npt.NDArray[np.int64], frequency_exponent: float) -> npt.NDArray[np.float32]:
    """Return a weight a box: at leaning 0 each class weighs the same, at 1 each box does."""
    counts = np.bincount(labels).astype(np.float64)
    weights: npt.NDArray[np.float32] = (np.maximum(counts, 1) ** (frequency_exponent - 1))[labels].astype(np.float32)
    return weights


def _sample_boxes(ground_truths: GroundTruthBoxes, max_boxes: int, rng: np.random.Generator) -> GroundTruthBoxes:
    """Return at most so many boxes of each class that the classes' counts keep their order."""
    kept = []
    for label in np.unique(ground_truths.labels):
        own = np.flatnonzero(ground_truths.labels == label)
        kept.append(rng.permutation(own)[: max(1, max_boxes // 2)])
    return ground_truths.select(np.sort(np.concatenate(kept)))


def _sample_images(ground_truths: GroundTruthBoxes, max_images: int, rng: np.random.Generator) -> GroundTruthBoxes:
    images = np.unique(ground_truths.images)
    return ground_truths.select(np.isin(ground_truths.images, rng.permutation(images)[:max_images]))


def _weighted_quantiles(values: Floats, weights: Floats, shares: Floats) -> Floats:
    order = np.argsort(values, kind="stable")
    share = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    found: Floats = np.interp(shares, share, values[order])
    return found
