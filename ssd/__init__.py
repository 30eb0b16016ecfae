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
from ssd.augmentation.transforms import TransformPlan, apply_plans, map_target
from ssd.backbones import BackboneConfig, make_backbone
from ssd.box_coder import NO_VARIANCES, decode_offsets, encode_xyxy
from ssd.boxes import area_xyxy, clip_xyxy, cxcywh_to_xyxy, iou_xyxy, xyxy_to_cxcywh
from ssd.bundle import Bundle, bundle_digest, load_bundle, save_bundle
from ssd.containers import Detections, Target, TargetBatch
from ssd.decoding import DECODE_PRESETS, DecodeConfig, Decoder
from ssd.inference.batch_size import best_batch
from ssd.inference.detector import Detector, supports_bfloat16
from ssd.inference.stream import BatchedModel, InferenceStream, LoadedPhoto, StreamResult
from ssd.inference.tiling import TiledDetector, TilingConfig, make_tiles
from ssd.losses.matching import BACKGROUND, IGNORED, match
from ssd.losses.multibox import Loss, LossConfig, MultiBoxLoss
from ssd.malloc import tune_malloc
from ssd.metrics.coco import CocoAps, coco_ap
from ssd.metrics.flat_arrays import DetectionArrays, GroundTruthArrays
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
    match_arrays,
    match_images,
    match_outcomes,
    pr_curves,
    voc_ap,
)
from ssd.model import IMAGENET_MEAN, IMAGENET_STD, SSD, ModelConfig, backbone_for
from ssd.priors.presets import PRESETS, paper_formula, preset, shapes_at, with_inverses
from ssd.priors.spec import PriorMap, PriorSpec, clamp_shapes
from ssd.resize import resize_photo
from ssd.training.config import TRAIN_PRESETS, TrainConfig
from ssd.training.dataset import InMemoryDataset
from ssd.training.loop import TrainingCallbacks, TrainingResult, TrainingRun, read_history
from ssd.training.task import TrainingTask, load_task, save_task
from ssd.training.trainer import DivergedError, Progress, Trainer
from ssd.training.validation import Validator
from ssd.weight_conversion import LAYOUTS, count_classes, detect_layout, load_matching_weights, load_trunk

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
    "TRAIN_PRESETS",
    "TRUE_POSITIVE",
    "AugmentationConfig",
    "BackboneConfig",
    "BatchedModel",
    "Bundle",
    "ClassAps",
    "CocoAps",
    "Curve",
    "DecodeConfig",
    "Decoder",
    "DetectionArrays",
    "Detections",
    "Detector",
    "DivergedError",
    "GroundTruthArrays",
    "InMemoryDataset",
    "InferenceStream",
    "LoadedPhoto",
    "Loss",
    "LossConfig",
    "Matches",
    "ModelConfig",
    "MultiBoxLoss",
    "Points",
    "PriorMap",
    "PriorSpec",
    "Progress",
    "StreamResult",
    "Target",
    "TargetBatch",
    "TiledDetector",
    "TilingConfig",
    "TrainConfig",
    "Trainer",
    "TrainingCallbacks",
    "TrainingResult",
    "TrainingRun",
    "TrainingTask",
    "TransformPlan",
    "Validator",
    "apply_plans",
    "area_xyxy",
    "augment",
    "average_precision",
    "backbone_for",
    "best_batch",
    "bundle_digest",
    "clamp_shapes",
    "clip_xyxy",
    "coco_ap",
    "count_classes",
    "cxcywh_to_xyxy",
    "decode_offsets",
    "detect_layout",
    "encode_xyxy",
    "iou_xyxy",
    "load_bundle",
    "load_matching_weights",
    "load_task",
    "load_trunk",
    "make_backbone",
    "make_tiles",
    "map_target",
    "match",
    "match_arrays",
    "match_images",
    "match_outcomes",
    "paper_formula",
    "plan_augmentation",
    "pr_curves",
    "preset",
    "read_history",
    "resize_photo",
    "save_bundle",
    "save_task",
    "shapes_at",
    "supports_bfloat16",
    "tune_malloc",
    "voc_ap",
    "with_inverses",
    "xyxy_to_cxcywh",
]
