"""Suppression: torchvision's, without its package."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.ops import batched_nms
from torchvision.ops import nms as torchvision_nms

from ssd import SSD, BackboneConfig, Bundle, ModelConfig, preset, save_bundle
from ssd.suppression import nms, nms_of_labels

from .samples import random_boxes


def test_it_is_torchvisions() -> None:
    torch.manual_seed(3)
    for count in (0, 1, 200):
        boxes, scores = random_boxes(count), torch.rand(count)
        labels = torch.randint(1, 4, (count,))
        assert nms(boxes, scores, 0.3).equal(torchvision_nms(boxes, scores, 0.3))
        assert nms_of_labels(boxes, scores, labels, 0.3).equal(batched_nms(boxes, scores, labels, 0.3))


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
