"""Matching serves every ground truth, then gives every other prior its best: held to the released code's rule."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssd import BACKGROUND, IGNORED, Target, TargetBatch, iou_xyxy, match, preset
from ssd.losses import matching

from ..samples import SIDE, boxes_inside, random_boxes, random_target, small_spec


def matched(targets: list[Target], priors: Tensor, threshold: float = 0.5) -> list[list[int]]:
    found: list[list[int]] = match(TargetBatch.from_targets(targets, 4), priors, threshold).tolist()
    return found


def released_rule(boxes: Tensor, priors: Tensor, threshold: float) -> list[int]:
    """The largest overlap of all is taken, again and again; then every prior above the threshold takes its best."""
    left = iou_xyxy(boxes, priors)
    overlap, best = left.max(dim=0) if len(boxes) else (torch.zeros(len(priors)), torch.zeros(len(priors)).long())
    found = torch.where(overlap > threshold, best, BACKGROUND).tolist()
    left = left.clone()
    while len(boxes) and left.max() > 0:
        truth, prior = divmod(int(left.argmax()), len(priors))
        found[prior] = truth
        left[truth], left[:, prior] = 0, 0
    return found


@settings(deadline=None)
@given(boxes_inside(), st.sampled_from([0.3, 0.5, 0.7]))
def test_the_pairs_are_those_of_the_released_code(boxes: Tensor, threshold: float) -> None:
    priors = small_spec(int(SIDE), int(SIDE)).priors_xyxy()
    iou = iou_xyxy(boxes, priors)
    boxes = boxes[(iou > 0).any(dim=1)]
    overlaps = iou_xyxy(boxes, priors).flatten()
    if len(overlaps[overlaps > 0].unique()) < int((overlaps > 0).sum()):
        # Equal overlaps: either of the two may come first. That everyone is served must hold all the same.
        found = matched([Target(boxes, torch.ones(len(boxes), dtype=torch.int64))], priors, threshold)[0]
        assert set(range(len(boxes))) <= set(found)
        return
    target = Target(boxes, torch.ones(len(boxes), dtype=torch.int64))
    assert matched([target], priors, threshold)[0] == released_rule(boxes, priors, threshold)


def test_the_pairs_at_random_without_ties() -> None:
    priors = small_spec().priors_xyxy() + torch.rand(small_spec().count, 4)
    for seed in range(50):
        torch.manual_seed(seed)
        target = random_target(seed)
        assert matched([target], priors)[0] == released_rule(target.boxes, priors, 0.5)


def test_two_that_want_the_same_prior_are_both_served() -> None:
    priors = torch.tensor([[0.0, 0.0, 20.0, 20.0], [40.0, 0.0, 60.0, 20.0], [10.0, 0.0, 30.0, 20.0]])
    twins = Target(torch.tensor([[0.0, 0.0, 20.0, 19.0], [0.0, 0.0, 20.0, 20.0]]), torch.tensor([1, 2]))
    assert matched([twins], priors) == [[1, BACKGROUND, 0]]


def test_the_better_of_two_that_meet_later_wins_too() -> None:
    priors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [4.0, 0.0, 14.0, 10.0], [9.0, 0.0, 19.0, 10.0]])
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [7.0, 0.0, 17.0, 10.0]])
    found = matched([Target(boxes, torch.ones(3, dtype=torch.int64))], priors)[0]
    assert found == released_rule(boxes, priors, 0.5) == [0, 1, 2]


def test_more_ground_truths_than_priors_serve_whom_they_can() -> None:
    priors = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    boxes = torch.tensor([[0.0, 0.0, 20.0, 15.0], [0.0, 0.0, 20.0, 20.0]])
    assert matched([Target(boxes, torch.tensor([1, 1]))], priors) == [[1]]


def test_who_overlaps_no_prior_gets_none() -> None:
    priors = torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    assert matched([Target(torch.tensor([[50.0, 50.0, 60.0, 60.0]]), torch.tensor([1]))], priors) == [[BACKGROUND]]


def test_priors_over_ignored_boxes_are_no_negatives() -> None:
    priors = torch.tensor(
        [[0.0, 0.0, 20.0, 20.0], [8.0, 0.0, 28.0, 20.0], [12.0, 0.0, 32.0, 20.0], [0.0, 0.0, 5.0, 5.0]]
    )
    region = Target(torch.tensor([[0.0, 0.0, 20.0, 20.0]]), torch.tensor([1]), torch.tensor([True]))
    assert matched([region], priors) == [[IGNORED, IGNORED, BACKGROUND, IGNORED]]
    both = Target(region.boxes.repeat(2, 1), torch.tensor([1, 2]), torch.tensor([True, False]))
    assert matched([both], priors) == [[1, IGNORED, BACKGROUND, IGNORED]]


@pytest.mark.parametrize("count", [0, 1, 300])
def test_a_batch_is_its_images_one_by_one(count: int) -> None:
    priors = preset("paper_coco").priors_xyxy()
    targets = [Target(random_boxes(n, 300, 300), torch.ones(n, dtype=torch.int64)) for n in (count, 3, 0)]
    together = matched(targets, priors)
    assert together == [matched([target], priors)[0] for target in targets]
    assert together == matching._match(TargetBatch.from_targets(targets, 4), priors, 0.5).tolist(), (
        "at once, as on a GPU"
    )
    assert [len(set(row) - {BACKGROUND}) for row in together] == [count, 3, 0]


def test_no_images_are_no_matches() -> None:
    assert match(TargetBatch.from_targets([], 4), small_spec().priors_xyxy()).shape == (0, small_spec().count)
