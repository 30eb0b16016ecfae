"""Masks: every pixel's class as a colour or an index, in 8 or 16 bits, lossless or JPEG-compressed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.datasets.annotations.types import DEFAULT_MAX_UNKNOWN, RunLengthMask, check_unknown
from pipeline.datasets.card import CATCH_ALL, Card, parse_code
from pipeline.errors import BadInputError
from pipeline.imaging.image_io import read_mask_codes, turn_upright
from pipeline.imaging.run_length import encode_runs

__all__ = ["map_codes_to_names", "read_mask"]

# In RGB units. JPEG moves a flat colour by a few units and an edge by a hundred: edges stay unknown, and in a mask of
# 256 pixels with many windows they are up to 16 % of it.
LOSSY_DISTANCE, LOSSY_MAX_UNKNOWN = 64.0, 0.3
UNKNOWN = -1


def read_mask(card: Card, data: bytes, width: int, height: int, orientation: int) -> RunLengthMask:
    """Return a mask's runs; it must have its photo's size, upright or as stored."""
    codes, lossy = read_mask_codes(data, colours=card.kind == "colour_mask")
    stored = (width, height) if orientation < 5 else (height, width)
    if codes.shape[::-1] == stored and orientation > 1:
        codes = turn_upright(codes, orientation)
    if codes.shape != (height, width):
        size = f"{codes.shape[1]}x{codes.shape[0]}"
        raise BadInputError(f"the mask has {size} pixels and its photo {width}x{height}; they must be of one size")
    runs = encode_runs(codes)
    distance = card.colour_distance if card.colour_distance is not None else (LOSSY_DISTANCE if lossy else 0.0)
    runs = replace(runs, values=map_codes_to_names(card, runs.values, distance))
    unknown = float(runs.lengths[runs.values == UNKNOWN].sum() / max(codes.size, 1))
    what = "colours" if card.kind == "colour_mask" else "indices"
    check_unknown(card, unknown, what, LOSSY_MAX_UNKNOWN if distance else DEFAULT_MAX_UNKNOWN)
    return RunLengthMask(runs, unknown)


def map_codes_to_names(card: Card, codes: npt.NDArray[Any], distance: float = 0.0) -> npt.NDArray[np.int16]:
    """Return the index into `Card.names` of each code, -1 where the legend knows none within `distance`."""
    legend = {parse_code(key, card.kind): name for key, name in card.legend.items() if key != CATCH_ALL}
    index = {name: position for position, name in enumerate(card.names)}
    names = np.full(codes.shape, index[card.legend[CATCH_ALL]] if CATCH_ALL in card.legend else UNKNOWN, np.int16)
    left = np.ones(codes.shape, np.bool_)
    for code, name in legend.items():
        hit = codes == code
        names[hit] = index[name]
        left &= ~hit
    if distance > 0 and card.kind == "colour_mask" and left.any():
        near = np.array([index[name] for name in legend.values()], np.int16)
        nearest, far = _nearest(codes[left], np.array(list(legend)))
        names[left] = np.where(far <= distance, near[nearest], names[left])
    return names


def _nearest(codes: npt.NDArray[Any], legend: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Return for each packed colour the position of the nearest in the legend and its distance in RGB."""
    different, back = np.unique(codes, return_inverse=True)
    squares = ((_rgb(different)[:, None] - _rgb(legend)[None]) ** 2).sum(-1)
    best = squares.argmin(1)
    return best[back], np.sqrt(squares[np.arange(len(best)), best])[back]


def _rgb(packed: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.stack([packed & 255, packed >> 8 & 255, packed >> 16 & 255], axis=-1).astype(np.float64)
