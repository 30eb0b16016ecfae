"""What is wrong with a target is said when it is made, not by a loss that is not a number."""

import pytest
import torch

from ssd import Detections, Target, TargetBatch

BOX, ONE = torch.tensor([[1.0, 2.0, 3.0, 5.0]]), torch.tensor([1])
EMPTY = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


@pytest.mark.parametrize(
    ("boxes", "labels", "more", "message"),
    [
        (BOX[:, [2, 1, 0, 3]], ONE, {}, "has a width and a height; 1 of 1"),
        (BOX[:, [0, 1, 0, 3]], ONE, {}, "has a width and a height"),
        (BOX / 0, ONE, {}, "not a finite number"),
        (BOX[0], ONE, {}, r"shape \(count, 4\)"),
        (BOX.long(), ONE, {}, "floats"),
        (BOX, torch.tensor([0]), {}, "begin at 1"),
        (BOX, torch.tensor([1, 1]), {}, r"shape \(1,\)"),
        (BOX, torch.tensor([1.0]), {}, "int64"),
        (BOX, ONE, {"ignore": torch.tensor([1])}, "bool"),
        (BOX, ONE, {"labelled": torch.tensor([False, True])}, "begins with true"),
        (BOX, ONE, {"labelled": torch.tensor([True, False])}, "class 1, which `labelled` says"),
        (BOX, torch.tensor([2]), {"labelled": torch.tensor([True, True])}, "label 2; labelled names 2 classes"),
    ],
)
def test_a_wrong_target_is_refused(
    boxes: torch.Tensor, labels: torch.Tensor, more: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Target(boxes, labels, **more)


def test_a_region_to_ignore_may_be_of_any_class() -> None:
    labelled = torch.tensor([True, True, False])
    assert Target(BOX, torch.tensor([2]), torch.tensor([True]), labelled).ignore is not None
    with pytest.raises(ValueError, match="class 2"):
        Target(BOX, torch.tensor([2]), torch.tensor([False]), labelled)


def test_a_block_holds_its_targets() -> None:
    second = Target(BOX, ONE, torch.tensor([True]), torch.tensor([True, True, False]))
    block = TargetBatch.from_targets([Target(BOX.repeat(2, 1), torch.tensor([1, 2])), second, Target(*EMPTY)], 3)
    assert block.boxes.shape == (3, 2, 4)
    assert block.labels.tolist() == [[1, 2], [1, 0], [0, 0]]
    assert block.ignore.tolist() == [[False, False], [True, False], [False, False]]
    assert block.labelled.tolist() == [[True] * 3, [True, True, False], [True] * 3]
    assert block.to("cpu", torch.float64).boxes.dtype == torch.float64


@pytest.mark.parametrize("more", [{}, {"labelled": torch.tensor([True, True, True, True])}])
def test_a_block_is_for_the_classes_of_its_model(more: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="the model has 3"):
        TargetBatch.from_targets([Target(BOX, torch.tensor([3]), **more)], 3)


def test_detections_are_checked() -> None:
    assert len(Detections(*EMPTY, torch.zeros(0))) == 0
    with pytest.raises(ValueError, match="a score for each box"):
        Detections(BOX, ONE, torch.zeros(2))
