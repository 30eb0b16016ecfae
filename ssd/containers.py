"""What crosses from one module to another: what an image should show, and what was found in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Detections", "Target", "TargetBatch", "construct_unchecked"]

Checked = TypeVar("Checked")


@dataclass(frozen=True)
class Target:
    """What one image should show.

    Attributes:
        boxes: (G, 4) xyxy in pixels, each with a width and a height.
        labels: (G,) whole numbers from 1; 0 is background and no label of a box.
        ignore: (G,) true where a box is neither an object to find nor ground without objects; none by default.
        labelled: (C,) true for the classes that this image's annotation would show; all by default. `labelled[0]`,
            the background, is always true.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor | None = None
    labelled: Tensor | None = None

    def __post_init__(self) -> None:
        _check_boxes("A target", self.boxes)
        _check_row("The labels of a target", self.labels, len(self.boxes))
        if (wrong := self.labels[self.labels < 1]).numel():
            raise ValueError(f"Labels of boxes begin at 1, 0 is background; got {wrong[0].item()}.")
        flat = (self.boxes[:, 2:] <= self.boxes[:, :2]).any(dim=1)
        if flat.any():
            first = self.boxes[flat][0].tolist()
            raise ValueError(
                f"Every box of a target has a width and a height; {int(flat.sum())} of {len(flat)} have not, the first "
                f"is {first}. Leave them out: their offsets would have no logarithm."
            )
        if self.ignore is not None:
            _check_row("ignore of a target", self.ignore, len(self.boxes), torch.bool)
        if self.labelled is not None:
            self._check_labelled(self.labelled)

    def _check_labelled(self, labelled: Tensor) -> None:
        _check_row("labelled of a target", labelled, len(labelled), torch.bool)
        if not len(labelled) or not bool(labelled[0]):
            raise ValueError("labelled of a target begins with true, for the background.")
        if self.labels.numel() and int(self.labels.max()) >= len(labelled):
            raise ValueError(f"The target has label {int(self.labels.max())}; labelled names {len(labelled)} classes.")
        strays = ~labelled[self.labels]
        if self.ignore is not None:
            strays = strays & ~self.ignore  # ignored boxes are not trained on, whatever their class
        if strays.any():
            raise ValueError(
                f"The target has a box of class {self.labels[strays][0].item()}, which `labelled` says its annotation "
                "would not show."
            )


@dataclass(frozen=True)
class TargetBatch:
    """The targets of B images in one block, which the loss works on without a loop.

    Attributes:
        boxes: (B, G, 4), G at least 1; images with fewer boxes are filled up with boxes of label 0.
        labels: (B, G); 0 where there is no box.
        ignore: (B, G).
        labelled: (B, C).
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    labelled: Tensor

    @classmethod
    def from_targets(cls, targets: Sequence[Target], classes: int) -> TargetBatch:
        """Return the block of so many targets; `classes` is C, background included."""
        count = len(targets)
        most = max((len(target.labels) for target in targets), default=0) or 1
        # Arrays, which are filled a few numbers at a time much faster than tensors.
        boxes = np.zeros((count, most, 4), dtype=np.float32)
        boxes[..., 2:] = 1.0  # what fills up has a size, so that nothing is divided by zero
        labels, ignore = np.zeros((count, most), dtype=np.int64), np.zeros((count, most), dtype=np.bool_)
        labelled = np.ones((count, classes), dtype=np.bool_)
        for row, target in enumerate(targets):
            size = len(target.labels)
            boxes[row, :size], labels[row, :size] = target.boxes.numpy(), target.labels.numpy()
            if target.ignore is not None:
                ignore[row, :size] = target.ignore.numpy()
            if target.labelled is not None:
                labelled[row] = _check_length(target.labelled.numpy(), classes)
        if (largest := int(labels.max(initial=0))) >= classes:
            raise ValueError(f"A target has label {largest}; the model has {classes} classes.")
        return cls(*(torch.from_numpy(part) for part in (boxes, labels, ignore, labelled)))

    def per_image(self) -> Iterator[TargetBatch]:
        """Yield a batch for each image, without what fills it up."""
        counts = (self.labels > 0).sum(dim=1).clamp(min=1).tolist()
        for row, count in enumerate(counts):
            part = slice(row, row + 1), slice(count)
            yield TargetBatch(self.boxes[part], self.labels[part], self.ignore[part], self.labelled[part[0]])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TargetBatch:
        """Return the batch on a device, its boxes as `dtype`; the copy to a GPU does not wait."""
        parts = (self.labels, self.ignore, self.labelled)
        ahead = torch.device(device).type != "cpu"  # a copy from a GPU that did not wait would be read half written
        boxes = self.boxes.to(device, dtype or self.boxes.dtype, non_blocking=ahead)
        return TargetBatch(boxes, *(part.to(device, non_blocking=ahead) for part in parts))


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first.

    Attributes:
        boxes: (N, 4) xyxy in pixels of the image.
        labels: (N,) from 1.
        scores: (N,) from 0 to 1.
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor

    def __post_init__(self) -> None:
        _check_boxes("Detections", self.boxes)
        _check_row("The labels of detections", self.labels, len(self.boxes))
        if self.scores.shape != self.labels.shape:
            raise ValueError(f"Detections have a score for each box; got {tuple(self.scores.shape)}.")

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def split(cls, boxes: Tensor, labels: Tensor, scores: Tensor, counts: Sequence[int]) -> list[Detections]:
        """Return the detections of images that lie one after the other, so many of each; they are checked once."""
        cls(boxes, labels, scores)
        parts = zip(*(torch.split(part, list(counts)) for part in (boxes, labels, scores)), strict=True)
        return [construct_unchecked(cls, boxes=some, labels=own, scores=their) for some, own, their in parts]


def construct_unchecked(kind: type[Checked], **values: Tensor | None) -> Checked:
    """Construct `kind` from values that are known to be valid: checking them again would take longer."""
    made = object.__new__(kind)
    made.__dict__.update(values)
    return made


def _check_boxes(what: str, boxes: Tensor) -> None:
    if boxes.ndim != 2 or boxes.shape[-1] != 4 or not boxes.is_floating_point():
        raise ValueError(f"{what}: boxes are floats of shape (count, 4); got {boxes.dtype} {tuple(boxes.shape)}.")
    if not bool(boxes.isfinite().all()):
        raise ValueError(f"{what}: a box has a coordinate that is not a finite number.")


def _check_row(what: str, row: Tensor, count: int, dtype: torch.dtype = torch.int64) -> None:
    if row.shape != (count,) or row.dtype != dtype:
        raise ValueError(f"{what} are {dtype} of shape ({count},); got {row.dtype} {tuple(row.shape)}.")


def _check_length(labelled: npt.NDArray[np.bool_], classes: int) -> npt.NDArray[np.bool_]:
    if len(labelled) != classes:
        raise ValueError(f"labelled of a target names {len(labelled)} classes; the model has {classes}.")
    return labelled
