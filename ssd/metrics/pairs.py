"""Pairs of detections and ground truths of the same image and class, as flat arrays, without a loop over images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ssd.metrics.flat_arrays import DetectionArrays, GroundTruthArrays

__all__ = ["CHUNK", "Pairs", "chunks", "iou_of_pairs", "match_keys"]

CHUNK: Final = 1 << 16  # pairs of a detection and a truth at a time: they stay in the processor's cache

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
AnyFloats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Pairs:
    """Each of some rows with its run of other rows, the pairs one after the other.

    Attributes:
        first: of each pair, the row.
        second: of each pair, the other row.
        begins: of each row, its first pair; each has one.
    """

    first: Ints
    second: Ints
    begins: Ints

    @classmethod
    def from_runs(cls, runs: Ints, sizes: Ints) -> Pairs:
        """Return the pairs of rows whose runs of other rows begin there and are so long."""
        begins = np.cumsum(sizes) - sizes
        first = np.repeat(np.arange(len(sizes)), sizes)
        return cls(first, np.arange(len(first)) + (runs - begins)[first], begins)

    def max_per_row(self, values: Floats) -> tuple[Floats, Ints]:
        """Return of each row the largest value, and the first pair that has it."""
        largest = np.maximum.reduceat(values, self.begins)
        pairs = np.flatnonzero(values == largest[self.first])[::-1]
        at = np.empty(len(self.begins), dtype=np.int64)
        at[self.first[pairs]] = pairs
        return largest, at


def chunks(sizes: Ints, chunk: int) -> Iterator[Ints]:
    """Yield the rows that have pairs, in groups of at most `chunk` pairs, or of one row that has more."""
    rows = np.flatnonzero(sizes)
    ends = np.cumsum(sizes[rows])
    begin = done = 0
    while begin < len(rows):
        end = max(begin + 1, int(np.searchsorted(ends, done + chunk, side="right")))
        yield rows[begin:end]
        begin, done = end, int(ends[end - 1])


def iou_of_pairs(first: AnyFloats, second: AnyFloats) -> Floats:
    """Return the IoU (K,) of boxes (K, 4) with boxes (K, 4); that of a box without area is 0."""
    one, other = (boxes.T.astype(np.float64, order="C") for boxes in (first, second))  # columns, each in one piece
    both = _area(np.concatenate([np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])]))
    union = _area(one) + _area(other) - both
    return np.divide(both, union, out=np.zeros_like(both), where=both > 0)


def _area(columns: Floats) -> Floats:
    """Return the areas (K,) of boxes as columns (4, K)."""
    width, height = np.maximum(columns[2:] - columns[:2], 0)
    area: Floats = width * height
    return area


def match_keys(rows: DetectionArrays | GroundTruthArrays, classes: int) -> Ints:
    """Return one number for each pair of image and label."""
    keys: Ints = rows.images.astype(np.int64) * classes + rows.labels.astype(np.int64)
    return keys
