"""Outlines as JSON and text hold them: lists of numbers, checked, and the boxes around them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from pipeline.datasets.annotations.types import Box
from pipeline.errors import BadInputError

__all__ = ["merge_bounds", "parse_json_object", "parse_numbers", "point_bounds", "polygon_bounds"]


def parse_json_object(data: bytes) -> dict[str, Any]:
    """Return the object in a JSON text."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise BadInputError("the JSON is nested too deeply") from None
    except ValueError as error:  # malformed, not text, or a number of thousands of digits
        raise BadInputError(f"the JSON is malformed: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise BadInputError(f"the JSON holds {type(value).__name__}, expected an object")
    return value


def parse_numbers(values: object, what: str) -> list[float]:
    """Return a list of finite numbers as floats; `what` names it in the sentence when it is anything else."""
    if not isinstance(values, list) or any(isinstance(value, bool) for value in values):
        raise BadInputError(f"{what} is no list of numbers: {str(values)[:60]}")
    try:
        numbers = [value + 0.0 for value in values]
    except (TypeError, OverflowError):
        raise BadInputError(f"{what} is no list of numbers: {str(values)[:60]}") from None
    if not all(map(math.isfinite, numbers)):
        raise BadInputError(f"{what} holds what is not a number: {str(values)[:60]}")
    return numbers


def polygon_bounds(numbers: Sequence[float], what: str) -> Box:
    """Return the box around the polygon x1 y1 x2 y2 …, which needs three points."""
    if len(numbers) < 6 or len(numbers) % 2:
        raise BadInputError(f"{what} is no polygon: it has {len(numbers)} numbers, expected an even number from 6 on")
    return point_bounds(numbers[0::2], numbers[1::2])


def point_bounds(xs: Sequence[float], ys: Sequence[float]) -> Box:
    """Return the box around points; an outline has no thickness, so its bounds are half-open as they are."""
    return min(xs), min(ys), max(xs), max(ys)


def merge_bounds(boxes: Sequence[Box]) -> Box:
    """Return the box around boxes."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)
