"""Join detections with ground truth by image, as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.labels import class_order
from pipeline.errors import FacadeError
from pipeline.storage.schemas import COORDINATES
from pipeline.storage.stage_folder import StageFolder
from ssd import DetectionArrays, GroundTruthArrays

__all__ = ["EvaluationData", "images_to_evaluate", "load_evaluation_data"]

IMAGE_COLUMNS: Final = ("image_id", "uri", "dataset", "split", "width", "height", "labelled_classes")

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EvaluationData:
    """Photos with their detections and their truths; rows name photos by number.

    Attributes:
        images: a row a photo, in the order of the numbers: image_id, uri, dataset, split, width, height.
        classes: what is evaluated, in the order of the labels from 1.
        detections: what was found.
        detection_ids: (N,) of each detection.
        ground_truths: what is true.
        box_ids: (G,) of each truth.
    """

    images: pa.Table
    classes: tuple[str, ...]
    detections: DetectionArrays
    detection_ids: pa.Array
    ground_truths: GroundTruthArrays
    box_ids: pa.Array

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a column of the photos."""
        values: npt.NDArray[Any] = self.images[name].to_numpy()
        return values

    def select_images(self, mask: Bools) -> EvaluationData:
        """Select photos with their detections and ground truths, renumbered."""
        numbers = np.cumsum(mask) - 1
        found, true = (mask[rows.images] for rows in (self.detections, self.ground_truths))
        labelled = None if self.ground_truths.labelled is None else self.ground_truths.labelled[mask]
        return EvaluationData(
            self.images.filter(pa.array(mask)),
            self.classes,
            _select_detections(self.detections, found, numbers),
            self.detection_ids.filter(pa.array(found)),
            _select_ground_truths(self.ground_truths, true, numbers, labelled),
            self.box_ids.filter(pa.array(true)),
        )

    def select_split(self, split: str) -> EvaluationData:
        """Return the photos of a split."""
        return self.select_images(self.column("split") == split)


def images_to_evaluate(detect: StageFolder, index: StageFolder, extract: StageFolder) -> tuple[pa.Table, int, int]:
    """Return the photos with detections and ground truth, by id.

    Also return how many photos with detections have no ground truth, and how many labelled photos of the same datasets
    and splits have no detections.
    """
    photos = detect.read("photos", columns=["image_id", "status"])
    done = photos["image_id"].filter(pc.equal(photos["status"], "done"))
    read = extract.read("extraction_log", columns=["image_id"])["image_id"]
    every = index.read("images", columns=list(IMAGE_COLUMNS))
    every = every.filter(pc.is_in(every["image_id"], read))
    images = every.filter(pc.is_in(every["image_id"], done))
    if not len(images):
        ours, theirs = (column[0].as_py() if len(column) else "nothing" for column in (done, read))
        raise FacadeError(
            f"no photo of {detect.path} has truth in {index.work}: its ids are like {ours!r}, those with truth like "
            f"{theirs!r}; find in the work folder itself, with `facade detect {index.work}`."
        )
    alike = pc.and_(*(pc.is_in(every[name], pc.unique(images[name])) for name in ("dataset", "split")))
    return images.sort_by("image_id"), len(done) - len(images), pc.sum(alike).as_py() - len(images)


def load_evaluation_data(
    images: pa.Table, detect: StageFolder, extract: StageFolder, model_classes: Sequence[str]
) -> EvaluationData:
    """Return some photos with their detections and truths, of the classes that they label and the model knows."""
    labels = {label for row in pc.unique(pc.list_flatten(images["labelled_classes"])).to_pylist() for label in [row]}
    classes = class_order(label for label in labels if not model_classes or label in model_classes)
    if not classes:
        labels_text = f"{', '.join(sorted(labels))}, not {', '.join(sorted(model_classes))}"
        raise FacadeError(
            f"the photos are labelled with {labels_text}, which the model finds; name datasets that share one."
        )
    found = _filter_rows(detect.read("detections"), images, classes)
    true = _filter_rows(extract.read("boxes"), images, classes)
    ignore = _flags(true.table, "ignore") | _flags(true.table, "difficult")
    labelled = np.ones((len(images), 1 + len(classes)), np.bool_)
    for number, label in enumerate(classes, start=1):
        labelled[:, number] = [label in own for own in images["labelled_classes"].to_pylist()]
    kept = labelled[true.images, true.labels] | ignore
    truths = GroundTruthArrays(true.images, true.labels, true.boxes, 1 + len(classes), ignore, None)
    truths = _select_ground_truths(truths, kept, np.arange(len(images)), labelled)
    scores = found.table["score"].to_numpy()
    return EvaluationData(
        images,
        classes,
        DetectionArrays(found.images, found.labels, scores, found.boxes),
        found.table["detection_id"].combine_chunks(),
        truths,
        true.table["box_id"].combine_chunks().filter(pa.array(kept)),
    )


@dataclass(frozen=True)
class _BoxRows:
    """Rows of a table that are of some photos and classes."""

    table: pa.Table
    images: Ints
    labels: Ints
    boxes: npt.NDArray[np.float32]


def _filter_rows(table: pa.Table, images: pa.Table, classes: Sequence[str]) -> _BoxRows:
    numbers = pc.index_in(table["image_id"], images["image_id"].combine_chunks())
    labels = pc.index_in(table["label"], pa.array(classes, pa.string()))
    kept = pc.and_(pc.is_valid(numbers), pc.is_valid(labels))
    table = table.filter(kept)
    boxes = [table[name].to_numpy() for name in COORDINATES]
    return _BoxRows(
        table,
        numbers.filter(kept).to_numpy().astype(np.int64),
        1 + labels.filter(kept).to_numpy().astype(np.int64),
        np.stack(boxes, axis=1).astype(np.float32),
    )


def _flags(table: pa.Table, name: str) -> Bools:
    return np.asarray(table[name].to_numpy(), np.bool_)


def _select_detections(rows: DetectionArrays, mask: Bools, numbers: Ints) -> DetectionArrays:
    return DetectionArrays(numbers[rows.images[mask]], rows.labels[mask], rows.scores[mask], rows.boxes[mask])


def _select_ground_truths(
    rows: GroundTruthArrays, mask: Bools, numbers: Ints, labelled: Bools | None
) -> GroundTruthArrays:
    ignore = None if rows.ignore is None else rows.ignore[mask]
    return GroundTruthArrays(
        numbers[rows.images[mask]], rows.labels[mask], rows.boxes[mask], rows.classes, ignore, labelled
    )
