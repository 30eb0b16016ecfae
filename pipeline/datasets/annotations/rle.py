"""Run-length masks of COCO: down the columns, a run of zeros first; as a list, or packed into a string.

The string is pycocotools' own (`rleToString` in maskApi.c): five bits a character from '0' on, a sixth says that more
follow, the sign is extended, and from the fourth run on it is the difference to the run two before.
"""

from __future__ import annotations

import numpy as np

from pipeline.datasets.annotations.types import Box
from pipeline.errors import BadInputError

__all__ = ["rle_bounds", "unpack_counts"]

# A run has at most 32 bits: seven characters.
MAX_COUNT_CHARS = 7


def rle_bounds(segmentation: dict[str, object], width: int, height: int, what: str) -> Box:
    """Return the half-open box around the set pixels, (0, 0, 0, 0) where there are none."""
    if segmentation.get("size") != [height, width]:
        size = str(segmentation.get("size"))[:40]
        raise BadInputError(f"{what} is a mask of [height, width] {size} and its photo has {[height, width]}")
    counts = segmentation.get("counts")
    runs = unpack_counts(counts, what) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise BadInputError(f"{what} has counts that are no list of runs: {str(counts)[:60]}")
    if sum(runs) != width * height:
        raise BadInputError(f"{what} has runs of {sum(runs)} pixels, expected {width * height}")
    ends = np.cumsum(np.array(runs, np.int64))
    starts, ends = (ends - runs)[1::2], ends[1::2]
    first, last = starts[ends > starts], ends[ends > starts] - 1
    if not len(first):
        return 0.0, 0.0, 0.0, 0.0
    wraps = first // height != last // height  # a run into the next column holds the last row and the first
    top, bottom = np.where(wraps, 0, first % height), np.where(wraps, height - 1, last % height)
    return float(first[0] // height), float(top.min()), float(last[-1] // height + 1), float(bottom.max() + 1)


def unpack_counts(text: str, what: str) -> list[int]:
    """Return the runs that a string holds."""
    runs: list[int] = []
    value = place = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or place == MAX_COUNT_CHARS:
            raise BadInputError(f"{what} has counts that are no packed runs: {text[:60]!r}")
        value |= (bits & 31) << 5 * place
        place += 1
        if not bits & 32:
            value -= (bits & 16) << 5 * place - 4
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = place = 0
    if place:
        raise BadInputError(f"{what} has counts that break off: {text[-60:]!r}")
    return runs
