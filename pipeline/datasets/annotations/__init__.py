"""Annotations as they come: one reader a format, each returning label runs (masks) or true boxes."""

from __future__ import annotations

from pipeline.datasets.annotations.cmp_xml import read_cmp_xml
from pipeline.datasets.annotations.coco import read_coco
from pipeline.datasets.annotations.coco_file import annotation_bytes
from pipeline.datasets.annotations.coco_matching import pair_coco_photos
from pipeline.datasets.annotations.labelme import read_labelme
from pipeline.datasets.annotations.masks import read_mask
from pipeline.datasets.annotations.types import AnnotatedBoxes, RunLengthMask
from pipeline.datasets.annotations.voc import read_voc
from pipeline.datasets.annotations.yolo import read_yolo
from pipeline.datasets.card import MASK_KINDS, Card

__all__ = ["AnnotatedBoxes", "RunLengthMask", "annotation_bytes", "pair_coco_photos", "read_annotation"]

READERS = {
    "cmp_xml": read_cmp_xml,
    "coco": read_coco,
    "labelme": read_labelme,
    "voc": read_voc,
    "yolo": read_yolo,
}


def read_annotation(
    card: Card, data: bytes, width: int, height: int, orientation: int = 1
) -> RunLengthMask | AnnotatedBoxes:
    """Read the annotation of an upright photo of this size; raise `BadInputError` with the reason."""
    if card.kind in MASK_KINDS:
        return read_mask(card, data, width, height, orientation)
    return READERS[card.kind](card, data, width, height)
