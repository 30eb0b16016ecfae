"""The networks that turn a photo into feature maps: VGG-16 as in the paper, MobileNetV2, and a tiny one.

All stand on one grid: an input of 300 gives maps of 38, 19, 10, 5, 3 and 1 cells (and 75 where asked for), one of 512
with `layout=512` maps of 64, 32, 16, 8, 4, 2 and 1, so that priors fit any of them.
"""

from __future__ import annotations

from ssd.backbones.backbone import BACKBONE_NAMES, Backbone, BackboneConfig
from ssd.backbones.mobile import MobileNetV2, Tiny
from ssd.backbones.vgg16 import VGG16, decimate_classifier

__all__ = ["BACKBONE_NAMES", "Backbone", "BackboneConfig", "decimate_classifier", "make_backbone"]


def make_backbone(config: BackboneConfig) -> Backbone:
    """Return the network of a config, its weights drawn from torch's generator."""
    makers = dict(zip(BACKBONE_NAMES, (VGG16, MobileNetV2, Tiny), strict=True))
    return makers[config.name](config)
