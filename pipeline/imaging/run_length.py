"""Run-length encoding of label images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RunLengthEncoding", "encode_runs"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RunLengthEncoding:
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

    def select(self, mask: npt.NDArray[np.bool_]) -> RunLengthEncoding:
        """Return some of the runs."""
        return replace(
            self, values=self.values[mask], rows=self.rows[mask], starts=self.starts[mask], stops=self.stops[mask]
        )


def encode_runs(codes: npt.NDArray[Any]) -> RunLengthEncoding:
    """Return the runs of an (H, W) array."""
    height, width = codes.shape
    flat = codes.ravel()
    begins = np.empty(flat.size, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[::width] = True
    first = np.flatnonzero(begins)
    rows, starts = np.divmod(first, width)
    return RunLengthEncoding(flat[first], rows, starts, starts + np.diff(first, append=flat.size), height, width)
