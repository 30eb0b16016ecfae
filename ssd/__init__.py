"""The detector: boxes, priors, and what else an SSD is made of. It knows nothing of datasets and tables.

Shapes in docstrings are written with fixed letters:

    B   images of a batch
    P   priors
    G   ground truths of an image
    N   detections of an image
    C   classes; 0 is background
    H   height in pixels
    W   width in pixels

A bare `boxes` is xyxy in pixels, half-open; any other format is in the name.
"""

from __future__ import annotations

from ssd.augmentation import augment, plan_augmentation
from ssd.augmentation_config import AUGMENTATIONS, NO_AUGMENTATION, AugmentationConfig
from ssd.boxes import area_xyxy, clip_xyxy, cxcywh_to_xyxy, iou_xyxy, xyxy_to_cxcywh
from ssd.codec import NO_VARIANCES, decode_offsets, encode_xyxy
from ssd.containers import Detections, Target, TargetBatch
from ssd.presets import PRESETS, paper_formula, preset, shapes_at, with_inverses
from ssd.priors import PriorMap, PriorSpec, bounded
from ssd.resampling import Plan, apply_plans, map_target, resize_photo

__all__ = [
    "AUGMENTATIONS",
    "NO_AUGMENTATION",
    "NO_VARIANCES",
    "PRESETS",
    "AugmentationConfig",
    "Detections",
    "Plan",
    "PriorMap",
    "PriorSpec",
    "Target",
    "TargetBatch",
    "apply_plans",
    "area_xyxy",
    "augment",
    "bounded",
    "clip_xyxy",
    "cxcywh_to_xyxy",
    "decode_offsets",
    "encode_xyxy",
    "iou_xyxy",
    "map_target",
    "paper_formula",
    "plan_augmentation",
    "preset",
    "resize_photo",
    "shapes_at",
    "with_inverses",
    "xyxy_to_cxcywh",
]
