"""LabelMe JSON: a file a photo, shapes with points; shapes of one label and one group are one object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.datasets.annotations.polygons import (
    merge_bounds,
    parse_json_object,
    parse_numbers,
    point_bounds,
    polygon_bounds,
)
from pipeline.datasets.annotations.types import AnnotatedBoxes, Box, check_size, make_annotated_boxes
from pipeline.datasets.card import CATCH_ALL, Card
from pipeline.errors import BadInputError

__all__ = ["read_labelme"]

# Shapes without an inside: no box, but counted as dropped.
SHAPES_WITHOUT_AREA = {"point", "points", "line", "linestrip"}


def read_labelme(card: Card, data: bytes, width: int, height: int) -> AnnotatedBoxes:
    """Return the objects of a file, under the legend's names."""
    content = parse_json_object(data)
    check_size(content.get("imageWidth"), content.get("imageHeight"), width, height)
    shapes = content.get("shapes")
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise BadInputError("the JSON has no list `shapes` of objects")
    groups: dict[tuple[object, ...], list[int]] = {}
    boxes = [_box(shape, f"shape {number}") for number, shape in enumerate(shapes, start=1)]
    for position, shape in enumerate(shapes):
        if not _has_no_area(shape) or shape["label"] in card.legend or CATCH_ALL in card.legend:
            groups.setdefault(_group_key(shape, position), []).append(position)
    sources = [str(shapes[members[0]]["label"]) for members in groups.values()]
    united = [merge_bounds([boxes[member] for member in members]) for members in groups.values()]
    difficult = [any(_is_difficult(shapes[member]) for member in members) for members in groups.values()]
    return make_annotated_boxes(card, sources, united, difficult)


def _group_key(shape: Mapping[str, Any], position: int) -> tuple[object, ...]:
    """Return the key that the shapes of one object share; a shape without a group or an area stands alone."""
    group = shape.get("group_id")
    return (position,) if group is None or _has_no_area(shape) else (shape["label"], str(group))


def _box(shape: Mapping[str, Any], what: str) -> Box:
    if not isinstance(shape.get("label"), str):
        raise BadInputError(f"{what} has no label")
    points = shape.get("points")
    if not isinstance(points, list) or not points:
        raise BadInputError(f"{what} has no points")
    pairs = [parse_numbers(point, f"a point of {what}") for point in points]
    if any(len(pair) != 2 for pair in pairs):
        raise BadInputError(f"{what} has a point that is not [x, y]: {str(points)[:60]}")
    return _bounds(_shape_type(shape), [pair[0] for pair in pairs], [pair[1] for pair in pairs], what)


def _bounds(kind: str, xs: list[float], ys: list[float], what: str) -> Box:
    if kind in SHAPES_WITHOUT_AREA:
        return xs[0], ys[0], xs[0], ys[0]  # no area: `true_objects` counts it as dropped
    if kind == "polygon":
        return polygon_bounds([number for pair in zip(xs, ys, strict=True) for number in pair], what)
    if kind == "rectangle" and len(xs) in (2, 4):  # two corners; newer programs write all four
        return point_bounds(xs, ys)
    if kind == "circle" and len(xs) == 2:
        radius = math.dist((xs[0], ys[0]), (xs[1], ys[1]))
        return xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius
    raise BadInputError(f"{what} is a {kind[:40]} of {len(xs)} points, which is not understood")


def _shape_type(shape: Mapping[str, Any]) -> str:
    return str(shape.get("shape_type") or "polygon")  # files from before there were others do not say


def _has_no_area(shape: Mapping[str, Any]) -> bool:
    return _shape_type(shape) in SHAPES_WITHOUT_AREA


def _is_difficult(shape: Mapping[str, Any]) -> bool:
    flags = shape.get("flags")
    return isinstance(flags, dict) and flags.get("difficult") is True
