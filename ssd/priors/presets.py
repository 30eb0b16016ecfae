"""Prior specs with a name: the SSD paper's as released, the paper's formulas, and the EPFL report's.

The order of the shapes at one place is that of the released code and of torchvision's DefaultBoxGenerator: the square
of the map's scale, the square between this scale and the next, then each ratio 2, 3 and its inverse. Ratios are width
over height.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import sqrt
from typing import Final

from ssd.priors.spec import PriorMap, PriorSpec, clamp_shapes

__all__ = ["PRESETS", "paper_formula", "preset", "shapes_at", "with_inverses"]

Shape = tuple[float, float]


def with_inverses(*ratios: float) -> tuple[float, ...]:
    """Return 1, then each ratio and its inverse: 2, 3 give 1, 2, 1/2, 3, 1/3."""
    return (1.0, *(value for ratio in ratios for value in (ratio, 1 / ratio)))


def shapes_at(scale: Shape, mean_scale: Shape, ratios: Sequence[float]) -> tuple[Shape, ...]:
    """Return one map's shapes in pixels: `scale` at every ratio, and `mean_scale` as it is after ratio 1.

    `scale` and `mean_scale` are (width, height) of the shape with ratio 1: squares where the input is square.
    """
    shapes: list[Shape] = []
    for ratio in ratios:
        shapes.append((scale[0] * sqrt(ratio), scale[1] / sqrt(ratio)))
        if ratio == 1:
            shapes.append(mean_scale)
    return tuple(shapes)


def paper_formula(
    input_size: tuple[int, int],
    map_sizes: Sequence[tuple[int, int]],
    ratios: Sequence[Sequence[float]],
    smin: float = 0.2,
    smax: float = 0.9,
) -> PriorSpec:
    """Return the priors that the SSD paper's section 2.2 writes down, which are not those that it released.

    Scales are equation 4, continued by one step for the square between the last map and the next; centres are
    (i + .5) / |f_k| of the input. `ratios` has a list of width over height for each map (see `with_inverses`).
    """
    if len(ratios) != len(map_sizes) or len(map_sizes) < 2:
        raise ValueError(f"The formula needs two maps or more, each with ratios; got {len(map_sizes)}, {len(ratios)}.")
    height, width = input_size
    growth = (smax - smin) / (len(map_sizes) - 1)
    scales = [smin + growth * k for k in range(len(map_sizes) + 1)]
    levels = []
    for k, (rows, columns) in enumerate(map_sizes):
        between = sqrt(scales[k] * scales[k + 1])
        shapes = shapes_at((scales[k] * width, scales[k] * height), (between * width, between * height), ratios[k])
        levels.append(PriorMap((rows, columns), (height / rows, width / columns), shapes))
    return PriorSpec("paper_formula", input_size, tuple(levels))


def preset(name: str) -> PriorSpec:
    """Return the prior spec of a name in `PRESETS`; `dataclasses.replace(spec, clip=True)` clips it."""
    if name not in _MAKERS:
        raise ValueError(f"The presets of priors are {', '.join(PRESETS)}; got {name!r}.")
    return replace(_MAKERS[name](), name=name)


def _released_spec(side: int, sizes: Sequence[float]) -> PriorSpec:
    """Return the released SSD300 or SSD512: `sizes` are each map's scale in pixels, and the one after the last."""
    counts, steps, ratios = _GRIDS[side]
    levels = []
    for k, (count, step) in enumerate(zip(counts, steps, strict=True)):
        between = sqrt(sizes[k] * sizes[k + 1])
        shapes = shapes_at((sizes[k], sizes[k]), (between, between), with_inverses(*ratios[k]))
        levels.append(PriorMap((count, count), (step, step), shapes))
    return PriorSpec("released", (side, side), tuple(levels))


def _epfl_spec(ratios: Sequence[Sequence[float]]) -> PriorSpec:
    """Return the priors of the report's code: its scales, these ratios, centres as the paper's formula has them.

    The square after ratio 1 on the last map is the whole input: the code does not go by a next scale there.
    """
    side, counts, scales = 300, (38, 19, 10, 5, 3, 1), (0.02, 0.03, 0.4, 0.5, 0.6, 0.8)
    between = [sqrt(scale * after) for scale, after in pairwise(scales)] + [1.0]
    levels = []
    for k, count in enumerate(counts):
        shapes = shapes_at((scales[k] * side,) * 2, (between[k] * side,) * 2, ratios[k])
        levels.append(PriorMap((count, count), (side / count, side / count), shapes))
    return clamp_shapes(PriorSpec("epfl", (side, side), tuple(levels)))


_NARROW, _BOTH = (1.0, 0.6, 0.5, 0.4, 0.333), (1.0, 2.0, 0.5, 0.4, 0.333)


def _epfl_code() -> PriorSpec:
    """Return the report's code: 4, 6, 6, 6, 4, 4 priors a place."""
    return _epfl_spec([(1.0, 0.4, 0.333), _NARROW, _BOTH, _BOTH, (1.0, 2.0, 0.5), (1.0, 2.0, 0.5)])


def _epfl_table() -> PriorSpec:
    """Return a reading of the report's Table I, of which only the count is known here.

    Six priors a place on every map but the first make its 8752. Scales and ratios are the code's in place of the
    printed ones, which must be far smaller: printed, they cover no building, and these cover nearly all.
    """
    note = "8752 priors by this table, 8732 by the report's Table II; a reading: scales and ratios are the code's"
    return replace(_epfl_spec([(1.0, 0.4, 0.333), _NARROW, _BOTH, _BOTH, _BOTH, _BOTH]), note=note)


_GRIDS: Final = {
    300: ((38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300), ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))),
    512: (
        (64, 32, 16, 8, 4, 2, 1),
        (8, 16, 32, 64, 128, 256, 512),
        ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,)),
    ),
}

_MAKERS: Final[dict[str, Callable[[], PriorSpec]]] = {
    "paper_voc": lambda: _released_spec(300, (30, 60, 111, 162, 213, 264, 315)),
    "paper_coco": lambda: _released_spec(300, (21, 45, 99, 153, 207, 261, 315)),
    "paper_512_voc": lambda: _released_spec(512, (35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6)),
    "paper_512_coco": lambda: _released_spec(512, (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72)),
    "epfl_table": _epfl_table,
    "epfl_code": _epfl_code,
}
PRESETS: Final = tuple(_MAKERS)
