"""Which prior answers for which ground truth (section 2.2 of the SSD paper), for a whole batch at once."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ssd.boxes import area_xyxy, iou_xyxy
from ssd.containers import TargetBatch

__all__ = ["BACKGROUND", "IGNORED", "match"]

BACKGROUND: Final = -1
IGNORED: Final = -2


def match(targets: TargetBatch, priors_xyxy: Tensor, threshold: float = 0.5) -> Tensor:
    """Return for every image and prior (B, P) the index of the ground truth it answers for, BACKGROUND or IGNORED.

    Every ground truth is served: it gets its best prior, or the best that nobody with a larger overlap wants, as long
    as one overlaps it at all. Then every other prior above the threshold takes its best ground truth. What is left and
    lies by more than half inside a box marked `ignore` is IGNORED: no positive, and no negative either.
    """
    if targets.boxes.device.type == "cpu" and len(targets.labels):
        # One image's overlaps fit into the processor's cache, and nothing is spent on what fills up others.
        return torch.cat([_match(image, priors_xyxy, threshold) for image in targets.per_image()])
    return _match(targets, priors_xyxy, threshold)


def _match(targets: TargetBatch, priors_xyxy: Tensor, threshold: float) -> Tensor:
    objects = (targets.labels > 0) & ~targets.ignore
    iou = iou_xyxy(targets.boxes.masked_fill(~objects[..., None], 0.0), priors_xyxy)
    overlap, truth = iou.max(dim=1)
    matches = truth.masked_fill(overlap <= threshold, BACKGROUND)
    matches = _assign(matches, *_assign_best_priors(iou))
    if bool(targets.ignore.any()):
        matches = matches.masked_fill((matches == BACKGROUND) & _inside_ignored(targets, priors_xyxy), IGNORED)
    return matches


def _assign_best_priors(iou: Tensor) -> tuple[Tensor, Tensor]:
    """Return each ground truth's prior (B, G) and whether it has one, from overlaps (B, G, P).

    Ground truths ask for their best prior; where several ask for one, the largest overlap gets it (the first of
    equals) and the others ask for their next. It ends with the pairs that the released code finds by taking the
    largest overlap of all, again and again; in two or three rounds in place of G.
    """
    overlap, prior = iou.max(dim=2)
    earlier = torch.ones(iou.shape[1], iou.shape[1], dtype=torch.bool, device=iou.device).tril(-1)
    wishes = None
    while True:
        served = overlap > 0
        ahead = overlap[:, None, :] > overlap[:, :, None]
        ahead |= (overlap[:, None, :] == overlap[:, :, None]) & earlier
        rivals = (prior[:, None, :] == prior[:, :, None]) & ahead & served[:, :, None]
        image, truth = rivals.any(dim=2).nonzero(as_tuple=True)
        if not len(image):
            return prior, served
        wishes = iou.clone() if wishes is None else wishes
        wishes[image, truth, prior[image, truth]] = 0.0
        overlap[image, truth], prior[image, truth] = wishes[image, truth].max(dim=1)


def _assign(matches: Tensor, prior: Tensor, has_prior: Tensor) -> Tensor:
    """Return the matches (B, P) in which each served ground truth (B, G) has its prior."""
    spare = matches.shape[1]  # one column more takes what is not served
    index = torch.arange(prior.shape[1], device=prior.device).expand_as(prior)
    widened = torch.nn.functional.pad(matches, (0, 1))
    return widened.scatter(1, prior.masked_fill(~has_prior, spare), index)[:, :spare]


def _inside_ignored(targets: TargetBatch, priors_xyxy: Tensor) -> Tensor:
    """Return a mask (B, P) of the priors that lie by more than half inside one box marked `ignore`."""
    ignored = targets.ignore & (targets.labels > 0)
    boxes = targets.boxes[:, :, None]
    low = torch.maximum(boxes[..., :2], priors_xyxy[:, :2])
    high = torch.minimum(boxes[..., 2:], priors_xyxy[:, 2:])
    covered = area_xyxy(torch.cat([low, high], dim=-1)) > 0.5 * area_xyxy(priors_xyxy)
    return (covered & ignored[:, :, None]).any(dim=1)
