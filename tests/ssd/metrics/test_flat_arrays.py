"""Rows of many images say what the images' tensors say, and are refused where they mean nothing."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ssd import DetectionArrays, Detections, GroundTruthArrays, Target

BOXES, NONE = torch.tensor([[0.0, 0.0, 2.0, 2.0], [1.0, 1.0, 3.0, 4.0]]), torch.zeros(0, dtype=torch.int64)
LABELS = torch.tensor([2, 1])


def test_detections_of_images_stand_in_their_order() -> None:
    empty = Detections(torch.zeros((0, 4)), NONE, torch.zeros(0))
    rows = DetectionArrays.from_detections([Detections(BOXES, LABELS, torch.tensor([0.5, 0.25])), empty, empty])
    more = DetectionArrays.from_detections([empty, Detections(BOXES[:1], LABELS[:1], torch.tensor([1.0]))])
    assert rows.images.tolist() == [0, 0]
    assert more.images.tolist() == [1]
    assert rows.labels.tolist() == LABELS.tolist()
    assert rows.scores.tolist() == [0.5, 0.25]
    assert rows.boxes.tolist() == BOXES.tolist()
    assert len(rows) == 2


def test_truths_of_images_keep_their_flags() -> None:
    flags, labelled = torch.tensor([False, True]), torch.tensor([True, True, True, False])
    rows = GroundTruthArrays.from_targets([Target(BOXES, LABELS), Target(BOXES, LABELS, flags, labelled)], 4)
    assert rows.ignore is not None
    assert rows.labelled is not None
    assert rows.images.tolist() == [0, 0, 1, 1]
    assert rows.ignore.tolist() == [False, False, False, True]
    assert rows.labelled.tolist() == [[True] * 4, labelled.tolist()]
    assert rows.labelled_at(np.array([0, 1]), np.array([3, 3])).tolist() == [True, False]
    assert rows.positives().tolist() == [0, 1, 2, 0]


def test_no_image_has_no_rows() -> None:
    detections, truths = DetectionArrays.from_detections([]), GroundTruthArrays.from_targets([], 3)
    assert detections.boxes.shape == truths.boxes.shape == (0, 4)
    assert len(detections) == len(truths) == 0
    assert truths.positives().tolist() == [0, 0, 0]


def test_a_target_that_names_other_classes_is_refused() -> None:
    target = Target(torch.zeros((0, 4)), NONE, labelled=torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="names 2 classes"):
        GroundTruthArrays.from_targets([target], 3)


ROWS = {"images": np.array([0]), "labels": np.array([1]), "boxes": np.array([[0.0, 0.0, 2.0, 2.0]])}
FOUND, TRUE = {**ROWS, "scores": np.array([0.5])}, {**ROWS, "classes": 2}


@pytest.mark.parametrize(
    ("make", "wrong", "said"),
    [
        (DetectionArrays, {"boxes": np.zeros(4)}, "shape"),
        (DetectionArrays, {"boxes": np.zeros((1, 4), dtype=np.int64)}, "floats"),
        (DetectionArrays, {"boxes": np.array([[0.0, 0.0, math.nan, 1.0]])}, "finite"),
        (DetectionArrays, {"boxes": np.array([[0.0, 0.0, math.inf, 1.0]], dtype=np.float32)}, "finite"),
        (DetectionArrays, {"boxes": np.array([[-1e200, 0.0, 1e200, 1.0]])}, "finite"),
        (DetectionArrays, {"scores": np.array([math.nan])}, "finite"),
        (DetectionArrays, {"scores": np.array([1])}, "floats"),
        (DetectionArrays, {"scores": np.zeros(2)}, "shape"),
        (DetectionArrays, {"labels": np.array([0])}, "from 1"),
        (DetectionArrays, {"labels": np.array([1.0])}, "whole"),
        (DetectionArrays, {"images": np.array([-1])}, "from 0"),
        (DetectionArrays, {"images": np.array([2**40])}, "images"),
        (GroundTruthArrays, {"labels": np.array([2])}, "2 classes"),
        (GroundTruthArrays, {"classes": 0}, "background"),
        (GroundTruthArrays, {"ignore": np.array([0])}, "bool"),
        (GroundTruthArrays, {"labelled": np.ones((1, 3), dtype=bool)}, "labelled"),
        (GroundTruthArrays, {"labelled": np.ones((0, 2), dtype=bool)}, "image 0"),
        (GroundTruthArrays, {"labelled": np.array([[True, False]])}, "would not show"),
    ],
)
def test_rows_that_mean_nothing_are_refused(make: Callable[..., Any], wrong: dict[str, Any], said: str) -> None:
    right = FOUND if make is DetectionArrays else TRUE
    make(**right)
    with pytest.raises(ValueError, match=said):
        make(**{**right, **wrong})


def test_a_region_to_ignore_may_be_of_a_class_that_nobody_labelled() -> None:
    box, two = torch.tensor([[1.0, 2.0, 3.0, 5.0]]), torch.tensor([2])
    target = Target(box, two, torch.tensor([True]), torch.tensor([True, True, False]))
    rows = GroundTruthArrays.from_targets([target], 3)
    assert rows.positives().tolist() == [0, 0, 0]
