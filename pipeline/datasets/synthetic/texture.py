"""Surfaces: noise and the patterns of walls and roofs, all in whole numbers."""

import numpy as np
from PIL import Image

from pipeline.datasets.synthetic.canvas import Colour
from pipeline.datasets.synthetic.rng import Bytes, SeededRandom


def clouds(rng: SeededRandom, width: int, height: int, cells: tuple[int, int, int]) -> Bytes:
    """Return smooth noise (height, width) about 128: three octaves of so many cells across."""
    half = (max(2, width // 2), max(2, height // 2))  # noise is smooth: half the size costs a quarter
    total = np.zeros((half[1], half[0]), np.uint16)
    for weight, count in zip((4, 2, 1), cells, strict=True):
        rows = max(2, count * height // max(width, 1))
        lattice = Image.fromarray(rng.bytes(rows + 1, count + 1))
        total += np.asarray(lattice.resize(half, Image.Resampling.BICUBIC)).astype(np.uint16) * weight
    small = Image.fromarray((total // 7).astype(np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BILINEAR))


def colour_noise(values: Bytes, colour: Colour, depth: int) -> Bytes:
    """Return (h, w, 3): the colour, made lighter or darker by values about 128; depth 128 is the strongest."""
    shades = np.arange(256, dtype=np.int32)[:, None] - 128
    table = np.array(colour, np.int32) * (256 + shades * depth // 64) >> 8
    return np.take(table.clip(0, 255).astype(np.uint8), values, axis=0)


def spread(tile: Bytes, width: int, height: int) -> Bytes:
    """Return the tile repeated over (height, width)."""
    rows, columns = -(-height // tile.shape[0]), -(-width // tile.shape[1])
    return np.tile(tile, (rows, columns, 1))[:height, :width]


def grain(rng: SeededRandom, colour: Colour, depth: int, unit: float) -> Bytes:
    """Return a tile of rendered plaster or concrete: fine grain and soft patches."""
    side = int(min(max(96, unit * 4), 400))
    fine = rng.bytes(side, side) >> 2
    soft = clouds(rng, side, side, (5, 11, 23))
    values = (soft // 4 * 3 + fine // 2 + 24).astype(np.uint8)
    wide = np.concatenate([values, values[:, ::-1]], axis=1)  # mirrored, so that repeats show no seam
    return colour_noise(np.concatenate([wide, wide[::-1]]), colour, depth)


def courses(rng: SeededRandom, colour: Colour, joint: Colour, size: tuple[int, int], gap: int, depth: int) -> Bytes:
    """Return a tile of bricks or stones of (width, height) texels, each with its own shade."""
    wide, high = max(size[0], 2), max(size[1], 2)
    rows = 2 * max(1, min(24, 420 // (2 * high)))
    across = max(2, min(24, 420 // wide))
    y, x = np.arange(rows * high)[:, None], np.arange(across * wide)[None, :]
    row = y // high
    moved = x + (row & 1) * (wide // 2)
    values = (rng.bytes(rows, across)[row, (moved // wide) % across] >> 1) + np.uint8(64)
    picture = colour_noise(values, colour, depth)
    if gap and high > 2:
        picture[((y % high) < gap) | ((moved % wide) < gap)] = joint
    return picture


def panels(rng: SeededRandom, colour: Colour, size: tuple[int, int], unit: float) -> Bytes:
    """Return a tile of one concrete panel of (width, height) texels with its joints."""
    picture = spread(grain(rng, colour, 26, unit), max(size[0], 4), max(size[1], 4)).copy()
    joint = max(1, round(0.025 * unit))
    picture[-joint:] = picture[-joint:] // 3 * 2
    picture[:, -joint:] = picture[:, -joint:] // 3 * 2
    return picture


def boards(rng: SeededRandom, colour: Colour, step: int, depth: int) -> Bytes:
    """Return a tile of horizontal boards (or slats, or roof rows) each `step` texels high."""
    step = max(step, 2)
    rows = max(1, 240 // step)
    base = np.repeat((rng.bytes(rows) >> 2) + np.uint8(96), step)[:, None]
    picture = colour_noise(np.repeat(base, 160, axis=1) + (rng.bytes(rows * step, 160) >> 4), colour, depth)
    picture[step - 1 :: step] = picture[step - 1 :: step] // 4 * 3
    return picture


def tiles(rng: SeededRandom, colour: Colour, size: tuple[int, int]) -> Bytes:
    """Return a tile of roof tiles or slates of (width, height) texels."""
    dark = (colour[0] * 5 // 8, colour[1] * 5 // 8, colour[2] * 5 // 8)
    return courses(rng, colour, dark, size, 1 if min(size) > 3 else 0, 40)
