"""Counts and histograms of boxes: sums of whole numbers, so that parts may be added in any order.

A shape is a box's width and height on a photo squashed to 300x300 pixels, which is what the detector sees. Bins are
eighths of an octave, found by comparison with fixed edges, so that a value always falls into the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.storage.schemas import SCHEMAS, empty_table

__all__ = [
    "AREA_EDGES",
    "ASPECT_EDGES",
    "SIDE_EDGES",
    "bin_centres",
    "count_shapes",
    "histogram",
    "merge_shapes",
    "sides_at_300",
]

REFERENCE_SIDE = 300
# Aspect ratio (width / height in the photo's own pixels), share of the image's area, side at 300 pixels.
ASPECT_EDGES = 2.0 ** (np.arange(-40, 41) / 8)
AREA_EDGES = 2.0 ** (np.arange(-136, 1) / 8)
SIDE_EDGES = 2.0 ** (np.arange(0, 67) / 8)
SIDE_BINS = len(SIDE_EDGES) + 1
IMAGE_LABEL = ""  # the label of what is counted for a whole image
KEY_COLUMNS = ("dataset", "split", "label", "measure", "bin")
FLAG_COLUMNS = ("truncated", "difficult", "ignore")

Floats = npt.NDArray[np.float64]


def count_shapes(images: Sequence[Mapping[str, Any]], boxes: pa.Table, extracts: pa.Table) -> pa.Table:
    """Return the counts of some images: of each class and measure, how many fell into each bin.

    Args:
        images: rows of `images`: image_id, dataset, split, width, height, labelled.
        boxes: their rows of `boxes`.
        extracts: their rows of `extracts`.
    """
    place = {row["image_id"]: position for position, row in enumerate(images)}
    of_box = np.array([place[image] for image in boxes["image_id"].to_pylist()], np.int64)
    labels = boxes["label"].to_pylist()
    pieces = [_count_rows(images, of_box, labels, "boxes", np.zeros(len(labels), np.int64))]
    for measure, bins in _box_bins(images, of_box, boxes).items():
        pieces.append(_count_rows(images, of_box, labels, measure, bins))
    for flag in FLAG_COLUMNS:
        pieces.append(_count_flagged(images, of_box, labels, flag, np.array(boxes[flag].to_pylist(), bool)))
    suspects = boxes["suspect"].to_pylist()
    for kind in sorted({kind for kind in suspects if kind}):
        pieces.append(_count_flagged(images, of_box, labels, kind, np.array([entry == kind for entry in suspects])))
    return merge_shapes([*pieces, *_image_counts(images, of_box, labels), _extract_counts(images, extracts)])


def merge_shapes(parts: Iterable[pa.Table]) -> pa.Table:
    """Return the sum of some tables of counts, in order of their keys."""
    whole = pa.concat_tables([empty_table("box_histograms"), *parts])
    summed = whole.group_by(list(KEY_COLUMNS)).aggregate([("count", "sum")]).rename_columns([*KEY_COLUMNS, "count"])
    ordered = summed.sort_by([(key, "ascending") for key in KEY_COLUMNS])
    return ordered.select(SCHEMAS["box_histograms"].names).cast(SCHEMAS["box_histograms"])


def histogram(shapes: pa.Table, measure: str, label: str, **where: str) -> dict[int, int]:
    """Return the counts by bin of one measure of one class, of all datasets and splits or those named."""
    mask = pc.and_(pc.equal(shapes["measure"], measure), pc.equal(shapes["label"], label))
    for column, value in where.items():
        mask = pc.and_(mask, pc.equal(shapes[column], value))
    found = shapes.filter(mask)
    counts: dict[int, int] = {}
    for position, count in zip(found["bin"].to_pylist(), found["count"].to_pylist(), strict=True):
        counts[position] = counts.get(position, 0) + count
    return dict(sorted(counts.items()))


def bin_centres(edges: Floats) -> Floats:
    """Return the geometric middle of each bin, the open ones at both ends included."""
    step = edges[1] / edges[0]
    return np.concatenate([[edges[0] / np.sqrt(step)], edges * np.sqrt(step)])


def sides_at_300(xyxy: Floats, sizes: Floats) -> Floats:
    """Return the (G, 2) widths and heights of boxes on photos of (G, 2) sizes squashed to 300x300."""
    sides: Floats = (xyxy[:, 2:] - xyxy[:, :2]) / sizes * REFERENCE_SIDE
    return sides


def _box_bins(images: Sequence[Mapping[str, Any]], of_box: npt.NDArray[np.int64], boxes: pa.Table) -> dict[str, Any]:
    xyxy = np.stack([boxes[name].to_numpy() for name in ("xmin", "ymin", "xmax", "ymax")], axis=1).astype(np.float64)
    sizes = np.array([[row["width"], row["height"]] for row in images], np.float64).reshape(-1, 2)[of_box]
    own, squashed = xyxy[:, 2:] - xyxy[:, :2], sides_at_300(xyxy, sizes)
    width, height = (np.searchsorted(SIDE_EDGES, squashed[:, axis], side="right") for axis in (0, 1))
    return {
        "aspect": np.searchsorted(ASPECT_EDGES, own[:, 0] / own[:, 1], side="right"),
        "area": np.searchsorted(AREA_EDGES, squashed.prod(1) / REFERENCE_SIDE**2, side="right"),
        "shape": width * SIDE_BINS + height,
    }


def _image_counts(
    images: Sequence[Mapping[str, Any]], of_box: npt.NDArray[np.int64], labels: Sequence[str]
) -> list[pa.Table]:
    """Return the images by split, and the objects an image has of each class that its labels would show."""
    everywhere = np.arange(len(images))
    pieces = [_count_rows(images, everywhere, [IMAGE_LABEL] * len(images), "images", np.zeros(len(images), np.int64))]
    named = np.array(labels)
    for label in sorted({label for row in images for label in row["labelled_classes"]} | set(labels)):
        shown = np.array(
            [position for position, row in enumerate(images) if label in row["labelled_classes"]], np.int64
        )
        objects = np.bincount(of_box[named == label], minlength=len(images))[shown] if len(labels) else 0 * shown
        pieces.append(_count_rows(images, shown, [label] * len(shown), "objects", objects))
    return pieces


def _extract_counts(images: Sequence[Mapping[str, Any]], extracts: pa.Table) -> pa.Table:
    """Return regions under the smallest area by class, and images by the percentage unknown to the legend."""
    rows = {row["image_id"]: row for row in images}
    counts = []
    for entry in extracts.to_pylist():
        row = rows[entry["image_id"]]
        key = {"dataset": row["dataset"], "split": row["split"]}
        counts += [{**key, "label": label, "measure": "dropped", "bin": 0, "count": n} for label, n in entry["dropped"]]
        percent = int(np.ceil(entry["unknown_share"] * 100))
        counts.append({**key, "label": IMAGE_LABEL, "measure": "unknown", "bin": percent, "count": 1})
    return pa.Table.from_pylist(counts, schema=SCHEMAS["box_histograms"])


def _count_flagged(
    images: Sequence[Mapping[str, Any]], of_box: Any, labels: Sequence[str], measure: str, flags: npt.NDArray[np.bool_]
) -> pa.Table:
    chosen = np.flatnonzero(flags).tolist()
    return _count_rows(images, of_box[chosen], [labels[i] for i in chosen], measure, np.zeros(len(chosen), np.int64))


def _count_rows(
    images: Sequence[Mapping[str, Any]], indices: Any, labels: Sequence[str], measure: str, bins: Any
) -> pa.Table:
    columns = {
        "dataset": [images[i]["dataset"] for i in indices],
        "split": [images[i]["split"] for i in indices],
        "label": list(labels),
        "measure": [measure] * len(labels),
        "bin": bins,
        "count": np.ones(len(labels), np.int64),
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["box_histograms"])
