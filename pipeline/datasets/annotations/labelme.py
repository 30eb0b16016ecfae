"""LabelMe JSON: a file a photo, shapes with points; shapes of one label and one group are one object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.datasets.annotations.polygons import bounds_of, numbers_of, parse_object, polygon_bounds, union_of
from pipeline.datasets.annotations.types import Box, TrueBoxes, boxes_of, check_size
from pipeline.datasets.card import REST, Card
from pipeline.errors import BadInputError

__all__ = ["read_labelme"]

# Shapes without an inside: no box, but counted as dropped.
THIN = {"point", "points", "line", "linestrip"}


def read_labelme(card: Card, data: bytes, width: int, height: int) -> TrueBoxes:
    """Return the objects of a file, under the legend's names."""
    content = parse_object(data)
    check_size(content.get("imageWidth"), content.get("imageHeight"), width, height)
    shapes = content.get("shapes")
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise BadInputError("the JSON has no list `shapes` of objects")
    groups: dict[tuple[object, ...], list[int]] = {}
    boxes = [_box(shape, f"shape {number}") for number, shape in enumerate(shapes, start=1)]
    for position, shape in enumerate(shapes):
        if not _is_thin(shape) or shape["label"] in card.legend or REST in card.legend:
            groups.setdefault(_group(shape, position), []).append(position)
    sources = [str(shapes[members[0]]["label"]) for members in groups.values()]
    united = [union_of([boxes[member] for member in members]) for members in groups.values()]
    difficult = [any(_is_difficult(shapes[member]) for member in members) for members in groups.values()]
    return boxes_of(card, sources, united, difficult)


def _group(shape: Mapping[str, Any], position: int) -> tuple[object, ...]:
    """Return what the shapes of one object have in common; without a group, or without an inside, it is alone."""
    group = shape.get("group_id")
    return (position,) if group is None or _is_thin(shape) else (shape["label"], str(group))


def _box(shape: Mapping[str, Any], what: str) -> Box:
    if not isinstance(shape.get("label"), str):
        raise BadInputError(f"{what} has no label")
    points = shape.get("points")
    if not isinstance(points, list) or not points:
        raise BadInputError(f"{what} has no points")
    pairs = [numbers_of(point, f"a point of {what}") for point in points]
    if any(len(pair) != 2 for pair in pairs):
        raise BadInputError(f"{what} has a point that is not [x, y]: {str(points)[:60]}")
    return _bounds(_kind(shape), [pair[0] for pair in pairs], [pair[1] for pair in pairs], what)


def _bounds(kind: str, xs: list[float], ys: list[float], what: str) -> Box:
    if kind in THIN:
        return xs[0], ys[0], xs[0], ys[0]  # no area: `true_objects` counts it as dropped
    if kind == "polygon":
        return polygon_bounds([number for pair in zip(xs, ys, strict=True) for number in pair], what)
    if kind == "rectangle" and len(xs) in (2, 4):  # two corners; newer programs write all four
        return bounds_of(xs, ys)
    if kind == "circle" and len(xs) == 2:
        radius = math.dist((xs[0], ys[0]), (xs[1], ys[1]))
        return xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius
    raise BadInputError(f"{what} is a {kind[:40]} of {len(xs)} points, which is not understood")


def _kind(shape: Mapping[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")  # files from before there were others do not say


def _is_thin(shape: Mapping[str, Any]) -> bool:
    return _kind(shape) in THIN


def _is_difficult(shape: Mapping[str, Any]) -> bool:
    flags = shape.get("flags")
    return isinstance(flags, dict) and flags.get("difficult") is True
