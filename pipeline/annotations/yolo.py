"""YOLO text: a line a box, `class cx cy w h`, the centre and size as shares of the photo's."""

from __future__ import annotations

import math

from pipeline.annotations.forms import TrueBoxes, boxes_of
from pipeline.dataset import Card
from pipeline.errors import BadInputError

__all__ = ["read_yolo"]


def read_yolo(card: Card, data: bytes, width: int, height: int) -> TrueBoxes:
    """Return the boxes of a file, under the legend's names; an empty file is a photo without objects."""
    try:
        lines = [line.split() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise BadInputError("the annotation is not text") from None
    boxes = [_xyxy(parts, number, width, height) for number, parts in enumerate(lines, start=1)]
    return boxes_of(card, [parts[0] for parts in lines], boxes)


def _xyxy(parts: list[str], number: int, width: int, height: int) -> tuple[float, float, float, float]:
    try:
        cx, cy, w, h = map(float, parts[1:])
    except ValueError:
        raise BadInputError(f"line {number} is not `class cx cy w h`: {' '.join(parts)[:60]!r}") from None
    if not all(map(math.isfinite, (cx, cy, w, h))) or w < 0 or h < 0:
        raise BadInputError(f"line {number} has a size that is negative or not a number: {' '.join(parts)[:60]!r}")
    return (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height
