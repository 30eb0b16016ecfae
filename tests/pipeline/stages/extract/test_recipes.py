"""Masks to boxes: what each recipe promises."""

from typing import Any

import numpy as np
import pytest

from pipeline.datasets.annotations.types import AnnotatedBoxes, RunLengthMask
from pipeline.datasets.card import Card
from pipeline.imaging.run_length import encode_runs
from pipeline.stages.extract.recipes import (
    ExtractedObjects,
    annotated_objects,
    components_recipe,
    epfl_recipe,
    flag_suspicious,
)

LEGEND = {"0": "sky", "1": "building", "2": "window", "3": "door", "4": "tree"}


def card(**changes: Any) -> Card:
    base = {"name": "s", "title": "", "source": "", "licence": "", "images": "{id}.jpg", "annotations": "{id}.png"}
    base |= {"kind": "index_mask", "legend": LEGEND, "labelled_classes": ["building", "window", "door"], "minimum": {}}
    base |= {"merge_into": {"building": ["window", "door"]}, "occluders": ["tree"]}
    return Card.model_validate({**base, **changes})


def mask(of: Card, codes: np.ndarray) -> RunLengthMask:
    lookup = np.array([of.names.index(LEGEND[str(i)]) for i in range(5)], np.int16)
    return RunLengthMask(encode_runs(lookup[codes]), 0.0)


def objects(found: ExtractedObjects) -> list[tuple[str, list[float], int]]:
    return [(label, box, area) for label, box, area in zip(found.labels, found.xyxy.tolist(), found.areas, strict=True)]


HOUSE = np.zeros((60, 80), np.int64)
HOUSE[10:50, 10:70] = 1
HOUSE[20:30, 20:28] = 2
HOUSE[20:30, 40:48] = 2
HOUSE[35:50, 30:38] = 3


def test_components_are_exact() -> None:
    found = components_recipe(card(), mask(card(), HOUSE))
    assert objects(found) == [
        ("building", [10, 10, 70, 50], 2400),
        ("window", [20, 20, 28, 30], 80),
        ("window", [40, 20, 48, 30], 80),
        ("door", [30, 35, 38, 50], 120),
    ]
    assert found.dropped == {}


def test_without_a_union_a_building_is_its_wall() -> None:
    walls = card(merge_into={})
    codes = np.where((HOUSE == 1) & (np.arange(80) >= 40), 2, HOUSE)  # the right half is one large window
    found = components_recipe(walls, mask(walls, codes))
    assert objects(found)[0][:2] == ("building", [10, 10, 40, 50])


def test_the_smallest_areas_hold_and_are_counted() -> None:
    small = card(minimum={"window": {"pixels": 81}, "door": {"share": 0.03}})
    found = components_recipe(small, mask(small, HOUSE))
    assert found.labels == ("building",)
    assert found.dropped == {"window": 2, "door": 1}


def test_corners_connect() -> None:
    codes = np.zeros((20, 20), np.int64)
    codes[2:7, 2:7], codes[7:12, 7:12] = 2, 2
    assert objects(components_recipe(card(merge_into={}), mask(card(), codes))) == [("window", [2, 2, 12, 12], 50)]


def test_an_empty_mask_has_no_boxes() -> None:
    for recipe in (components_recipe, epfl_recipe):
        found = recipe(card(), mask(card(), np.zeros((30, 40), np.int64)))
        assert found.xyxy.shape == (0, 4)


def test_bridging_is_off_by_default_and_joins_what_a_tree_parts() -> None:
    codes = HOUSE.copy()
    codes[:, 33:36] = 4
    apart = components_recipe(card(), mask(card(), codes))
    joined = components_recipe(card(), mask(card(), codes), bridge=0.05)
    too_wide = components_recipe(card(), mask(card(), codes), bridge=0.02)
    assert [found.labels.count("building") for found in (apart, joined, too_wide)] == [2, 1, 2]
    assert [found.labels.count("door") for found in (apart, joined)] == [2, 1]
    assert joined.xyxy[0].tolist() == [10, 10, 70, 50]


def test_bridging_leaves_labelled_objects_alone() -> None:
    both = card(labelled_classes=["building", "tree"], merge_into={})
    codes = HOUSE.copy()
    codes[:, 33:36] = 4
    codes[:5] = 0
    found = components_recipe(both, mask(both, codes), bridge=0.05)
    assert found.labels.count("tree") == 1


def epfl_by_opencv(of: Card, codes: np.ndarray) -> list[tuple[str, tuple[int, ...]]]:
    """The report's recipe as it would be written with OpenCV."""
    import cv2

    small = cv2.resize(codes.astype(np.uint8), (300, 300), interpolation=cv2.INTER_NEAREST)
    boxes = []
    for label in of.labelled_classes:
        index = int(next(key for key, name in LEGEND.items() if name == label))
        blurred = cv2.blur(np.where(small == index, 255, 0).astype(np.uint8), (5, 5))
        _, binary = cv2.threshold(blurred, 1, 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(binary, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        boxes += [(label, tuple(cv2.boundingRect(contour))) for contour in contours]
    return sorted(boxes)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [(300, 300), (123, 457), (512, 683)])
def test_the_reports_recipe_is_that_of_opencv(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    codes = np.zeros(size, np.int64)
    for _ in range(60):
        top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
        codes[top : top + rng.integers(1, 80), left : left + rng.integers(1, 80)] = rng.integers(0, 4)
    found = epfl_recipe(card(), mask(card(), codes))
    scale = np.array([300 / size[1], 300 / size[0]] * 2)
    boxes = np.round(found.xyxy * scale).astype(int)
    ours = sorted(
        (label, (x0, y0, x1 - x0, y1 - y0))
        for label, (x0, y0, x1, y1) in zip(found.labels, boxes.tolist(), strict=True)
    )
    assert ours == epfl_by_opencv(card(), codes)


def test_true_boxes_are_cut_at_the_border_and_those_outside_are_counted() -> None:
    boxes = np.array([[-5, 10, 20, 30], [90, 90, 200, 200], [0, 0, 10, 10], [5, 5, 5, 9]], float)
    found = annotated_objects(card(), AnnotatedBoxes(("window", "door", "tree", "window"), boxes, 0.0), 80, 60)
    assert objects(found) == [("window", [0, 10, 20, 30], -1)]
    assert found.dropped == {"window": 1, "door": 1}


def test_flags_go_with_their_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [90, 90, 99, 99], [5, 5, 9, 9]], float)
    flags = np.array([True, True, False])
    found = annotated_objects(card(), AnnotatedBoxes(("window", "door", "building"), boxes, 0.0, flags, ~flags), 80, 60)
    assert dict(zip(found.labels, zip(found.difficult, found.ignore, strict=True), strict=True)) == {
        "building": (False, True),
        "window": (True, False),
    }
    with pytest.raises(ValueError, match="ignore has 2 flags"):
        AnnotatedBoxes(("window",), boxes[:1], 0.0, ignore=flags[:2])


def test_suspects_are_marked_and_nothing_is_changed() -> None:
    boxes = [[x, 0.0, x + 10.0, 20.0] for x in range(0, 120, 20)] + [[200, 0, 222, 20], [230, 0, 233, 20]]
    boxes += [[0, 100, 22, 145]]  # twice as large along both sides: a shop window, not two that touch
    found = ExtractedObjects(("window",) * len(boxes), np.array(boxes, float), np.full(len(boxes), 99), {})
    assert flag_suspicious(found) == [None] * 6 + ["merged", "speck", None]
    assert flag_suspicious(ExtractedObjects((), np.zeros((0, 4)), np.zeros(0, np.int64), {})) == []
