"""Detections and truths of many images as flat rows of numpy, which metrics work on without a loop over images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssd.containers import Detections, Target

__all__ = ["DetectionArrays", "GroundTruthArrays"]

MAX_COUNT: Final = (1 << 31) - 1  # of an image's number and of a label, so that both make one key of 64 bits
MAX_COORDINATE: Final = np.float64(
    1e100
)  # of a coordinate, so that no area overflows; a plain 1e100 would be a float32 inf

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
AnyFloats = npt.NDArray[np.floating[Any]]
AnyInts = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class DetectionArrays:
    """The detections of many images, a row each, in any order; equal scores rank as the rows stand.

    Attributes:
        images: (N,) the number of the image, from 0.
        labels: (N,) from 1.
        scores: (N,) floats.
        boxes: (N, 4) floats, xyxy in pixels.
    """

    images: AnyInts
    labels: AnyInts
    scores: AnyFloats
    boxes: AnyFloats

    def __post_init__(self) -> None:
        _check_rows("detections", self.images, self.labels, self.boxes)
        _check_row("The scores of detections", self.scores, len(self.boxes), "f")
        if not np.isfinite(self.scores).all():
            raise ValueError("A detection has a score that is not a finite number.")

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_detections(cls, detections: Sequence[Detections]) -> DetectionArrays:
        """Return the rows of the images' detections; the first image is number 0."""
        boxes = _concatenate([one.boxes for one in detections], (0, 4), np.float64)
        scores = _concatenate([one.scores for one in detections], (0,), np.float64)
        return cls(
            _image_numbers(detections), _concatenate([one.labels for one in detections], (0,), np.int64), scores, boxes
        )


@dataclass(frozen=True)
class GroundTruthArrays:
    """The truths of many images, a row each, in any order.

    Attributes:
        images: (G,) the number of the image, from 0.
        labels: (G,) from 1, below `classes`.
        boxes: (G, 4) floats, xyxy in pixels. One without area is counted, and overlaps nothing.
        classes: C, background included.
        ignore: (G,) true where finding the box is neither right nor wrong, as VOC's difficult ones; none by default.
        labelled: (B, C) true where the image's annotation would show the class; all by default. Elsewhere detections
            do not count.
    """

    images: AnyInts
    labels: AnyInts
    boxes: AnyFloats
    classes: int
    ignore: Bools | None = None
    labelled: Bools | None = None

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise ValueError(f"classes counts the background, so that it is 1 or more; got {self.classes}.")
        _check_rows("truths", self.images, self.labels, self.boxes)
        self.check_labels("A truth", self.labels)
        if self.ignore is not None:
            _check_row("ignore of truths", self.ignore, len(self.boxes), "b")
        shown = self.labelled_at(self.images, self.labels)
        if not (shown if self.ignore is None else shown | self.ignore).all():
            raise ValueError("A truth is of a class that `labelled` says its image's annotation would not show.")

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_targets(cls, targets: Sequence[Target], classes: int) -> GroundTruthArrays:
        """Return the rows of the images' targets; the first image is number 0, `classes` is C."""
        boxes = _concatenate([one.boxes for one in targets], (0, 4), np.float64)
        ignores = [
            torch.zeros_like(one.labels, dtype=torch.bool) if one.ignore is None else one.ignore for one in targets
        ]
        labelled = np.ones((len(targets), classes), dtype=np.bool_)
        for row, one in enumerate(targets):
            if one.labelled is not None:
                labelled[row] = _check_length(one.labelled, classes).cpu().numpy()
        labels = _concatenate([one.labels for one in targets], (0,), np.int64)
        return cls(_image_numbers(targets), labels, boxes, classes, _concatenate(ignores, (0,), np.bool_), labelled)

    def labelled_at(self, images: AnyInts, labels: AnyInts) -> Bools:
        """Return (N,) whether the images' annotations would show objects of these labels."""
        if self.labelled is None:
            return np.ones(len(images), dtype=np.bool_)
        if self.labelled.dtype != np.bool_ or self.labelled.ndim != 2 or self.labelled.shape[1] != self.classes:
            got = f"{self.labelled.dtype} {self.labelled.shape}"
            raise ValueError(f"labelled of truths is bool of shape (images, {self.classes}); got {got}.")
        if len(images) and images.max() >= len(self.labelled):
            raise ValueError(f"There is a row of image {images.max()}; labelled has {len(self.labelled)}, from 0.")
        at: Bools = self.labelled[images, labels]
        return at

    def check_labels(self, what: str, labels: AnyInts) -> None:
        """Refuse labels (N,) that are none of the classes."""
        if len(labels) and labels.max() >= self.classes:
            raise ValueError(f"{what} has label {labels.max()}; there are {self.classes} classes, background included.")

    def positives(self) -> Ints:
        """Return (C,) how many truths of each class there are to find."""
        labels = self.labels if self.ignore is None else self.labels[~self.ignore]
        return np.bincount(labels.astype(np.int64), minlength=self.classes)


def _concatenate(parts: Sequence[Tensor], empty: tuple[int, ...], dtype: type) -> npt.NDArray[Any]:
    """Return the images' rows as one array, that of no image as well."""
    arrays = (part.detach().cpu() for part in parts)
    return np.concatenate(
        [np.zeros(empty, dtype), *((a.double() if a.is_floating_point() else a).numpy() for a in arrays)]
    )


def _image_numbers(images: Sequence[Detections | Target]) -> Ints:
    """Return the image's number for each row."""
    return np.repeat(np.arange(len(images)), np.array([len(image.labels) for image in images], dtype=np.int64))


def _check_rows(what: str, images: AnyInts, labels: AnyInts, boxes: AnyFloats) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind != "f":
        raise ValueError(f"Boxes of {what} are floats of shape (count, 4); got {boxes.dtype} {boxes.shape}.")
    if not (np.abs(boxes) <= MAX_COORDINATE).all():
        raise ValueError(f"A box of {what} has a coordinate that is not a finite number.")
    for name, row, least in (("images", images, 0), ("labels", labels, 1)):
        _check_row(f"The {name} of {what}", row, len(boxes), "iu")
        if len(row) and not least <= row.min() <= row.max() <= MAX_COUNT:
            raise ValueError(f"The {name} of {what} are from {least} up; got {row.min()} to {row.max()}.")


def _check_row(what: str, row: npt.NDArray[Any], count: int, kinds: str) -> None:
    if row.shape != (count,) or row.dtype.kind not in kinds:
        names = {"f": "floats", "iu": "whole numbers", "b": "bool"}
        raise ValueError(f"{what} are {names[kinds]} of shape ({count},); got {row.dtype} {row.shape}.")


def _check_length(labelled: Tensor, classes: int) -> Tensor:
    if len(labelled) != classes:
        raise ValueError(f"labelled of a target names {len(labelled)} classes, not {classes}.")
    return labelled
