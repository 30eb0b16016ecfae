"""How good a network is on photos that it does not learn from: the loss, and average precision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ssd.augmentation.transforms import TransformPlan, map_target
from ssd.bundle import Bundle
from ssd.containers import Detections, Target, TargetBatch
from ssd.decoding import DecodeConfig
from ssd.inference.detector import Detector
from ssd.losses.multibox import LossConfig, MultiBoxLoss
from ssd.metrics.voc import match_images, voc_ap
from ssd.model import SSD, ModelConfig
from ssd.resize import resize_photo
from ssd.training.dataset import InMemoryDataset

__all__ = ["Scores", "Validator"]

Scores = Mapping[str, float]
BATCH = 32


class Validator:
    """Photos kept back, brought to the input once, and what is true of them."""

    def __init__(self, examples: InMemoryDataset, config: ModelConfig, loss: LossConfig, decode: DecodeConfig) -> None:
        size = config.priors.input_size
        self.inputs = torch.stack([resize_photo(photo, *size) for photo in examples.photos])
        self.targets = [_resize_to_input(*pair, size) for pair in zip(examples.photos, examples.targets, strict=True)]
        self.sets = list(examples.sets or [""] * len(examples))
        self.config, self.loss, self.decode = config, loss, decode

    @torch.inference_mode()
    def __call__(self, model: SSD, device: str | torch.device = "cpu", bfloat16: bool = False) -> Scores:
        """Return the scores of a network by name.

        `loss`, `loss_location` and `loss_confidence` as in training; VOC's 11-point average precision of each class,
        `ap50.CLASS` and `ap75.CLASS`, their means `map50` and `map75`; the same of each dataset, `SET.map50` and so
        on, where there are several.
        """
        detector = Detector(Bundle(model, self.decode), device, bfloat16)
        loss = MultiBoxLoss(self.config.priors, self.loss).to(device)
        found: list[Detections] = []
        sums = torch.zeros(2)
        for part in self._batches():
            offsets, logits = detector.outputs(self.inputs[part])
            targets = TargetBatch.from_targets(self.targets[part], 1 + len(self.config.classes)).to(device)
            terms = loss(offsets, logits, targets)
            sums += (len(terms.location) * torch.stack([terms.location.sum(), terms.confidence.sum()])).cpu()
            found += detector.decoder(offsets, logits)
        location, confidence = (sums / len(self.targets)).tolist()
        losses = {"loss": location + confidence, "loss_location": location, "loss_confidence": confidence}
        return {**losses, **self._all_scores(found)}

    def _batches(self) -> Iterator[slice]:
        return (slice(start, start + BATCH) for start in range(0, len(self.targets), BATCH))

    def _all_scores(self, detections: Sequence[Detections]) -> dict[str, float]:
        scores = self._scores("", range(len(detections)), detections)
        names = sorted(set(self.sets))
        for name in names if len(names) > 1 else ():
            rows = [row for row, own in enumerate(self.sets) if own == name]
            scores |= self._scores(f"{name}.", rows, detections)
        return scores

    def _scores(self, prefix: str, rows: Sequence[int], detections: Sequence[Detections]) -> dict[str, float]:
        """Return the average precisions over some photos; classes that have nothing to find there are left out."""
        truths = [self.targets[row] for row in rows]
        matches = match_images([detections[row] for row in rows], truths, 1 + len(self.config.classes))
        scores: dict[str, float] = {}
        for percent in (50, 75):
            aps = voc_ap(matches, percent / 100, 11)
            own = {f"ap{percent}.{name}": aps.by_label[n] for n, name in enumerate(self.config.classes, start=1)}
            own[f"map{percent}"] = aps.mean
            scores |= {f"{prefix}{name}": float(value) for name, value in own.items() if not math.isnan(value)}
        return scores


def _resize_to_input(photo: Tensor, target: Target, size: tuple[int, int]) -> Target:
    """Return a target in pixels of the input."""
    (height, width), (rows, columns) = size, photo.shape[-2:]
    return map_target(target, TransformPlan((0, 0, columns, rows), (0, 0, width, height), size))
