"""Annotations as they come: one reader a format, each returning label runs (masks) or true boxes."""

from __future__ import annotations

from pipeline.annotations.cmp_xml import read_cmp_xml
from pipeline.annotations.coco import read_coco
from pipeline.annotations.coco_pairs import pair_with_sets
from pipeline.annotations.coco_set import annotation_bytes
from pipeline.annotations.forms import LabelRuns, TrueBoxes
from pipeline.annotations.labelme import read_labelme
from pipeline.annotations.masks import read_mask
from pipeline.annotations.voc import read_voc
from pipeline.annotations.yolo import read_yolo
from pipeline.dataset import MASKS, Card

__all__ = ["LabelRuns", "TrueBoxes", "annotation_bytes", "pair_with_sets", "read_annotation"]

READERS = {
    "cmp_xml": read_cmp_xml,
    "coco": read_coco,
    "labelme": read_labelme,
    "voc": read_voc,
    "yolo": read_yolo,
}


def read_annotation(card: Card, data: bytes, width: int, height: int, orientation: int = 1) -> LabelRuns | TrueBoxes:
    """Return what an annotation file says of an upright photo of this size; raise `BadInputError` with the reason."""
    if card.kind in MASKS:
        return read_mask(card, data, width, height, orientation)
    return READERS[card.kind](card, data, width, height)
