"""From offsets and logits to detections: scores, the best of each class, no two of a class on one object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, nms

from ssd.boxes import area_xyxy, clip_xyxy
from ssd.codec import decode_offsets
from ssd.containers import Detections
from ssd.priors import PriorSpec

__all__ = ["DECODE_PRESETS", "DecodeConfig", "Decoder"]


@dataclass(frozen=True)
class DecodeConfig:
    """Which boxes are kept.

    Attributes:
        score: The least probability of a class.
        per_class: The candidates of each class, best first, that go into suppression.
        overlap: Of two boxes of a class that overlap by more, the better one stays.
        keep: The detections of an image, best first.
        across: The same between classes, where an object may have one class only; none: classes may overlap.
    """

    score: float = 0.01
    per_class: int = 400
    overlap: float = 0.45
    keep: int = 200
    across: float | None = None

    def __post_init__(self) -> None:
        shares = (self.score, self.overlap, 1.0 if self.across is None else self.across)
        if not all(0 <= share <= 1 for share in shares) or self.per_class < 1 or self.keep < 1:
            raise ValueError(
                f"Decoding has score, overlap and across from 0 to 1, per_class and keep from 1; got {self}."
            )


DECODE_PRESETS: Final[Mapping[str, DecodeConfig]] = {
    "paper": DecodeConfig(),
    "epfl": DecodeConfig(overlap=0.6),
}


class Decoder(nn.Module):
    """Turns what the network says about the priors of one spec into detections."""

    def __init__(self, spec: PriorSpec, config: DecodeConfig | None = None) -> None:
        super().__init__()
        self.spec, self.config = spec, config or DecodeConfig()
        self.priors_cxcywh: Tensor
        self.register_buffer("priors_cxcywh", spec.priors_cxcywh(), persistent=False)

    def forward(self, offsets: Tensor, logits: Tensor) -> list[Detections]:
        """Return the detections of each image, on the CPU and in pixels of the input.

        Offsets are (B, P, 4), logits (B, P, C).
        """
        scores, priors = _best_of_each_class(logits, self.config.per_class)
        boxes = self._boxes_at(offsets, priors)
        kept = (scores > self.config.score) & (area_xyxy(boxes) > 0)
        suppress = _suppress_in_loops if boxes.device.type == "cpu" else _suppress_at_once
        kept = suppress(boxes, scores, kept, self.config.overlap)
        images = zip(boxes.cpu(), scores.cpu(), kept.cpu(), strict=True)
        return [_best_of_image(*image, self.config) for image in images]

    def _boxes_at(self, offsets: Tensor, priors: Tensor) -> Tensor:
        """Return the boxes (B, C - 1, K, 4), clipped to the input, of those priors (B, C - 1, K)."""
        image = torch.arange(len(offsets), device=offsets.device)[:, None, None]
        boxes = decode_offsets(offsets[image, priors].float(), self.priors_cxcywh[priors], self.spec.variances)
        return clip_xyxy(boxes, *self.spec.input_size)


def _best_of_each_class(logits: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the largest probabilities of each class but background, and their priors: both (B, C - 1, at most `most`).

    The classes are brought before the priors first: the softmax then runs along memory, ten times as fast on a CPU.
    """
    probabilities = logits.transpose(1, 2).float().contiguous().softmax(dim=1)[:, 1:]
    scores, priors = probabilities.topk(min(most, logits.shape[1]), dim=2)
    return scores, priors


def _suppress_in_loops(boxes: Tensor, scores: Tensor, kept: Tensor, overlap: float) -> Tensor:
    """Return which candidates (B, C - 1, K) stay: a class of an image at a time, each pair of boxes compared once."""
    left = torch.zeros_like(kept)
    for index in torch.cartesian_prod(*map(torch.arange, kept.shape[:2])).tolist():
        place = tuple(index)
        candidates = kept[place].nonzero().squeeze(1)
        left[place][candidates[nms(boxes[place][candidates], scores[place][candidates], overlap)]] = True
    return left


def _suppress_at_once(boxes: Tensor, scores: Tensor, kept: Tensor, overlap: float) -> Tensor:
    """Return which candidates (B, C - 1, K) stay: one call for the batch, which a GPU wants and a CPU does not."""
    image, label, place = kept.nonzero(as_tuple=True)
    group = image * kept.shape[1] + label
    chosen = batched_nms(boxes[kept], scores[kept], group, overlap)
    left = torch.zeros_like(kept)
    left[image[chosen], label[chosen], place[chosen]] = True
    return left


def _best_of_image(boxes: Tensor, scores: Tensor, kept: Tensor, config: DecodeConfig) -> Detections:
    """Return the detections of one image, best first, from its candidates (C - 1, K) that stay."""
    label, place = kept.nonzero(as_tuple=True)
    boxes, scores = boxes[label, place], scores[label, place]
    if config.across is None:
        order = scores.argsort(descending=True, stable=True)[: config.keep]
    else:
        order = nms(boxes, scores, config.across)[: config.keep]
    return Detections(boxes[order], label[order] + 1, scores[order])
