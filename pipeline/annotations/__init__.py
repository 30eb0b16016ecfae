"""Annotations as they come: one reader a format, each returning label runs (masks) or true boxes."""

from __future__ import annotations

from pipeline.annotations.cmp_xml import read_cmp_xml
from pipeline.annotations.forms import LabelRuns, TrueBoxes
from pipeline.annotations.masks import read_mask
from pipeline.annotations.yolo import read_yolo
from pipeline.dataset import MASKS, Card

__all__ = ["LabelRuns", "TrueBoxes", "read_annotation"]


def read_annotation(card: Card, data: bytes, width: int, height: int, orientation: int = 1) -> LabelRuns | TrueBoxes:
    """Return what an annotation file says of an upright photo of this size; raise `BadInputError` with the reason."""
    if card.kind in MASKS:
        return read_mask(card, data, width, height, orientation)
    reader = {"cmp_xml": read_cmp_xml, "yolo": read_yolo}[card.kind]
    return reader(card, data, width, height)
