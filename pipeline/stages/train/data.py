"""Training and validation data: the photos of the work folder with their boxes, in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.datasets.labels import class_order
from pipeline.errors import BadInputError, FacadeError, UsageError
from pipeline.execution.progress import Progress
from pipeline.execution.runner import Context
from pipeline.execution.sharding import rejected_row
from pipeline.imaging.image_io import decode_photo
from pipeline.stages.extract.upstream import require_up_to_date
from pipeline.storage.files import json_digest, read_bytes
from ssd import InMemoryDataset, Target, resize_photo

__all__ = ["SPLITS", "PhotoCache", "TrainingRows", "load_training_rows"]

SPLITS = ("train", "val", "test")
# How far a box may reach out of its photo, in pixels: rounding, not a mistake.
MAX_BOX_OVERHANG = 1.0

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TrainingRows:
    """The rows of a training run, before any photo is decoded.

    Attributes:
        rows: an image each: image_id, dataset, uri, width, height, split, labelled, and boxes, labels, ignore.
        classes: what is to be found, in the order of the labels.
        weights: how often photos of each dataset are shown in relation to others; empty: all alike.
        digest: of the tables that the rows are from.
    """

    rows: Sequence[Mapping[str, Any]]
    classes: tuple[str, ...]
    weights: Mapping[str, float]
    digest: str

    def split_counts(self) -> dict[str, int]:
        """Return the number of photos of each split that has any."""
        splits = [row["split"] for row in self.rows]
        return {split: count for split in SPLITS if (count := splits.count(split))}

    def datasets(self) -> list[str]:
        """Return the names of the datasets."""
        return sorted({row["dataset"] for row in self.rows})


@dataclass
class PhotoCache:
    """Photos decoded once, upright, no side longer than `max_side`: uint8 (3, H, W) by image, kept for further runs."""

    max_side: int
    photos: dict[str, Tensor] = field(default_factory=dict)

    def load(self, rows: Sequence[Mapping[str, Any]], progress: Progress) -> list[dict[str, Any]]:
        """Decode what is not there yet; return the `rejected` rows of photos that cannot be."""
        rejected = []
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            missing = [row for row in rows if row["image_id"] not in self.photos]
            for row, result in zip(
                missing, pool.map(partial(_decode_photo, max_side=self.max_side), missing), strict=True
            ):
                if isinstance(result, Exception):
                    rejected.append(rejected_row(row, "train", result))
                else:
                    self.photos[row["image_id"]] = result
                progress.advance(1, int(isinstance(result, Exception)))
        return rejected

    def make_dataset(self, training_rows: TrainingRows, split: str) -> InMemoryDataset | None:
        """Return the photos of a split that could be decoded, with their targets; None if there are none."""
        rows = [row for row in training_rows.rows if row["split"] == split and row["image_id"] in self.photos]
        if not rows:
            return None
        photos = [self.photos[row["image_id"]] for row in rows]
        targets = [_make_target(row, photo, training_rows.classes) for row, photo in zip(rows, photos, strict=True)]
        weights = [training_rows.weights[row["dataset"]] for row in rows] if training_rows.weights else None
        return InMemoryDataset(
            [row["image_id"] for row in rows], photos, targets, weights, [row["dataset"] for row in rows]
        )


def load_training_rows(context: Context, datasets: Mapping[str, float], classes: Sequence[str]) -> TrainingRows:
    """Return the rows of some datasets of the work folder, or all, for some classes, or all that they label."""
    index, extract = context.folder("index"), context.folder("extract")
    manifest = require_up_to_date(index, extract)
    known = {receipt.dataset for receipt in manifest.receipts}
    if unknown := sorted(set(datasets) - known):
        raise UsageError(f"train.datasets: {context.work} has no {unknown[0]}; it has {', '.join(sorted(known))}.")
    columns = ["image_id", "dataset", "uri", "width", "height", "split", "labelled_classes"]
    images = index.read("images", columns=columns).to_pylist()
    read = set(extract.read("extraction_log", columns=["image_id"])["image_id"].to_pylist())
    rows = [row for row in images if row["image_id"] in read and (not datasets or row["dataset"] in datasets)]
    chosen = tuple(classes) or class_order({label for row in rows for label in row["labelled_classes"]})
    boxes = _boxes_by_image(extract.read("boxes"), chosen)
    rows = [{**row, **boxes.get(row["image_id"], NO_BOXES)} for row in sorted(rows, key=lambda row: row["image_id"])]
    _check_trainable(rows, chosen, str(context.work))
    used = sorted({row["dataset"] for row in rows})
    digests = [[receipt.key for receipt in manifest.receipts if receipt.dataset == name] for name in used]
    weights = {} if len(set(datasets.values())) <= 1 else dict(datasets)
    decided = [digests, [[row["image_id"], row["split"], row["labelled_classes"]] for row in rows]]
    return TrainingRows(rows, chosen, weights, json_digest(decided))


NO_BOXES: Mapping[str, Any] = {
    "boxes": np.zeros((0, 4), np.float32),
    "labels": np.zeros(0, np.int64),
    "ignore": np.zeros(0, np.bool_),
}


def _boxes_by_image(table: Any, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the boxes of each image that has any of these classes."""
    numbers = {label: number for number, label in enumerate(classes, start=1)}
    labels = np.array([numbers.get(label, 0) for label in table["label"].to_pylist()], np.int64)
    kept = np.flatnonzero(labels)
    images = np.array(table["image_id"].to_pylist(), dtype=object)[kept]
    xyxy = np.stack([table[name].to_numpy()[kept] for name in ("xmin", "ymin", "xmax", "ymax")], axis=1)
    ignore = (table["ignore"].to_numpy() | table["difficult"].to_numpy())[kept]
    names, own = np.unique(images, return_inverse=True) if len(images) else (np.array([], dtype=object), np.array([]))
    order = np.argsort(own, kind="stable")
    ends = np.searchsorted(own[order], np.arange(1, len(names) + 1))
    parts = np.split(order, ends[:-1]) if len(names) else []
    return {
        name: {"boxes": xyxy[part], "labels": labels[kept][part], "ignore": ignore[part]}
        for name, part in zip(names, parts, strict=True)
    }


def _check_trainable(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], where: str) -> None:
    """Refuse data that cannot be trained on, in one sentence."""
    train = [row for row in rows if row["split"] == "train"]
    if not train:
        raise FacadeError(
            f"{where}: of {len(rows)} images none is in the train split; index more photos, or look at the card's "
            "splits."
        )
    labelled = {label for row in rows for label in row["labelled_classes"]}
    for number, label in enumerate(classes, start=1):
        count = sum(int(((row["labels"] == number) & ~row["ignore"]).sum()) for row in train)
        if label not in labelled or not count:
            raise FacadeError(
                f"{where}: no object of the class {label} is in the train split; leave it out with "
                f"--set 'train.classes=[...]', or add photos that show one."
            )


def _decode_photo(row: Mapping[str, Any], max_side: int) -> Tensor | Exception:
    """Return a photo, or what is wrong with it or its boxes."""
    try:
        photo = torch.from_numpy(decode_photo(read_bytes(row["uri"])).copy()).permute(2, 0, 1).contiguous()
        if photo.shape[1:] != (row["height"], row["width"]):
            got = f"{photo.shape[2]}x{photo.shape[1]}, indexed as {row['width']}x{row['height']}"
            raise BadInputError(f"the photo is now {got}; run `facade index` again")
        _check_boxes(row)
        scale = max_side / max(photo.shape[1:])
        if scale >= 1:
            return photo
        return resize_photo(photo, *(max(2, round(length * scale)) for length in photo.shape[1:]))
    except Exception as error:  # the edge of a shard: bad data is a row, not a crash
        return error


def _check_boxes(row: Mapping[str, Any]) -> None:
    boxes: Floats = row["boxes"]
    most = np.array([row["width"], row["height"]] * 2) + MAX_BOX_OVERHANG
    outside = ((boxes < -MAX_BOX_OVERHANG) | (boxes > most) | ~np.isfinite(boxes)).any(axis=1)
    if outside.any():
        box = boxes[outside][0].round().tolist()
        raise BadInputError(f"the box {box} lies outside its photo of {row['width']}x{row['height']}; fix its label")


def _make_target(row: Mapping[str, Any], photo: Tensor, classes: Sequence[str]) -> Target:
    """Make the target of a photo, in pixels of the photo as it is kept."""
    height, width = photo.shape[1:]
    scale = np.array([width / row["width"], height / row["height"]] * 2, np.float32)
    boxes = (row["boxes"] * scale).clip(0, np.array([width, height] * 2, np.float32))
    kept = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    labelled = [True, *(label in row["labelled_classes"] for label in classes)]
    return Target(
        torch.from_numpy(boxes[kept]),
        torch.from_numpy(row["labels"][kept]),
        torch.from_numpy(row["ignore"][kept]),
        torch.tensor(labelled),
    )
