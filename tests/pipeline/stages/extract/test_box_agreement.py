"""The measure of recipes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.imaging.boxes import pairwise_iou
from pipeline.stages.extract.box_agreement import measure_agreement

CORNER = st.integers(0, 40)
BOX = st.tuples(CORNER, CORNER, st.integers(1, 20), st.integers(1, 20)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@given(st.lists(BOX, max_size=6), st.lists(BOX, max_size=6))
def test_iou_is_bounded_and_symmetric(first: list, second: list) -> None:
    a, b = (np.array(boxes, float).reshape(-1, 4) for boxes in (first, second))
    overlaps = pairwise_iou(a, b)
    assert ((overlaps >= 0) & (overlaps <= 1)).all()
    assert np.allclose(overlaps, pairwise_iou(b, a).T)


@given(st.lists(BOX, min_size=1, max_size=6, unique_by=tuple))
def test_boxes_agree_with_themselves(boxes: list) -> None:
    same = {"a": np.array(boxes, float)}
    result = measure_agreement(same, same)
    assert result.recall(0.75) == result.precision(0.75) == 1


def test_each_box_is_paired_once() -> None:
    box = np.array([[0, 0, 10, 10]], float)
    result = measure_agreement({"a": np.repeat(box, 3, 0), "b": box}, {"a": box, "c": box})
    assert (result.num_detections, result.num_ground_truths, result.num_matches[0.5]) == (4, 2, 1)
    assert result.recall(0.5) == pytest.approx(0.5)
    assert result.precision(0.5) == pytest.approx(0.25)
