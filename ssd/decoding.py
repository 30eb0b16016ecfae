"""From offsets and logits to detections: scores, the best of each class, no two of a class on one object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from ssd.box_coder import decode_offsets
from ssd.boxes import area_xyxy, clip_xyxy
from ssd.containers import Detections
from ssd.nms import batched_nms_mask, nms
from ssd.priors.spec import PriorSpec

__all__ = ["DECODE_PRESETS", "DecodeConfig", "Decoder"]


@dataclass(frozen=True)
class DecodeConfig:
    """Which detections are kept.

    Attributes:
        min_score: Minimum probability of a class.
        top_k_per_class: Number of best candidates of each class that enter non-maximum suppression.
        nms_iou: Of two boxes of a class that overlap by more than this IoU, the better one is kept.
        max_detections: Maximum number of detections of an image, best first.
        class_agnostic_iou: The same between classes, if an object may have one class only; None: classes may overlap.
    """

    min_score: float = 0.01
    top_k_per_class: int = 400
    nms_iou: float = 0.45
    max_detections: int = 200
    class_agnostic_iou: float | None = None

    def __post_init__(self) -> None:
        shares = (self.min_score, self.nms_iou, 1.0 if self.class_agnostic_iou is None else self.class_agnostic_iou)
        if not all(0 <= share <= 1 for share in shares) or self.top_k_per_class < 1 or self.max_detections < 1:
            raise ValueError(
                f"Decoding has score, overlap and across from 0 to 1, per_class and keep from 1; got {self}."
            )


# So many candidates for each detection to keep usually suffice: half of them and more are suppressed.
CANDIDATES_PER_DETECTION: Final = 3

DECODE_PRESETS: Final[Mapping[str, DecodeConfig]] = {
    "paper": DecodeConfig(),
    "epfl": DecodeConfig(nms_iou=0.6),
}


@dataclass(frozen=True)
class _Candidates:
    """What may be a detection: image, class (from 0, background left out), prior and score of each, in this order."""

    image: Tensor
    label: Tensor
    prior: Tensor
    score: Tensor

    def __getitem__(self, rows: Tensor | slice) -> _Candidates:
        return _Candidates(self.image[rows], self.label[rows], self.prior[rows], self.score[rows])


@dataclass(frozen=True)
class _Block:
    """What was found in B images, N places each: boxes (B, N, 4), labels, scores, and which places count (B, N)."""

    boxes: Tensor
    labels: Tensor
    scores: Tensor
    keep_mask: Tensor

    def sorted(self) -> _Block:
        """Return the block with what counts at the front of each image, best first; not more places than needed."""
        kept = self.keep_mask & (area_xyxy(self.boxes) > 0)
        order = self.scores.masked_fill(~kept, -1.0).argsort(dim=1, descending=True, stable=True)
        order = order[:, : int(kept.sum(dim=1).max()) if len(kept) else 0]
        boxes = self.boxes.gather(1, order[..., None].expand(-1, -1, 4))
        return _Block(boxes, *(part.gather(1, order) for part in (self.labels, self.scores, kept)))

    def detections(self, max_detections: int) -> list[Detections]:
        """Return the detections of each image, on the CPU."""
        kept = self.keep_mask[:, :max_detections].cpu()
        boxes, labels, scores = (
            part[:, :max_detections].cpu()[kept] for part in (self.boxes, self.labels, self.scores)
        )
        return Detections.split(boxes, labels, scores, kept.sum(dim=1).tolist())


class Decoder(nn.Module):
    """Turns what the network says about the priors of one spec into detections."""

    def __init__(self, spec: PriorSpec, config: DecodeConfig | None = None) -> None:
        super().__init__()
        self.spec, self.config = spec, config or DecodeConfig()
        self.priors_cxcywh: Tensor
        self.register_buffer("priors_cxcywh", spec.priors_cxcywh(), persistent=False)

    @torch.no_grad()
    def forward(self, offsets: Tensor, logits: Tensor) -> list[Detections]:
        """Return the detections of each image, on the CPU and in pixels of the input.

        Offsets are (B, P, 4), logits (B, P, C).
        """
        # With the classes first the softmax runs along memory: ten times as fast on a CPU.
        scores = logits.transpose(1, 2).float().contiguous().softmax(dim=1)[:, 1:]
        if not prefer_loops(scores.device):
            return self._decode_batch(offsets, scores)
        above = (scores > self.config.min_score) & (scores >= _kth_best(scores, self.config.top_k_per_class))
        image, label, prior = above.nonzero(as_tuple=True)
        candidates = _Candidates(image, label, prior, scores[image, label, prior])
        return self._top_k_detections(offsets, candidates, scores.shape[1])

    def _decode_batch(self, offsets: Tensor, scores: Tensor) -> list[Detections]:
        """Return the detections of each image, from scores (B, C - 1, P), in a few steps of the whole batch.

        A GPU gets all work at once and is read once: image by image it would wait for Python.
        """
        scores, prior = scores.sort(dim=2, descending=True, stable=True)
        candidate = scores > self.config.min_score
        most = min(int(candidate.sum(dim=2).max()), self.config.top_k_per_class) if len(scores) else 0
        scores, prior, candidate = scores[..., :most], prior[..., :most], candidate[..., :most]
        image = torch.arange(len(scores), device=scores.device)[:, None, None]
        boxes = decode_offsets(offsets[image, prior].float(), self.priors_cxcywh[prior], self.spec.variances)
        boxes = clip_xyxy(boxes, *self.spec.input_size)
        kept = batched_nms_mask(boxes.flatten(0, 1), candidate.flatten(0, 1), self.config.nms_iou).view_as(candidate)
        labels = torch.arange(1, scores.shape[1] + 1, device=scores.device)[:, None].expand_as(scores)
        found = _Block(boxes.flatten(1, 2), labels.flatten(1), scores.flatten(1), kept.flatten(1)).sorted()
        if self.config.class_agnostic_iou is not None:
            found = replace(
                found, keep_mask=batched_nms_mask(found.boxes, found.keep_mask, self.config.class_agnostic_iou)
            ).sorted()
        return found.detections(self.config.max_detections)

    def _top_k_detections(self, offsets: Tensor, candidates: _Candidates, classes: int) -> list[Detections]:
        """Return the detections of each image, from its best candidates if they suffice.

        What comes later takes nothing away from what came before: if the first few leave as many detections as are to
        be kept, these are what all would leave, for a fraction of the comparisons.
        """
        sizes = candidates.image.bincount(minlength=len(offsets)).tolist()
        enough = CANDIDATES_PER_DETECTION * self.config.max_detections
        least = [
            _kth_best(some, enough) if size > enough else some.new_zeros(1)
            for size, some in zip(sizes, torch.split(candidates.score, sizes), strict=True)
        ]
        few = candidates.score >= torch.cat(least)[candidates.image] if least else slice(None)
        found = self._detections(offsets, candidates[few], classes)
        for row, size in enumerate(sizes):
            if size > enough and len(found[row]) < self.config.max_detections:
                found[row] = self._detections(offsets, candidates[candidates.image == row], classes)[row]
        return found

    def _detections(self, offsets: Tensor, candidates: _Candidates, classes: int) -> list[Detections]:
        """Return the detections of each image from candidates in the order of image and class; `classes` is C - 1."""
        image, label, prior, scores = candidates.image, candidates.label, candidates.prior, candidates.score
        boxes = decode_offsets(offsets[image, prior].float(), self.priors_cxcywh[prior], self.spec.variances)
        boxes, group = clip_xyxy(boxes, *self.spec.input_size), image * classes + label
        rows = _suppress_in_loops(boxes, scores, group.bincount().tolist(), self.config)
        rows = rows[area_xyxy(boxes[rows]) > 0]
        image, label, boxes, scores = (part[rows] for part in (image, label, boxes, scores))
        by_image, sizes = image.argsort(stable=True), image.bincount(minlength=len(offsets)).tolist()
        parts = (torch.split(part[by_image], sizes) for part in (boxes, label + 1, scores))
        return [self._best(*of_image) for of_image in zip(*parts, strict=True)]

    def _best(self, boxes: Tensor, labels: Tensor, scores: Tensor) -> Detections:
        """Return the detections of one image, best first, from what suppression left of it."""
        if self.config.class_agnostic_iou is None:
            order = scores.argsort(descending=True, stable=True)
        else:
            order = nms(boxes, scores, self.config.class_agnostic_iou)
        order = order[: self.config.max_detections]
        return Detections(boxes[order], labels[order], scores[order])


def prefer_loops(device: torch.device) -> bool:
    """Return whether a class of an image at a time is faster than the whole batch at once, as it is on a CPU."""
    return device.type == "cpu"


def _kth_best(scores: Tensor, count: int) -> Tensor:
    """Return the score (..., 1) that so many of a row reach; numpy finds it five times as fast as torch."""
    place = scores.shape[-1] - count
    if place <= 0:
        return scores.new_zeros(())
    return torch.from_numpy(np.partition(scores.numpy(), place, axis=-1)[..., place : place + 1])


def _suppress_in_loops(boxes: Tensor, scores: Tensor, sizes: list[int], config: DecodeConfig) -> Tensor:
    """Return the rows that stay of candidates that lie one class of one image after the other, so many of each."""
    rows, begin = [], 0
    for size, some, their in zip(sizes, torch.split(boxes, sizes), torch.split(scores, sizes), strict=True):
        if size > config.top_k_per_class:  # of equal scores all are candidates
            best = their.topk(config.top_k_per_class).indices
            rows.append(best[nms(some[best], their[best], config.nms_iou)] + begin)
        elif size:
            rows.append(nms(some, their, config.nms_iou) + begin)
        begin += size
    return torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64)
