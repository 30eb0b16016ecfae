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
        if not len(logits):
            return []
        scores, priors = self._best_of_each_class(logits)
        boxes = self._boxes_at(offsets, priors)
        kept = (scores > self.config.score) & (area_xyxy(boxes) > 0)
        if not self.in_loops(boxes.device):
            left = _suppressed_at_once(boxes, scores, kept, self.config.overlap).cpu()
            images = zip(boxes.cpu(), scores.cpu(), left, strict=True)
            return [self._detections(*image[:2], image[2].flatten().nonzero().squeeze(1)) for image in images]
        few, most = (_counts(scores, self.config.score, most) for most in (2 * self.config.keep, scores.numel()))
        return [self._of_image(*image) for image in zip(boxes, scores, kept, few, most, strict=True)]

    @staticmethod
    def in_loops(device: torch.device) -> bool:
        """Return whether a class of an image at a time is faster than the whole batch at once, as it is on a CPU."""
        return device.type == "cpu"

    def _best_of_each_class(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest probabilities of each class but background and their priors, both (B, C - 1, K).

        The classes are brought before the priors first: the softmax then runs along memory, ten times as fast on a
        CPU. K is no more than is needed: the largest of few is found faster than the largest of many.
        """
        scores = logits.transpose(1, 2).float().contiguous().softmax(dim=1)[:, 1:]
        most = min(self.config.per_class, logits.shape[1])
        if self.in_loops(scores.device):
            most = min(most, int((scores > self.config.score).sum(dim=2).max()))
        best = scores.topk(most, dim=2)
        return best.values, best.indices

    def _boxes_at(self, offsets: Tensor, priors: Tensor) -> Tensor:
        """Return the boxes (B, C - 1, K, 4), clipped to the input, of those priors (B, C - 1, K)."""
        image = torch.arange(len(offsets), device=offsets.device)[:, None, None]
        boxes = decode_offsets(offsets[image, priors].float(), self.priors_cxcywh[priors], self.spec.variances)
        return clip_xyxy(boxes, *self.spec.input_size)

    def _of_image(self, boxes: Tensor, scores: Tensor, kept: Tensor, few: list[int], most: list[int]) -> Detections:
        """Return the detections of one image from candidates (C - 1, K), best first in each class.

        What comes later takes nothing away from what came before: if the first few of each class give as many
        detections as are to be kept, they are what all would give, for a fraction of the comparisons.
        """
        found = self._detections(boxes, scores, _suppressed(boxes, scores, kept, few, self.config.overlap))
        if len(found) < self.config.keep and few != most:
            found = self._detections(boxes, scores, _suppressed(boxes, scores, kept, most, self.config.overlap))
        return found

    def _detections(self, boxes: Tensor, scores: Tensor, rows: Tensor) -> Detections:
        """Return the best of those rows, of candidates (C - 1, K) one class after the other."""
        label = rows // max(scores.shape[1], 1) + 1
        boxes, scores = boxes.reshape(-1, 4)[rows], scores.reshape(-1)[rows]
        if self.config.across is None:
            order = scores.argsort(descending=True, stable=True)
        else:
            order = nms(boxes, scores, self.config.across)
        order = order[: self.config.keep]
        return Detections(boxes[order], label[order], scores[order])


def _counts(scores: Tensor, least: float, most: int) -> list[list[int]]:
    """Return how many of each class of each image (B, C - 1, K) are above `least` and among the image's best `most`."""
    above = scores > least
    if most < scores.shape[1] * scores.shape[2]:
        above &= scores >= scores.flatten(1).topk(most, dim=1).values[:, -1:, None]
    counts: list[list[int]] = above.sum(dim=2).tolist()
    return counts


def _suppressed(boxes: Tensor, scores: Tensor, kept: Tensor, counts: list[int], overlap: float) -> Tensor:
    """Return the rows of candidates (C - 1, K) that stay of the first so many of each class."""
    classes = [
        label * scores.shape[1] + nms(boxes[label, :count], scores[label, :count], overlap)
        for label, count in enumerate(counts)
        if count
    ]
    rows = torch.cat(classes) if classes else torch.zeros(0, dtype=torch.int64)
    return rows[kept.flatten()[rows]]


def _suppressed_at_once(boxes: Tensor, scores: Tensor, kept: Tensor, overlap: float) -> Tensor:
    """Return which candidates (B, C - 1, K) stay: one call for the batch, which a GPU wants and a CPU does not."""
    image, label, place = kept.nonzero(as_tuple=True)
    group = image * kept.shape[1] + label
    chosen = batched_nms(boxes[kept], scores[kept], group, overlap)
    left = torch.zeros_like(kept)
    left[image[chosen], label[chosen], place[chosen]] = True
    return left
