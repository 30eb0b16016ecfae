"""Boxes keep their meaning through every format, and one without area is no trouble."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssd import area_xyxy, clip_xyxy, cxcywh_to_xyxy, iou_xyxy, xyxy_to_cxcywh

HEIGHT, WIDTH = 200.0, 320.0
EMPTY = torch.zeros((0, 4))
NUMBERS = st.floats(-50, 400, width=32)


def sorted_boxes(numbers: list[list[float]]) -> Tensor:
    corners = torch.tensor(numbers).reshape(-1, 2, 2)
    return corners.sort(dim=1).values.reshape(-1, 4)


ANY_BOXES = st.lists(st.lists(NUMBERS, min_size=4, max_size=4), max_size=6).map(
    lambda numbers: torch.tensor(numbers).reshape(-1, 4)
)
BOXES = st.lists(st.lists(NUMBERS, min_size=4, max_size=4), max_size=6).map(sorted_boxes)


@settings(deadline=None)
@given(ANY_BOXES)
def test_there_and_back_is_the_identity(boxes: Tensor) -> None:
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes, rtol=0, atol=1e-3)


def test_one_box_in_both_formats() -> None:
    xyxy, cxcywh = torch.tensor([[10.0, 20.0, 40.0, 30.0]]), torch.tensor([[25.0, 25.0, 30.0, 10.0]])
    assert torch.equal(xyxy_to_cxcywh(xyxy), cxcywh)
    assert torch.equal(cxcywh_to_xyxy(cxcywh), xyxy)
    assert area_xyxy(xyxy).tolist() == [300.0]


def test_whole_numbers_keep_their_halves() -> None:
    assert xyxy_to_cxcywh(torch.tensor([[0, 0, 3, 5]])).tolist() == [[1.5, 2.5, 3.0, 5.0]]


def test_nothing_stays_nothing() -> None:
    for function in (xyxy_to_cxcywh, cxcywh_to_xyxy):
        assert function(EMPTY).shape == (0, 4)
    assert clip_xyxy(EMPTY, HEIGHT, WIDTH).shape == (0, 4)
    assert area_xyxy(EMPTY).shape == (0,)
    three = torch.tensor([[0.0, 0.0, 2.0, 2.0]] * 3)
    assert iou_xyxy(EMPTY, three).shape == (0, 3)
    assert iou_xyxy(three, EMPTY).shape == (3, 0)
    assert iou_xyxy(EMPTY, EMPTY).shape == (0, 0)


@settings(deadline=None)
@given(ANY_BOXES, ANY_BOXES)
def test_iou_is_a_share_and_symmetric(first: Tensor, second: Tensor) -> None:
    iou = iou_xyxy(first, second)
    assert iou.shape == (len(first), len(second))
    assert bool(((iou >= 0) & (iou <= 1 + 1e-6)).all())
    torch.testing.assert_close(iou, iou_xyxy(second, first).T, rtol=0, atol=1e-6)


@settings(deadline=None)
@given(BOXES)
def test_a_box_is_itself_unless_it_has_no_area(boxes: Tensor) -> None:
    expected = (area_xyxy(boxes) > 0).float()
    torch.testing.assert_close(iou_xyxy(boxes, boxes).diagonal(), expected, rtol=0, atol=1e-6)


def test_iou_by_hand() -> None:
    first = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    second = torch.tensor([[5.0, 10.0, 15.0, 20.0], [0.0, 0.0, 10.0, 20.0], [10.0, 0.0, 20.0, 20.0]])
    torch.testing.assert_close(iou_xyxy(first, second), torch.tensor([[50 / 250, 1.0, 0.0]]))


@pytest.mark.parametrize(
    "flat",
    [
        [3.0, 3.0, 3.0, 3.0],
        [3.0, 3.0, 3.0, 9.0],
        [9.0, 9.0, 3.0, 3.0],
        [9.0, 3.0, 3.0, 9.0],
        [1e-30, 0.0, 2e-30, 1e-30],
    ],
)
def test_a_box_without_area_overlaps_nothing(flat: list[float]) -> None:
    boxes = torch.tensor([flat, [0.0, 0.0, 6.0, 6.0]])
    assert iou_xyxy(boxes, boxes).tolist() == [[0.0, 0.0], [0.0, 1.0]]
    assert area_xyxy(boxes).tolist() == [0.0, 36.0]


def test_a_coordinate_that_is_no_number_is_not_hidden() -> None:
    boxes = torch.tensor([[float("nan"), 0.0, 5.0, 5.0], [0.0, 0.0, 6.0, 6.0]])
    assert iou_xyxy(boxes, boxes).isnan().tolist() == [[True, True], [True, False]]


@settings(deadline=None)
@given(BOXES)
def test_clipping_keeps_what_is_inside(boxes: Tensor) -> None:
    before = boxes.clone()
    clipped = clip_xyxy(boxes, HEIGHT, WIDTH)
    assert torch.equal(boxes, before)
    assert torch.equal(clipped[:, 0::2], boxes[:, 0::2].clamp(0, WIDTH))
    assert torch.equal(clipped[:, 1::2], boxes[:, 1::2].clamp(0, HEIGHT))


def test_width_limits_x_and_height_limits_y() -> None:
    boxes = torch.tensor([[-5.0, -5.0, 500.0, 500.0], [330.0, 210.0, 340.0, 220.0]])
    assert clip_xyxy(boxes, HEIGHT, WIDTH).tolist() == [[0.0, 0.0, 320.0, 200.0], [320.0, 200.0, 320.0, 200.0]]
