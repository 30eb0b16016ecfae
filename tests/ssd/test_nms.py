"""Suppression: torchvision's, without its package."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.ops import batched_nms
from torchvision.ops import nms as torchvision_nms

from ssd import SSD, BackboneConfig, Bundle, ModelConfig, preset, save_bundle
from ssd import nms as suppression
from ssd.nms import batched_nms_mask, class_aware_nms, nms

from .samples import random_boxes


def test_it_is_torchvisions() -> None:
    torch.manual_seed(3)
    for count in (0, 1, 200):
        boxes, scores = random_boxes(count), torch.rand(count)
        labels = torch.randint(1, 4, (count,))
        assert nms(boxes, scores, 0.3).equal(torchvision_nms(boxes, scores, 0.3))
        assert class_aware_nms(boxes, scores, labels, 0.3).equal(batched_nms(boxes, scores, labels, 0.3))


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("most", [1 << 24, 5000, 100])
def test_rows_at_once_are_the_rows_one_by_one(overlap: float, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a row or two are more than may be in memory, and in the longest of chains."""
    monkeypatch.setattr(suppression, "MAX_PAIRS_IN_MEMORY", most)
    chain = torch.arange(60.0)[:, None] * torch.tensor([3.0, 0, 3, 0]) + torch.tensor([0.0, 0, 10, 10])
    rows = [chain, *(random_boxes(60) for _ in range(4))]
    candidates = torch.rand(5, 60) < 0.8
    kept = batched_nms_mask(torch.stack(rows), candidates, overlap)
    scores = torch.arange(60.0).flip(0)
    for row, some, stays in zip(rows, candidates, kept, strict=True):
        assert stays.nonzero()[:, 0].equal(some.nonzero()[nms(row[some], scores[some], overlap), 0])
    assert batched_nms_mask(torch.zeros(0, 4, 4), candidates[:0, :4], overlap).shape == (0, 4)


@pytest.mark.parametrize("tenths", range(1, 10))
def test_an_overlap_of_just_the_limit_is_judged_alike(tenths: int) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 1], [0.0, 0, tenths, 1]])
    kept = batched_nms_mask(boxes[None], torch.ones(1, 2, dtype=torch.bool), tenths / 10)
    assert int(kept.sum()) == len(nms(boxes, torch.tensor([0.9, 0.8]), tenths / 10))


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "vgg16"])
def test_no_process_that_finds_waits_for_torchvision_or_a_compiler(tmp_path: Path, backbone: str) -> None:
    config = ModelConfig(preset("paper_coco"), ("window",), BackboneConfig(backbone))
    save_bundle(tmp_path / "bundle", Bundle(SSD(config).eval()))
    program = """
import sys, torch
from pathlib import Path
from ssd import Detector, load_bundle
detector = Detector(load_bundle(Path(sys.argv[1])), "cpu")
print(len(detector([torch.zeros(3, 200, 300, dtype=torch.uint8)])))
assert not {"torchvision", "torch._dynamo"} & set(sys.modules)
import torchvision.ops
assert torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), .5).tolist() == [0]
"""
    subprocess.run([sys.executable, "-c", program, tmp_path / "bundle"], check=True)
