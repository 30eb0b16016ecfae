"""COCO JSON, one image of it: what `coco_set` cuts out of the file for many photos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.datasets.annotations.polygons import merge_bounds, parse_json_object, parse_numbers, polygon_bounds
from pipeline.datasets.annotations.rle import rle_bounds
from pipeline.datasets.annotations.types import AnnotatedBoxes, Box, check_size, make_annotated_boxes
from pipeline.datasets.card import Card
from pipeline.errors import BadInputError

__all__ = ["format_id", "read_coco", "segmentation_bounds"]


def read_coco(card: Card, data: bytes, width: int, height: int) -> AnnotatedBoxes:
    """Return the boxes of one image's entry, under the legend's names; a crowd is one to ignore."""
    entry = parse_json_object(data)
    image, annotations = entry["image"], entry["annotations"]
    check_size(image.get("width"), image.get("height"), width, height)
    sources = [_legend_key(card, annotation, entry["categories"]) for annotation in annotations]
    boxes = [_box(annotation, width, height) for annotation in annotations]
    return make_annotated_boxes(
        card, sources, boxes, ignore=[annotation.get("iscrowd") == 1 for annotation in annotations]
    )


def format_id(value: object) -> str:
    """Return an id as the legend writes it; some programs write 3 as 3.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def segmentation_bounds(segmentation: object, width: int, height: int, what: str) -> Box:
    """Return the box around one object's outline: polygons, or a run-length mask."""
    if isinstance(segmentation, dict):
        return rle_bounds(segmentation, width, height, f"the segmentation of {what}")
    if not isinstance(segmentation, list) or not segmentation:
        raise BadInputError(f"the segmentation of {what} is neither polygons nor a mask: {str(segmentation)[:60]}")
    named = f"a polygon of {what}"
    return merge_bounds([polygon_bounds(parse_numbers(polygon, named), named) for polygon in segmentation])


def _legend_key(card: Card, annotation: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return the legend's key: the category's id if the legend has it, since names repeat, else its name."""
    key = format_id(annotation.get("category_id"))
    if key in card.legend:
        return key
    if key not in names:
        raise BadInputError(f"{_annotation_name(annotation)} has the category {key[:40]}, which is not in `categories`")
    return names[key]


def _box(annotation: Mapping[str, Any], width: int, height: int) -> Box:
    """Return the annotation's bbox; where it is left out or has no area, the box around its segmentation."""
    what = _annotation_name(annotation)
    box = _bbox(annotation["bbox"], what) if annotation.get("bbox") else None
    if box and box[2] > box[0] and box[3] > box[1]:
        return box
    if annotation.get("segmentation"):
        return segmentation_bounds(annotation["segmentation"], width, height, what)
    if box is None:
        raise BadInputError(f"{what} has neither a bbox nor a segmentation")
    return box


def _bbox(bbox: object, what: str) -> Box:
    numbers = parse_numbers(bbox, f"the bbox of {what}")
    if len(numbers) != 4 or min(numbers[2:]) < 0:
        raise BadInputError(f"the bbox of {what} is not [x, y, width, height]: {str(bbox)[:60]}")
    x, y, w, h = numbers
    return x, y, x + w, y + h


def _annotation_name(annotation: Mapping[str, Any]) -> str:
    return f"annotation {str(annotation.get('id'))[:40]}"
