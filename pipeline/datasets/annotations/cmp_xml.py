"""The XML of the CMP facade database: boxes, in a file that has no root element.

Its `<x>` is the row axis and its `<y>` the column axis, both from 0 to 1.
"""

from __future__ import annotations

from typing import Any

from pipeline.datasets.annotations.safe_xml import parse_xml
from pipeline.datasets.annotations.types import AnnotatedBoxes, Box, make_annotated_boxes
from pipeline.datasets.card import Card
from pipeline.errors import BadInputError

__all__ = ["read_cmp_xml"]


def read_cmp_xml(card: Card, data: bytes, width: int, height: int) -> AnnotatedBoxes:
    """Return the boxes of a file, under the legend's names."""
    objects = parse_xml(data, b"objects").findall("object")
    sources = [(entry.findtext("labelname") or "").strip() for entry in objects]
    return make_annotated_boxes(card, sources, [_xyxy(entry, width, height) for entry in objects])


def _xyxy(entry: Any, width: int, height: int) -> Box:
    try:
        rows = sorted(float(x.text) for x in entry.findall("points/x"))
        columns = sorted(float(y.text) for y in entry.findall("points/y"))
        return columns[0] * width, rows[0] * height, columns[-1] * width, rows[-1] * height
    except (TypeError, ValueError, IndexError):
        raise BadInputError("an <object> has no two <x> and two <y> numbers in its <points>") from None
