"""The contracts between stages: one explicit Arrow schema a table, its name and version in the file's metadata.

A reader takes any older minor version of the same major version and refuses a newer major one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import FacadeError

__all__ = ["COORDINATES", "SCHEMAS", "check_schema", "content_digest", "empty_table", "table_from_rows", "value_counts"]

NAME_KEY = b"facade.table"
VERSION_KEY = b"facade.version"
STRING, FLOAT, DOUBLE, INT, FLAG = pa.string(), pa.float32(), pa.float64(), pa.int32(), pa.bool_()


def _schema(name: str, version: str, required: dict[str, Any], optional: dict[str, Any]) -> pa.Schema:
    fields = [pa.field(key, kind, nullable=False) for key, kind in required.items()]
    fields += [pa.field(key, kind) for key, kind in optional.items()]
    return pa.schema(fields, metadata={NAME_KEY: name.encode(), VERSION_KEY: version.encode()})


BOX = {"xmin": FLOAT, "ymin": FLOAT, "xmax": FLOAT, "ymax": FLOAT}
COORDINATES = tuple(BOX)
LOCATION = {"latitude": DOUBLE, "longitude": DOUBLE, "heading": FLOAT}

# The first column of every table but the last two is its key.
SCHEMAS: dict[str, pa.Schema] = {
    "images": _schema(
        "images",
        "2.0",
        {"image_id": STRING, "dataset": STRING, "uri": STRING, "width": INT, "height": INT, "orientation": INT}
        | {"size": pa.int64(), "mtime_or_etag": STRING, "sha256": STRING, "split": STRING}
        | {"labelled_classes": pa.list_(pa.field("element", STRING))},
        {"annotation_uri": STRING, "annotation_sha256": STRING, "group": STRING, **LOCATION, "captured_at": STRING},
    ),
    "boxes": _schema(
        "boxes",
        "2.0",
        {"box_id": STRING, "image_id": STRING, "label": STRING, **BOX}
        | {"truncated": FLAG, "difficult": FLAG, "ignore": FLAG, "source": STRING, "recipe": STRING},
        {"area_px": INT, "suspect": STRING},
    ),
    # One row an annotation that was read: the proof that an image without boxes was looked at.
    "extraction_log": _schema(
        "extraction_log",
        "2.0",
        {"image_id": STRING, "boxes": INT, "dropped": pa.map_(STRING, INT), "unknown_share": FLOAT},
        {},
    ),
    # Sums of whole numbers: tables of parts add up to the table of the whole.
    "box_histograms": _schema(
        "box_histograms",
        "2.0",
        {"dataset": STRING, "split": STRING, "label": STRING, "measure": STRING, "bin": INT, "count": pa.int64()},
        {},
    ),
    "findings": _schema(
        "findings",
        "2.0",
        {"dataset": STRING, "kind": STRING, "label": STRING, "count": pa.int64(), "share": FLOAT, "message": STRING},
        {"example": STRING},
    ),
    "specs": _schema("specs", "2.0", {"name": STRING, "priors": INT, "spec": STRING, "note": STRING}, {}),
    "coverage": _schema(
        "coverage",
        "2.0",
        {"name": STRING, "split": STRING, "label": STRING, "boxes": INT, "coverage_50": FLOAT, "coverage_70": FLOAT}
        | {"mean_iou": FLOAT, "positives": FLOAT, "share": FLOAT},
        {},
    ),
    "choice": _schema("choice", "2.0", {"name": STRING, "split": STRING, "score": FLOAT, "reason": STRING}, {}),
    # The photos that `detect` is to open; `inside` is a place in an archive file.
    "plan": _schema(
        "plan",
        "2.0",
        {"image_id": STRING, "uri": STRING, "version": STRING},
        {"member": STRING, "extra": pa.map_(STRING, STRING), **LOCATION},
    ),
    "photos": _schema(
        "photos",
        "2.0",
        {"image_id": STRING, "uri": STRING, "status": STRING, "detections": INT},
        {"width": INT, "height": INT, "extra": pa.map_(STRING, STRING), **LOCATION},
    ),
    "detections": _schema(
        "detections",
        "2.0",
        {"detection_id": STRING, "image_id": STRING, "label": STRING, "score": FLOAT, "selected": FLAG, **BOX}
        | {"model_digest": STRING},
        {"probability": FLOAT},
    ),
    # One row per evaluated photo: selected detections by outcome, and objects that no detection matches.
    "evaluated_images": _schema(
        "evaluated_images",
        "2.0",
        {"image_id": STRING, "uri": STRING, "dataset": STRING, "split": STRING, "ground_truths": INT, "selected": INT}
        | {"correct": INT, "duplicate": INT, "localisation": INT, "class": INT, "background": INT, "missed": INT},
        {},
    ),
    # A row a detection: what it is, and the box that it lies on.
    "detection_matches": _schema(
        "detection_matches",
        "2.0",
        {
            "detection_id": STRING,
            "image_id": STRING,
            "label": STRING,
            "score": FLOAT,
            "outcome": STRING,
            "selected": FLAG,
        }
        | {"iou": FLOAT},
        {"probability": FLOAT, "box_id": STRING, "ground_truth_label": STRING},
    ),
    # A row a box: whether any detection finds it, and whether a chosen one does.
    "ground_truths": _schema(
        "ground_truths",
        "2.0",
        {"box_id": STRING, "image_id": STRING, "label": STRING, "ignore": FLAG, "detected": FLAG, "selected": FLAG}
        | {"size": STRING, "shape": STRING, **BOX},
        {},
    ),
    "scores": _schema(
        "scores",
        "2.0",
        {"split": STRING, "dataset": STRING, "label": STRING, "part": STRING, "protocol": STRING, "value": DOUBLE}
        | {"positives": INT, "images": INT},
        {"low": DOUBLE, "high": DOUBLE},
    ),
    "curves": _schema(
        "curves",
        "2.0",
        {"split": STRING, "label": STRING, "score": FLOAT, "precision": FLOAT, "recall": FLOAT, "f1": FLOAT},
        {},
    ),
    # `label` as it was found, and for what was missed as it is.
    "error_breakdown": _schema(
        "error_breakdown",
        "2.0",
        {"split": STRING, "label": STRING, "kind": STRING, "count": INT, "share": FLOAT},
        {"ap_gain": FLOAT},
    ),
    "suspicious_labels": _schema(
        "suspicious_labels",
        "2.0",
        {"rank": INT, "kind": STRING, "image_id": STRING, "dataset": STRING, "split": STRING, "label": STRING}
        | {"confidence": FLOAT, **BOX},
        {"detected_label": STRING, "box_id": STRING, "detection_id": STRING},
    ),
    "warnings": _schema("warnings", "2.0", {"dataset": STRING, "uri": STRING, "kind": STRING, "message": STRING}, {}),
    "cards": _schema("cards", "2.0", {"dataset": STRING, "text": STRING}, {}),
    "rejected": _schema(
        "rejected", "2.0", {"image_id": STRING, "uri": STRING, "stage": STRING, "error": STRING, "message": STRING}, {}
    ),
}

# A touched file is not a changed one: what these columns hold never counts as a change of the table.
VOLATILE_COLUMNS = ("mtime_or_etag",)


def empty_table(name: str) -> pa.Table:
    """Return the table `name` with no rows."""
    return SCHEMAS[name].empty_table()


def table_from_rows(name: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return the rows as table `name`."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])


def value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    """Count how often each value of a column occurs."""
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}


def check_schema(schema: pa.Schema, name: str, where: str) -> None:
    """Raise a sentence unless `schema` is table `name` in a version that this program reads."""
    metadata = schema.metadata or {}
    found, version = metadata.get(NAME_KEY, b"?").decode(), metadata.get(VERSION_KEY, b"0").decode()
    ours = (SCHEMAS[name].metadata or {})[VERSION_KEY].decode()
    if found != name:
        raise FacadeError(f"{where} holds the table {found!r}, expected {name!r}; point at the right folder.")
    if int(version.split(".")[0]) < int(ours.split(".")[0]):
        raise FacadeError(f"{where} has version {version}, this program reads {ours}; run its stage again.")
    if int(version.split(".")[0]) > int(ours.split(".")[0]):
        raise FacadeError(f"{where} has version {version}, this program reads up to {ours}; update facade-ssd.")


def conform_to_schema(table: pa.Table, name: str) -> pa.Table:
    """Return a table read from an older minor version in today's columns; absent ones are null."""
    schema = SCHEMAS[name]
    if table.schema.equals(schema):
        return table
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def content_digest(table: pa.Table) -> str:
    """Return the sha256 of what the table says: its rows, whatever the file format and however they are chunked."""
    kept = table.drop_columns([name for name in VOLATILE_COLUMNS if name in table.column_names]).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, kept.schema) as writer:
        writer.write_table(kept)
    return hashlib.sha256(sink.getvalue()).hexdigest()
