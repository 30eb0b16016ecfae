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

from ssd.augmentation.config import AUGMENTATIONS, NO_AUGMENTATION, AugmentationConfig
from ssd.augmentation.sampling import augment, plan_augmentation
from ssd.augmentation.transforms import Plan, apply_plans, map_target
from ssd.backbones import BackboneConfig, make_backbone
from ssd.box_coder import NO_VARIANCES, decode_offsets, encode_xyxy
from ssd.boxes import area_xyxy, clip_xyxy, cxcywh_to_xyxy, iou_xyxy, xyxy_to_cxcywh
from ssd.bundle import Bundle, bundle_digest, load_bundle, save_bundle
from ssd.containers import Detections, Target, TargetBatch
from ssd.decoding import DECODE_PRESETS, DecodeConfig, Decoder
from ssd.inference.batch_size import best_batch
from ssd.inference.detector import Detector, runs_bfloat16
from ssd.inference.stream import Found, Network, Read, Stream
from ssd.inference.tiling import Tiled, TilingConfig, tiles_of
from ssd.losses.matching import BACKGROUND, IGNORED, match
from ssd.losses.multibox import Loss, LossConfig, MultiBoxLoss
from ssd.malloc import keep_freed_memory
from ssd.metrics.coco import CocoAps, coco_ap
from ssd.metrics.flat_arrays import DetectionRows, TruthRows
from ssd.metrics.voc import (
    COCO_IOUS,
    FALSE_POSITIVE,
    NOT_COUNTED,
    TRUE_POSITIVE,
    ClassAps,
    Curve,
    Matches,
    Points,
    average_precision,
    curves,
    match_images,
    match_rows,
    outcomes,
    voc_ap,
)
from ssd.model import IMAGENET_MEAN, IMAGENET_STD, SSD, ModelConfig, backbone_for
from ssd.priors.presets import PRESETS, paper_formula, preset, shapes_at, with_inverses
from ssd.priors.spec import PriorMap, PriorSpec, bounded
from ssd.resize import resize_photo
from ssd.training import (
    TRAININGS,
    Course,
    DivergedError,
    Examples,
    Finished,
    Judge,
    Progress,
    Task,
    TrainConfig,
    Trainer,
    Watch,
    load_task,
    read_history,
    save_task,
)
from ssd.weight_conversion import LAYOUTS, adopt, classes_of, layout_of, load_trunk

__all__ = [
    "AUGMENTATIONS",
    "BACKGROUND",
    "COCO_IOUS",
    "DECODE_PRESETS",
    "FALSE_POSITIVE",
    "IGNORED",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "LAYOUTS",
    "NOT_COUNTED",
    "NO_AUGMENTATION",
    "NO_VARIANCES",
    "PRESETS",
    "SSD",
    "TRAININGS",
    "TRUE_POSITIVE",
    "AugmentationConfig",
    "BackboneConfig",
    "Bundle",
    "ClassAps",
    "CocoAps",
    "Course",
    "Curve",
    "DecodeConfig",
    "Decoder",
    "DetectionRows",
    "Detections",
    "Detector",
    "DivergedError",
    "Examples",
    "Finished",
    "Found",
    "Judge",
    "Loss",
    "LossConfig",
    "Matches",
    "ModelConfig",
    "MultiBoxLoss",
    "Network",
    "Plan",
    "Points",
    "PriorMap",
    "PriorSpec",
    "Progress",
    "Read",
    "Stream",
    "Target",
    "TargetBatch",
    "Task",
    "Tiled",
    "TilingConfig",
    "TrainConfig",
    "Trainer",
    "TruthRows",
    "Watch",
    "adopt",
    "apply_plans",
    "area_xyxy",
    "augment",
    "average_precision",
    "backbone_for",
    "best_batch",
    "bounded",
    "bundle_digest",
    "classes_of",
    "clip_xyxy",
    "coco_ap",
    "curves",
    "cxcywh_to_xyxy",
    "decode_offsets",
    "encode_xyxy",
    "iou_xyxy",
    "keep_freed_memory",
    "layout_of",
    "load_bundle",
    "load_task",
    "load_trunk",
    "make_backbone",
    "map_target",
    "match",
    "match_images",
    "match_rows",
    "outcomes",
    "paper_formula",
    "plan_augmentation",
    "preset",
    "read_history",
    "resize_photo",
    "runs_bfloat16",
    "save_bundle",
    "save_task",
    "shapes_at",
    "tiles_of",
    "voc_ap",
    "with_inverses",
    "xyxy_to_cxcywh",
]
