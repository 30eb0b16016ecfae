"""Boxes and networks that the tests of the detector share; needs what `ssd` needs, and nothing else."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16

from ssd import (
    LAYOUTS,
    SSD,
    BackboneConfig,
    DecodeConfig,
    Detections,
    ModelConfig,
    PriorMap,
    PriorSpec,
    Target,
    clamp_shapes,
    load_matching_weights,
    preset,
)

SIDE = 128.0


def small_spec(height: int = 96, width: int = 128) -> PriorSpec:
    """A spec with three maps on an input that is not square: 414 priors."""
    shapes = ((24.0, 24.0), (34.0, 17.0), (17.0, 34.0))
    maps = []
    for factor, step in ((1.0, 12), (2.0, 24), (4.0, 48)):
        size = (-(-height // step), -(-width // step))
        maps.append(PriorMap(size, (step, step), tuple((w * factor, h * factor) for w, h in shapes)))
    return clamp_shapes(PriorSpec("small", (height, width), tuple(maps)))


def random_boxes(count: int, height: float = 96.0, width: float = 128.0) -> Tensor:
    """Boxes with a width and a height inside an image."""
    low = torch.rand(count, 2) * torch.tensor([width, height]) * 0.8
    size = (torch.rand(count, 2) * 0.19 + 0.01) * torch.tensor([width, height])
    return torch.cat([low, low + size], dim=1)


def random_target(count: int, classes: int = 4, **more: Tensor) -> Target:
    return Target(random_boxes(count), torch.randint(1, classes, (count,)), **more)


def torchvision_twin(classes: int = 4, **settings: float) -> tuple[torch.nn.Module, SSD]:
    """torchvision's SSD300 with random weights, and ours with the same."""
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes, **settings).eval()
    names = tuple(f"class {number}" for number in range(1, classes))
    layout = LAYOUTS["torchvision"]
    config = ModelConfig(clamp_shapes(preset("paper_coco")), names, BackboneConfig(), layout.mean, layout.std)
    ours = SSD(config).eval()
    assert load_matching_weights(ours, layout.convert(theirs.state_dict()), classes) == []
    return theirs, ours


def assert_same_detections(actual: Detections, expected: Detections) -> None:
    """Each has its twin on the other side, within a hundredth of a pixel; two of one score may change places.

    Of those with the last score that a full list had room for, either side may have kept others.
    """
    assert len(actual) == len(expected) > 20
    torch.testing.assert_close(actual.scores, expected.scores, rtol=0, atol=1e-4)
    apart = (actual.boxes[:, None] - expected.boxes).abs().amax(dim=2)
    twins = (apart < 1e-2) & ((actual.scores[:, None] - expected.scores).abs() < 1e-4)
    twins &= actual.labels[:, None] == expected.labels
    last = expected.scores[-1] + 1e-4 if len(expected) == DecodeConfig().max_detections else 0.0
    assert bool((twins.any(dim=0) | (expected.scores < last)).all())
    assert bool((twins.any(dim=1) | (actual.scores < last)).all())


@st.composite
def boxes_inside(draw: st.DrawFn, max_count: int = 8, side: float = SIDE) -> Tensor:
    """Up to `max_count` boxes inside a square image, each with a width and a height."""
    number = st.floats(0, side - 1, width=32)
    size = st.floats(0.5, side, width=32)
    rows = draw(st.lists(st.tuples(number, number, size, size), max_size=max_count))
    boxes = torch.tensor(rows).reshape(-1, 4)
    boxes[:, 2:] = (boxes[:, :2] + boxes[:, 2:]).clamp(max=side)
    return boxes
