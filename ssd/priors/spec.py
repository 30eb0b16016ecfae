"""Prior boxes: where the detector looks, stated in input pixels and checked when it is stated.

The numbers are made in float64 with numpy; tensors are these numbers as float32. Order: map, row, column, shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["PriorMap", "PriorSpec", "clamp_shapes"]

VERSION = 1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PriorMap:
    """The priors of one feature map: every shape at every cell, at centres `(i + .5) * step`.

    `size` is (rows, columns), `step` the input pixels from one centre to the next (down, across), `shapes` are
    (width, height) in input pixels.
    """

    size: tuple[int, int]
    step: tuple[float, float]
    shapes: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        shapes = self.shapes if isinstance(self.shapes, (tuple, list)) else ()
        if not shapes:
            raise ValueError(f"A prior map has at least one shape, (width, height) in pixels; got {self.shapes!r}.")
        _set(self, "size", _parse_counts("The size of a prior map, (rows, columns),", self.size))
        _set(self, "step", _parse_sizes("The step of a prior map, (down, across),", self.step))
        _set(self, "shapes", tuple(_parse_sizes("A shape of a prior map, (width, height),", shape) for shape in shapes))

    @property
    def count(self) -> int:
        """The number of priors."""
        return self.size[0] * self.size[1] * len(self.shapes)

    def cxcywh_array(self) -> Floats:
        """Return the priors (P, 4), not clipped."""
        (rows, columns), (down, across) = self.size, self.step
        grid = np.empty((rows, columns, len(self.shapes), 4))
        grid[..., 0] = ((np.arange(columns) + 0.5) * across)[None, :, None]
        grid[..., 1] = ((np.arange(rows) + 0.5) * down)[:, None, None]
        grid[..., 2:] = self.shapes
        return grid.reshape(-1, 4)


@dataclass(frozen=True)
class PriorSpec:
    """All priors of a detector, for inputs of `input_size` (height, width).

    `clip` cuts every prior at the border of the input, whichever format it is asked for in. `note` is what a reader
    of the numbers should know.
    """

    name: str
    input_size: tuple[int, int]
    maps: tuple[PriorMap, ...]
    clip: bool = False
    variances: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    note: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"The name of a prior spec is a text that is not empty; got {self.name!r}.")
        maps = tuple(self.maps) if isinstance(self.maps, (tuple, list)) else ()
        if not maps or not all(isinstance(level, PriorMap) for level in maps):
            raise ValueError(f"The maps of prior spec {self.name} are one PriorMap or more; got {self.maps!r}.")
        if not isinstance(self.clip, bool):
            raise ValueError(f"clip of prior spec {self.name} is true or false; got {self.clip!r}.")
        if not isinstance(self.note, str):
            raise ValueError(f"The note of prior spec {self.name} is a text; got {self.note!r}.")
        _set(self, "maps", maps)
        _set(self, "input_size", _parse_counts("The input size of a prior spec, (height, width),", self.input_size))
        _set(self, "variances", _parse_sizes("The variances of a prior spec, of cx, cy, w, h,", self.variances, 4))
        for level in maps:
            _check_inside(level, self.input_size, self.clip)

    @property
    def count(self) -> int:
        """P, the number of priors."""
        return sum(self.counts_per_map)

    @property
    def counts_per_map(self) -> tuple[int, ...]:
        """The number of priors of each map."""
        return tuple(level.count for level in self.maps)

    def cxcywh_array(self) -> Floats:
        """Return the priors (P, 4) in input pixels as float64."""
        if not self.clip:
            return np.concatenate([level.cxcywh_array() for level in self.maps])
        xyxy = self.xyxy_array()
        return np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], axis=1)

    def xyxy_array(self) -> Floats:
        """Return the priors (P, 4) in input pixels as float64."""
        cxcywh = np.concatenate([level.cxcywh_array() for level in self.maps])
        centres, halves = cxcywh[:, :2], cxcywh[:, 2:] / 2
        xyxy = np.concatenate([centres - halves, centres + halves], axis=1)
        height, width = self.input_size
        return np.clip(xyxy, 0, [width, height, width, height]) if self.clip else xyxy

    def priors_cxcywh(self) -> torch.Tensor:
        """Return the priors (P, 4) in input pixels as float32."""
        return torch.from_numpy(self.cxcywh_array().astype(np.float32))

    def priors_xyxy(self) -> torch.Tensor:
        """Return the priors (P, 4) in input pixels as float32."""
        return torch.from_numpy(self.xyxy_array().astype(np.float32))

    def to_json(self) -> dict[str, Any]:
        """Return the spec as what `json.dumps` takes; `from_json` gives it back, equal."""
        return {
            "version": VERSION,
            "name": self.name,
            "input_size": list(self.input_size),
            "maps": [
                {"size": list(level.size), "step": list(level.step), "shapes": [list(shape) for shape in level.shapes]}
                for level in self.maps
            ],
            "clip": self.clip,
            "variances": list(self.variances),
            "note": self.note,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PriorSpec:
        """Return the spec that `to_json` wrote; what it did not write is refused."""
        keys = {"version", "name", "input_size", "maps", "clip", "variances", "note"}
        _check_keys("A prior spec", data, keys)
        if data["version"] != VERSION:
            raise ValueError(f"A prior spec has version {VERSION}; got {data['version']!r}: another release wrote it.")
        if not isinstance(data["maps"], list):
            raise ValueError(f"The maps of a prior spec are a list; got {data['maps']!r}.")
        for level in data["maps"]:
            _check_keys("A prior map", level, {"size", "step", "shapes"})
        settings = {key: data[key] for key in keys - {"version", "maps"}}
        return cls(maps=tuple(PriorMap(**level) for level in data["maps"]), **settings)


def clamp_shapes(spec: PriorSpec) -> PriorSpec:
    """Return the spec with no shape wider or higher than the input.

    This is what torchvision's SSD (`clip` of its DefaultBoxGenerator) and the EPFL report's code do in place of
    clipping: they limit the sizes and leave the centres, so that a prior near the border still reaches over it.
    """
    height, width = spec.input_size
    maps = (replace(m, shapes=tuple((min(w, width), min(h, height)) for w, h in m.shapes)) for m in spec.maps)
    return replace(spec, maps=tuple(maps))


def _check_inside(level: PriorMap, input_size: tuple[int, int], clip: bool) -> None:
    """Refuse a map that reaches past the input by a cell or more, and a prior that clipping leaves without area.

    The released steps do reach past it: the last of ten centres at step 32 is at 304 of 300.
    """
    for axis, side in enumerate(("rows", "columns")):
        count, step, most = level.size[axis], level.step[axis], input_size[axis]
        if (count - 1) * step >= most:
            raise ValueError(
                f"The {count} {side} of a prior map at step {step:g} begin inside the {most} pixels of the input; "
                f"the last begins at {(count - 1) * step:g}."
            )
        least = min(shape[1 - axis] for shape in level.shapes)
        if clip and (count - 0.5) * step - least / 2 >= most:
            raise ValueError(
                f"A clipped prior keeps some area; got one {least:g} pixels large around {(count - 0.5) * step:g} "
                f"of {most} (size {level.size}, step {level.step}). Make it larger or do not clip."
            )


def _parse_counts(what: str, values: Any) -> tuple[int, ...]:
    """Return two whole numbers above zero as a tuple."""
    if not _is_row(values, 2, Integral):
        raise ValueError(f"{what} is two whole numbers above zero; got {values!r}.")
    return tuple(int(value) for value in values)


def _parse_sizes(what: str, values: Any, count: int = 2) -> tuple[float, ...]:
    """Return so many finite numbers above zero as a tuple of floats."""
    if not _is_row(values, count, Real):
        raise ValueError(f"{what} is {count} finite numbers above zero; got {values!r}.")
    return tuple(float(value) for value in values)


def _is_row(values: Any, count: int, kind: Any) -> bool:
    if not isinstance(values, (tuple, list)) or len(values) != count:
        return False
    return all(isinstance(v, kind) and not isinstance(v, bool) and 0 < float(v) < math.inf for v in values)


def _check_keys(what: str, data: Any, keys: set[str]) -> None:
    if not isinstance(data, Mapping) or set(data) != keys:
        got = sorted(data, key=str) if isinstance(data, Mapping) else data
        raise ValueError(f"{what} has the keys {', '.join(sorted(keys))}; got {got!r}.")


def _set(instance: object, name: str, value: object) -> None:
    """Set a field of a frozen instance that is still being made: lists become tuples, so that specs compare equal."""
    object.__setattr__(instance, name, value)
