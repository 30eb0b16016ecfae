"""COCO JSON, one photo's entry of it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.datasets.annotations import AnnotatedBoxes, read_annotation
from pipeline.datasets.annotations.coco import segmentation_bounds
from pipeline.datasets.card import Card
from pipeline.errors import BadInputError

SQUARE = [[10, 10, 20, 10, 20, 20, 10, 20]]
OUTLINES = [*SQUARE, [30.5, 0, 40, 0, 40, 5]]


def card(**legend: str) -> Card:
    base = {"name": "s", "title": "", "source": "", "licence": "", "images": "{id}.jpg", "annotations": "all.json"}
    labelled = list(dict.fromkeys(legend.values()))
    return Card.model_validate({**base, "kind": "coco", "labelled_classes": labelled, "legend": legend})


def read(content: dict[str, Any], of: Card | None = None) -> AnnotatedBoxes:
    names = {str(category["id"]): category["name"] for category in content["categories"]}
    entry = {"image": content["images"][0], "annotations": content["annotations"], "categories": names}
    found = read_annotation(of or card(window="window"), json.dumps(entry).encode(), 320, 240)
    assert isinstance(found, AnnotatedBoxes)
    return found


@pytest.mark.parametrize(
    ("annotation", "box"),
    [
        ({"segmentation": SQUARE}, [1, 2, 4, 6]),
        ({"bbox": None, "segmentation": SQUARE}, [10, 10, 20, 20]),
        ({"bbox": [], "segmentation": OUTLINES}, [10, 0, 40, 20]),
        ({"bbox": [0, 0, 0, 0], "segmentation": OUTLINES}, [10, 0, 40, 20]),
        ({"bbox": [5, 5, 0, 9], "segmentation": []}, [5, 5, 5, 14]),
        ({"segmentation": [[1, 2, 3, 4]]}, [1, 2, 4, 6]),  # the bbox stands on its own
        ({"bbox": [300.5, 200, 100, 100]}, [300.5, 200, 400.5, 300]),  # cut later, by `true_objects`
    ],
)
def test_the_bbox_wins_and_the_outline_stands_in(annotation: dict[str, Any], box: list[float], coco: Any) -> None:
    assert read(coco.single_annotation(**annotation)).xyxy.tolist() == [box]


def test_crowds_are_to_be_ignored(coco: Any) -> None:
    for value, ignored in ((1, True), (True, True), (0, False), (None, False)):
        assert read(coco.single_annotation(iscrowd=value)).ignore.tolist() == [ignored]
    assert not read(coco.single_annotation(iscrowd=1)).difficult.any()


def test_ids_go_before_names_and_both_may_be_mixed(coco: Any) -> None:
    content = coco.single_annotation()
    content["categories"] = [{"id": 0, "name": "facade"}, {"id": 3, "name": "facade"}, {"id": 4, "name": "window"}]
    content["annotations"] = [{**content["annotations"][0], "category_id": key} for key in (0, 3, 4, 3.0)]
    assert read(content, card(**{"facade": "building", "3": "door", "window": "window"})).labels == (
        "building",
        "door",
        "window",
        "door",
    )
    assert read(content, card(**{"facade": "door", "0": "building", "*": "window"})).labels[:3] == (
        "building",
        "door",
        "window",
    )


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"bbox": [1, 2, -3, 4]}, "the bbox of annotation 7 is not .x, y, width, height."),
        ({"bbox": [1, 2, math.nan, 4]}, "the bbox of annotation 7 holds what is not a number"),
        ({"bbox": [math.inf, 2, 3, 4]}, "the bbox of annotation 7 holds what is not a number"),
        ({"bbox": [10**400, 2, 3, 4]}, "the bbox of annotation 7 is no list of numbers"),
        ({"bbox": [1, 2, 3]}, "the bbox of annotation 7"),
        ({"bbox": "1 2 3 4"}, "the bbox of annotation 7"),
        ({"bbox": [1, 2, "3", 4]}, "the bbox of annotation 7"),
        ({"bbox": []}, "annotation 7 has neither a bbox nor a segmentation"),
        ({"bbox": [], "segmentation": [[1, 2, 3, 4]]}, "a polygon of annotation 7 is no polygon: it has 4 numbers"),
        ({"bbox": [0, 0, 0, 0], "segmentation": [[1, 2, 3, 4]]}, "a polygon of annotation 7"),
        ({"bbox": [], "segmentation": [*SQUARE, [1, 2, 3, 4]]}, "a polygon of annotation 7"),
        ({"bbox": [], "segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "it has 7 numbers"),
        ({"bbox": [], "segmentation": [[1, 2, 3, 4, 5, math.nan]]}, "not a number"),
        ({"bbox": [], "segmentation": [1, 2, 3, 4, 5, 6]}, "a polygon of annotation 7 is no list of numbers"),
        ({"bbox": [], "segmentation": "m2"}, "the segmentation of annotation 7 is neither"),
        ({"bbox": [], "segmentation": {"size": [240, 320], "counts": [5]}}, "annotation 7 has runs of 5 pixels"),
        ({"category_id": 99}, "annotation 7 has the category 99, which is not in `categories`"),
        ({"category_id": None}, "annotation 7 has the category None"),
    ],
)
def test_a_broken_annotation_is_named(annotation: dict[str, Any], reason: str, coco: Any) -> None:
    with pytest.raises(BadInputError, match=reason):
        read(coco.single_annotation(**annotation))


def test_another_size_than_the_photos_is_refused(coco: Any) -> None:
    content = coco.single_annotation()
    content["images"][0]["width"] = 640
    with pytest.raises(BadInputError, match="the annotation is of 640x240 pixels and its photo has 320x240"):
        read(content)


def test_real_polygons_give_the_boxes_of_their_bboxes(real_data: Path) -> None:
    annotations = json.loads((real_data / "quirks/coco_polygons/_annotations.coco.json").read_text())["annotations"]
    assert len(annotations) == 252
    for entry in annotations:
        x, y, w, h = entry["bbox"]
        found = segmentation_bounds(entry["segmentation"], 1024, 1024, "it")
        assert np.abs(np.array(found) - [x, y, x + w, y + h]).max() <= 0.5  # some bboxes are rounded to whole pixels
