"""Connected regions of a mask, found on its horizontal runs instead of its pixels.

A facade mask of 350,000 pixels has some 5,000 runs, so everything after the first pass is cheap: about a seventh of
the time of skimage's `label` and `regionprops` (tests/bench/bench_components.py), which the tests hold it equal to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["Regions", "Runs", "bridge_gaps", "find_regions", "runs_of"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Runs:
    """Horizontal runs of equal value in reading order, half-open: (R,) arrays over an image of height x width."""

    values: npt.NDArray[Any]
    rows: Ints
    starts: Ints
    stops: Ints
    height: int
    width: int

    @property
    def lengths(self) -> Ints:
        """The number of pixels of each run."""
        return self.stops - self.starts

    def to_array(self) -> npt.NDArray[Any]:
        """Return the (H, W) image; the runs must cover it."""
        return np.repeat(self.values, self.lengths).reshape(self.height, self.width)

    def select(self, kept: npt.NDArray[np.bool_]) -> Runs:
        """Return some of the runs."""
        return replace(
            self, values=self.values[kept], rows=self.rows[kept], starts=self.starts[kept], stops=self.stops[kept]
        )


@dataclass(frozen=True)
class Regions:
    """Connected regions in reading order of their first pixel: values (G,), half-open xyxy (G, 4), areas (G,)."""

    values: npt.NDArray[Any]
    xyxy: Ints
    areas: Ints


def runs_of(codes: npt.NDArray[Any]) -> Runs:
    """Return the runs of an (H, W) array."""
    height, width = codes.shape
    flat = codes.ravel()
    begins = np.empty(flat.size, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[::width] = True
    first = np.flatnonzero(begins)
    rows, starts = np.divmod(first, width)
    return Runs(flat[first], rows, starts, starts + np.diff(first, append=flat.size), height, width)


def find_regions(runs: Runs) -> Regions:
    """Return the 8-connected regions of equal value; leave out what is not asked for with `Runs.select` before."""
    count = len(runs.values)
    if count == 0:
        return Regions(runs.values, np.zeros((0, 4), np.int64), np.zeros(0, np.int64))
    above, below = _touching(runs)
    links = coo_array((np.ones(len(above), np.int8), (above, below)), shape=(count, count))
    _, labels = connected_components(links.tocsr(), directed=False)
    order = np.argsort(labels, kind="stable")
    heads = np.flatnonzero(np.diff(labels[order], prepend=-1))
    first = order[heads]  # a region's first run, since the sort is stable
    last = order[np.append(heads[1:], count) - 1]
    xmin = np.minimum.reduceat(runs.starts[order], heads)
    xmax = np.maximum.reduceat(runs.stops[order], heads)
    xyxy = np.stack([xmin, runs.rows[first], xmax, runs.rows[last] + 1], axis=1)
    reading = np.argsort(first)
    areas = np.add.reduceat(runs.lengths[order], heads)
    return Regions(runs.values[first][reading], xyxy[reading], areas[reading])


def _touching(runs: Runs) -> tuple[Ints, Ints]:
    """Return the pairs of runs of equal value that touch, corners included: in the next row, or end to end in one."""
    stride = runs.width + 2
    starts, stops = runs.rows * stride + runs.starts, runs.rows * stride + runs.stops
    # Runs of one row are disjoint and sorted, so those below that touch run i are one range [low, high).
    low = np.searchsorted(stops, starts + stride, side="left")
    high = np.searchsorted(starts, stops + stride, side="right")
    counts = np.maximum(high - low, 0)
    above = np.repeat(np.arange(len(counts)), counts)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    below = np.repeat(low, counts) + offsets
    neighbours = np.flatnonzero(starts[1:] == stops[:-1])
    above, below = np.concatenate([above, neighbours]), np.concatenate([below, neighbours + 1])
    equal = runs.values[above] == runs.values[below]
    return above[equal], below[equal]


def bridge_gaps(values: npt.NDArray[Any], runs: Runs, occluder: npt.NDArray[np.bool_], most: int) -> npt.NDArray[Any]:
    """Return the values with short gaps closed: occluder runs of at most `most` pixels between two runs of one value.

    Values below 0 are of no interest and never closed. What stands in front of a building (a trunk, a lamp post, a
    car) parts it left from right; the run-wise rule closes that and never joins what is apart without an occluder.
    """
    kept = np.flatnonzero(~occluder)
    if len(kept) < 2:
        return values
    left, right = kept[:-1], kept[1:]
    same = (values[left] == values[right]) & (values[left] >= 0)
    same &= (runs.rows[left] == runs.rows[right]) & (right > left + 1)
    short = runs.starts[right] - runs.stops[left] <= most
    closed = values.copy()
    for before, after in zip(left[same & short], right[same & short], strict=True):
        closed[before + 1 : after] = values[before]
    return closed
