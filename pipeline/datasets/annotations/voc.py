"""Pascal VOC XML: boxes in pixels that count from 1 and include their last one."""

from __future__ import annotations

import math
from typing import Any

from pipeline.datasets.annotations.safe_xml import parse_xml
from pipeline.datasets.annotations.types import AnnotatedBoxes, Box, check_size, make_annotated_boxes
from pipeline.datasets.card import Card
from pipeline.errors import BadInputError

__all__ = ["read_voc"]

SIDES = ("width", "height")


def read_voc(card: Card, data: bytes, width: int, height: int) -> AnnotatedBoxes:
    """Return the boxes of a file, under the legend's names; the `<part>`s of an object are no objects."""
    root = parse_xml(data)
    if root.tag != "annotation":
        raise BadInputError(f"the XML's root is <{str(root.tag)[:40]}>, expected <annotation>")
    size = [int(_number(root, f"size/{side}")) if root.find(f"size/{side}") is not None else 0 for side in SIDES]
    check_size(size[0], size[1], width, height)
    objects = root.findall("object")
    sources = [(entry.findtext("name") or "").strip() for entry in objects]
    difficult = [(entry.findtext("difficult") or "").strip().lower() in {"1", "true"} for entry in objects]
    return make_annotated_boxes(card, sources, [_xyxy(entry) for entry in objects], difficult)


def _xyxy(entry: Any) -> Box:
    xmin, ymin, xmax, ymax = (_number(entry, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    if xmax < xmin or ymax < ymin:
        raise BadInputError(f"an <object> has a box that ends before it begins: {xmin:g} {ymin:g} {xmax:g} {ymax:g}")
    return xmin - 1, ymin - 1, xmax, ymax


def _number(entry: Any, path: str) -> float:
    text = (entry.findtext(path) or "").strip()
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadInputError(f"the <{path}> of an <{entry.tag}> is not a number: {text[:40]!r}")
    return number
