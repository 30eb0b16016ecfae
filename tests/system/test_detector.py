"""The detector on synthetic facades: torchvision's detections with its weights, and a network that overfits eight."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16

from pipeline.datasets.synthetic import Scene, draw_scene
from ssd import (
    LAYOUTS,
    NO_AUGMENTATION,
    SSD,
    BackboneConfig,
    Bundle,
    DecodeConfig,
    Detections,
    Detector,
    ModelConfig,
    MultiBoxLoss,
    Target,
    TargetBatch,
    augment,
    clamp_shapes,
    iou_xyxy,
    load_matching_weights,
    preset,
)

from ..ssd.samples import assert_same_detections

CLASSES = ("building", "window", "door")


def photo_of(drawing: Scene) -> Tensor:
    return torch.tensor(drawing.photo).permute(2, 0, 1).contiguous()


def target_of(drawing: Scene) -> Target:
    seen = [box for box in drawing.boxes if box.label in CLASSES]
    boxes = torch.tensor([[box.xmin, box.ymin, box.xmax, box.ymax] for box in seen], dtype=torch.float32)
    return Target(boxes.reshape(-1, 4), torch.tensor([1 + CLASSES.index(box.label) for box in seen], dtype=torch.int64))


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed, 300, 300) for seed in range(32)]


def decisive(theirs: torch.nn.Module, photos: list[Tensor]) -> None:
    """Scale the heads so that outputs spread as a trained network's do: a new network finds everything alike."""
    with torch.no_grad():
        outputs = theirs.head(list(theirs.backbone(theirs.transform(photos)[0].tensors).values()))
        for head, name, spread in (
            ("classification_head", "cls_logits", 2.0),
            ("regression_head", "bbox_regression", 1.0),
        ):
            for layer, part in zip(theirs.head.get_submodule(head).module_list, split(outputs[name]), strict=True):
                layer.weight.mul_(spread / part.std())
        for layer in theirs.head.classification_head.module_list:
            layer.bias.copy_(torch.tensor([3.0, 0.0, 0.0, 0.0]).repeat(len(layer.bias) // 4))


def split(outputs: Tensor) -> tuple[Tensor, ...]:
    return outputs.split(preset("paper_coco").counts_per_map, dim=1)


def test_detections_equal_torchvision_on_synthetic_facades(scenes: list[Scene]) -> None:
    torch.manual_seed(0)
    settings = DecodeConfig()
    theirs = ssd300_vgg16(
        weights=None,
        weights_backbone=None,
        num_classes=4,
        score_thresh=settings.min_score,
        nms_thresh=settings.nms_iou,
        topk_candidates=settings.top_k_per_class,
        detections_per_img=settings.max_detections,
    ).eval()
    decisive(theirs, [photo_of(scenes[0]).float() / 255])
    layout = LAYOUTS["torchvision"]
    ours = SSD(
        ModelConfig(clamp_shapes(preset("paper_coco")), CLASSES, BackboneConfig(), layout.mean, layout.std)
    ).eval()
    assert load_matching_weights(ours, layout.convert(theirs.state_dict()), 4) == []
    detector, counts = Detector(Bundle(ours, settings), bfloat16=False), set()
    for part in range(0, len(scenes), 8):
        photos = [photo_of(drawing) for drawing in scenes[part : part + 8]]
        with torch.no_grad():
            expected = theirs([photo.float() / 255 for photo in photos])
        for mine, yours in zip(detector(photos), expected, strict=True):
            counts.update(mine.labels.unique().tolist())
            assert_same_detections(mine, Detections(yours["boxes"], yours["labels"], yours["scores"]))
    assert counts == {1, 2, 3}


def test_training_on_few_photos_detects_their_boxes() -> None:
    """Eight synthetic streets, 300 boxes from two pixels up: nearly all are detected, and little else."""
    torch.manual_seed(0)
    scenes = [draw_scene(seed) for seed in range(8)]
    targets = [target_of(drawing) for drawing in scenes]
    photos = [photo_of(drawing) for drawing in scenes]
    inputs, shown = augment(photos, targets, NO_AUGMENTATION, (300, 300), np.random.default_rng(0))
    model = SSD(ModelConfig(preset("paper_coco"), CLASSES, BackboneConfig("tiny")))
    train(model, model.normalise(inputs), shown, steps=150)
    detector = Detector(Bundle(model, DecodeConfig(min_score=0.3)))
    detections = detector(photos)
    detected = sum(map(count_detected, detections, targets))
    total = sum(len(target.labels) for target in targets)
    assert total > 250
    assert detected >= 0.95 * total
    assert sum(map(len, detections)) < 1.1 * total


def train(model: SSD, images: Tensor, targets: list[Target], steps: int) -> None:
    loss, block = MultiBoxLoss(model.config.priors), TargetBatch.from_targets(targets, 1 + len(CLASSES))
    matches = loss.match(block)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.15)
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        loss(*model(images), block, matches).total.backward()
        optimiser.step()
        schedule.step()


def count_detected(detections: Detections, target: Target) -> int:
    """Count the boxes that have a detection of their class at an IoU of .5 or more."""
    overlap = iou_xyxy(target.boxes, detections.boxes) * (target.labels[:, None] == detections.labels)
    return int((overlap >= 0.5).any(dim=1).sum())
