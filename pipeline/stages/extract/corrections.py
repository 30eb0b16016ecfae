"""Labels that a person found to be wrong: their boxes are ignored, in training and in evaluation.

The file is WORK/corrections.csv, used as long as it is there: a copy of `suspicious_labels.csv` of `evaluate` without
the rows whose labels are correct, or any CSV with image_id, label, xmin, ymin, xmax, ymax. A box of that label at that
place is ignored; if there is none, a box to ignore is added. The same holds for `detected_label`, if it differs.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipeline.config import read_text
from pipeline.errors import UsageError
from pipeline.imaging.boxes import pairwise_iou
from pipeline.storage.schemas import COORDINATES

__all__ = ["CORRECTIONS_FILE", "Correction", "apply_corrections", "check_corrections", "read_corrections"]

CORRECTIONS_FILE: Final = "corrections.csv"
SAME_BOX_IOU: Final = 0.9  # IoU from which on a correction's box is the label's own: it went through text
REQUIRED_COLUMNS: Final = ("image_id", "label", *COORDINATES)

Correction = Mapping[str, Any]


def read_corrections(path: Path) -> dict[str, list[Correction]]:
    """Return the corrections of a file by image."""
    found: dict[str, list[Correction]] = {}
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    if absent := [name for name in REQUIRED_COLUMNS if name not in (reader.fieldnames or ())]:
        raise UsageError(f"{path} has no column {absent[0]}; corrections have {', '.join(REQUIRED_COLUMNS)}.")
    if "found_label" in (reader.fieldnames or ()):
        raise UsageError(f"{path}: the column found_label is called detected_label since version 0.2; rename it.")
    try:
        for row in reader:
            found.setdefault(row["image_id"], []).extend(_parse_corrections(path, reader.line_num, row))
    except csv.Error as error:
        raise UsageError(f"{path}: line {reader.line_num} cannot be read ({error}); fix it.") from None
    return found


def check_corrections(
    path: Path, corrections: Mapping[str, Sequence[Correction]], images: Mapping[str, Mapping[str, Any]]
) -> None:
    """Refuse what an image's annotation could not show: another label, a box that is not in the photo."""
    for name in sorted(corrections.keys() & images.keys()):
        image = images[name]
        for one in corrections[name]:
            if one["label"] not in image["labelled_classes"]:
                known = ", ".join(image["labelled_classes"])
                raise UsageError(f"{path}: {name} has no label {one['label']!r}, it has {known}; fix that row.")
            if one["xmin"] >= image["width"] or one["ymin"] >= image["height"] or min(one["xmax"], one["ymax"]) <= 0:
                raise UsageError(f"{path}: a box of {name} lies outside its {image['width']}x{image['height']} pixels.")


def _parse_corrections(path: Path, line: int, row: Mapping[str, str]) -> list[Correction]:
    """Parse a row: a correction of its label, and one of the label detected in its place."""
    try:
        box = {name: float(row[name]) for name in COORDINATES}
    except (TypeError, ValueError):
        raise UsageError(f"{path}: line {line} has a coordinate that is no number; fix it or remove it.") from None
    if not all(map(math.isfinite, box.values())) or box["xmin"] >= box["xmax"] or box["ymin"] >= box["ymax"]:
        raise UsageError(f"{path}: line {line} has a box without area; fix it or remove it.")
    return [
        {"label": label, **box} for label in dict.fromkeys((row["label"], row.get("detected_label") or row["label"]))
    ]


def apply_corrections(boxes: pa.Table, row: Mapping[str, Any], corrections: Sequence[Correction]) -> pa.Table:
    """Return the `boxes` rows of an image with its corrections."""
    if not corrections:
        return boxes
    rows = boxes.to_pylist()
    for one in corrections:
        own = max((box for box in rows if box["label"] == one["label"]), key=lambda box: _iou(box, one), default=None)
        if own is not None and _iou(own, one) >= SAME_BOX_IOU:
            own["ignore"] = True
        else:
            rows.append(_new_box(row, one, len(rows)))
    return pa.Table.from_pylist(rows, schema=boxes.schema)


def _new_box(row: Mapping[str, Any], correction: Correction, rank: int) -> dict[str, Any]:
    limits = {"xmin": row["width"], "xmax": row["width"], "ymin": row["height"], "ymax": row["height"]}
    box = {name: min(max(float(np.float32(correction[name])), 0.0), float(limits[name])) for name in COORDINATES}
    truncated = box["xmin"] <= 0 or box["ymin"] <= 0 or box["xmax"] >= row["width"] or box["ymax"] >= row["height"]
    flags = {"truncated": truncated, "difficult": False, "ignore": True, "area_px": None, "suspect": None}
    return {
        "box_id": f"{row['image_id']}#{rank}",
        "image_id": row["image_id"],
        "label": correction["label"],
        **box,
        **flags,
        "source": "correction",
        "recipe": "correction",
    }


def _iou(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    first_xyxy, second_xyxy = (np.array([[box[name] for name in COORDINATES]]) for box in (first, second))
    return float(pairwise_iou(first_xyxy, second_xyxy)[0, 0])
