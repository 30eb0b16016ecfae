"""What training lowers: smooth L1 on offsets, cross entropy on classes, the hardest negatives only (equation 1)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from ssd.box_coder import encode_xyxy
from ssd.containers import TargetBatch
from ssd.losses.matching import BACKGROUND, match
from ssd.priors.spec import PriorSpec

__all__ = ["Loss", "LossConfig", "MultiBoxLoss"]


@dataclass(frozen=True)
class LossConfig:
    """Settings of the loss; the defaults are those of the paper, the report and torchvision.

    Attributes:
        alpha: Weight of the location term.
        neg_pos_ratio: Hard negatives per positive of an image.
        min_negatives: Minimum number of hard negatives of an image, so that images with few or no objects teach too.
        threshold: IoU above which a prior is assigned to a ground truth.
        class_balance: How far rare classes are weighted up: 0 weighs all positives alike, 1 all classes.
    """

    alpha: float = 1.0
    neg_pos_ratio: float = 3.0
    min_negatives: int = 0
    threshold: float = 0.5
    class_balance: float = 0.0

    def __post_init__(self) -> None:
        finite = 0 <= self.alpha < inf and 0 < self.neg_pos_ratio < inf and 0 <= self.min_negatives < inf
        if not finite or not 0 < self.threshold < 1 or not 0 <= self.class_balance <= 1:
            raise ValueError(
                "A loss has alpha from 0, negatives above 0 and min_negatives from 0, all finite, a threshold between "
                f"0 and 1, and a balance from 0 to 1; got {self}."
            )


@dataclass(frozen=True)
class Loss:
    """Each image's share (B,) of the loss of a batch, and what it was divided by.

    Attributes:
        location: (B,), alpha included.
        confidence: (B,).
        positives: (B,), the priors that answer for a ground truth.
        divisor: The number of positives of the batch; see `MultiBoxLoss`.
    """

    location: Tensor
    confidence: Tensor
    positives: Tensor
    divisor: Tensor

    @property
    def total(self) -> Tensor:
        """The number to lower."""
        return self.location.sum() + self.confidence.sum()


class MultiBoxLoss(nn.Module):
    """The loss of one prior spec.

    Both terms are divided by the number of positives of the batch. Where `min_negatives` takes more negatives than
    `negatives` for each positive, it is divided by the positives that would have asked for as many, so that a batch
    of empty images weighs no more than any other. No positives and no negatives give 0.
    """

    def __init__(self, spec: PriorSpec, config: LossConfig | None = None) -> None:
        super().__init__()
        self.config = config or LossConfig()
        self.variances = spec.variances
        self.priors_cxcywh: Tensor
        self.priors_xyxy: Tensor
        self.register_buffer("priors_cxcywh", spec.priors_cxcywh(), persistent=False)
        self.register_buffer("priors_xyxy", spec.priors_xyxy(), persistent=False)

    def match(self, targets: TargetBatch) -> Tensor:
        """Match priors with ground truths, (B, P); see `matching.match`."""
        return match(targets, self.priors_xyxy, self.config.threshold)

    def forward(self, offsets: Tensor, logits: Tensor, targets: TargetBatch, matches: Tensor | None = None) -> Loss:
        """Return the loss of offsets (B, P, 4) and logits (B, P, C), in float32 or what is wider."""
        offsets, logits = _at_least_float32(offsets), _at_least_float32(logits)
        matches = self.match(targets) if matches is None else matches
        positive = matches >= 0
        labels = targets.labels.gather(1, matches.clamp(min=0))
        weights = self._weights(labels, positive, logits)
        location = (self._location_loss(offsets, targets, matches) * weights).masked_fill(~positive, 0.0).sum(dim=1)
        wrong, missed = _cross_entropies(logits, targets, labels)
        positives = positive.sum(dim=1)
        hardest, taken = self._hard_negatives(wrong.masked_fill(matches != BACKGROUND, 0.0), positives)
        confidence = (missed * weights).masked_fill(~positive, 0.0).sum(dim=1) + hardest
        negatives = torch.minimum(taken, (matches == BACKGROUND).sum(dim=1)).sum()
        divisor = torch.maximum(positives.sum().to(confidence), negatives / self.config.neg_pos_ratio).clamp(min=1.0)
        return Loss(self.config.alpha * location / divisor, confidence / divisor, positives, divisor)

    def _weights(self, labels: Tensor, positive: Tensor, logits: Tensor) -> Tensor:
        """Return the weight (B, P) of each prior should it be a positive; those of the positives are 1 in the mean."""
        if not self.config.class_balance:
            return logits.new_ones(())
        classes = torch.arange(logits.shape[-1], device=labels.device)
        counts = ((labels[..., None] == classes) & positive[..., None]).sum(dim=(0, 1)).to(logits)
        shares = counts.clamp(min=1).pow(-self.config.class_balance)
        return (shares * counts.sum() / (shares * counts).sum().clamp(min=1e-6))[labels]

    def _location_loss(self, offsets: Tensor, targets: TargetBatch, matches: Tensor) -> Tensor:
        """Return the smooth L1 distance (B, P) of every prior's offsets from its ground truth's."""
        index = matches.clamp(min=0)[..., None].expand(-1, -1, 4)
        wanted = encode_xyxy(targets.boxes.gather(1, index), self.priors_cxcywh, self.variances)
        return smooth_l1_loss(offsets, wanted.to(offsets), reduction="none").sum(dim=-1)

    def _hard_negatives(self, background_losses: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum (B,) of an image's largest negatives (B, P), and how many it may take (B,)."""
        taken = (self.config.neg_pos_ratio * positives).clamp(min=self.config.min_negatives)
        ranked = background_losses.sort(dim=1, descending=True).values
        chosen = torch.arange(background_losses.shape[1], device=background_losses.device) < taken[:, None]
        return ranked.masked_fill(~chosen, 0.0).sum(dim=1), taken


def _cross_entropies(logits: Tensor, targets: TargetBatch, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cross entropies (B, P) of each prior as background, and as the class (B, P) of its ground truth.

    A class that an image's annotation would not show may be there all the same: in such an image background is
    background or any such class, their probabilities summed.
    """
    everything = logits.logsumexp(dim=-1)
    unseen = ~targets.labelled
    unseen[:, 0] = True
    background = logits.masked_fill(~unseen[:, None, :], -torch.inf).logsumexp(dim=-1)
    return everything - background, everything - logits.gather(2, labels[..., None]).squeeze(2)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
