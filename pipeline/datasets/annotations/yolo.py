"""YOLO text: a line an object, its class and then shares of the photo's size.

Five words are a box, `class cx cy w h`, its centre and size; seven and more a polygon, `class x1 y1 x2 y2 x3 y3 …`.
"""

from __future__ import annotations

import math

from pipeline.datasets.annotations.polygons import polygon_bounds
from pipeline.datasets.annotations.types import AnnotatedBoxes, Box, make_annotated_boxes
from pipeline.datasets.card import Card
from pipeline.errors import BadInputError

__all__ = ["read_yolo"]


def read_yolo(card: Card, data: bytes, width: int, height: int) -> AnnotatedBoxes:
    """Return the boxes of a file, under the legend's names; an empty file is a photo without objects."""
    try:
        lines = [line.split() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise BadInputError("the annotation is not text") from None
    boxes = [_xyxy(parts, number, width, height) for number, parts in enumerate(lines, start=1)]
    return make_annotated_boxes(card, [parts[0] for parts in lines], boxes)


def _xyxy(parts: list[str], number: int, width: int, height: int) -> Box:
    shown = " ".join(parts)[:60]
    try:
        numbers = [float(part) for part in parts[1:]]
    except ValueError:
        numbers = []
    if len(numbers) < 4 or len(numbers) % 2:
        raise BadInputError(f"line {number} is not `class cx cy w h` nor a class and a polygon: {shown!r}")
    if not all(map(math.isfinite, numbers)) or (len(numbers) == 4 and min(numbers[2:]) < 0):
        raise BadInputError(f"line {number} has a size that is negative or not a number: {shown!r}")
    x0, y0, x1, y1 = _cxcywh_to_xyxy(*numbers) if len(numbers) == 4 else polygon_bounds(numbers, f"line {number}")
    return x0 * width, y0 * height, x1 * width, y1 * height


def _cxcywh_to_xyxy(cx: float, cy: float, w: float, h: float) -> Box:
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
