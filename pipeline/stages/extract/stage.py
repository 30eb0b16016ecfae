"""`extract`: annotations become the `boxes` table.

Masks go through a recipe; true boxes are taken as they are. Every annotation that was read leaves one row in
`extracts`, so that a photo without objects differs from one that was lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.config import Settings
from pipeline.datasets.annotations import RunLengthMask, annotation_bytes, read_annotation
from pipeline.datasets.card import Card
from pipeline.errors import StaleInputError
from pipeline.execution.runner import Context, Outcome, Stage, StagePlan, run_stage
from pipeline.execution.sharding import make_shards, process_rows, row_counter
from pipeline.imaging.drawing import draw_samples
from pipeline.stages.extract.corrections import CORRECTIONS_FILE, apply_corrections, check_corrections, read_corrections
from pipeline.stages.extract.recipes import (
    ExtractedObjects,
    annotated_objects,
    components_recipe,
    epfl_recipe,
    flag_suspicious,
)
from pipeline.stages.extract.upstream import index_digest, read_cards
from pipeline.storage.files import json_digest
from pipeline.storage.lock import locked
from pipeline.storage.manifest import Receipt
from pipeline.storage.schemas import SCHEMAS, empty_table, table_from_rows
from pipeline.storage.stage_folder import StageFolder

__all__ = ["STAGE", "ExtractConfig", "run"]

STAGE = Stage("extract", algorithm=2, rows_out=row_counter("extraction_log"), primary="boxes")
# Of an `images` row, what decides the boxes; where the photo lies and when it was touched does not.
CACHE_KEY_COLUMNS = ("image_id", "width", "height", "orientation", "annotation_sha256")


class ExtractConfig(Settings):
    """How masks become boxes.

    Attributes:
        recipe: components, or the report's own.
        bridge: join what an occluder parts, across gaps up to this share of the width.
        previews: drawn photos a dataset.
    """

    recipe: Literal["components", "epfl"] = "components"
    bridge: float = Field(default=0.0, ge=0.0, le=1.0)
    previews: int = Field(default=12, ge=0)


def extract_objects(
    card: Card, config: ExtractConfig, row: Mapping[str, Any], data: bytes
) -> tuple[ExtractedObjects, float, str]:
    """Return the objects of one annotation, its unknown share, and the recipe that made the boxes."""
    annotation = read_annotation(card, data, row["width"], row["height"], row["orientation"])
    if not isinstance(annotation, RunLengthMask):
        return annotated_objects(card, annotation, row["width"], row["height"]), annotation.unknown_share, "true"
    if config.recipe == "epfl":
        return epfl_recipe(card, annotation), annotation.unknown_share, "epfl"
    return components_recipe(card, annotation, config.bridge), annotation.unknown_share, "components"


def boxes_table(row: Mapping[str, Any], objects: ExtractedObjects, kind: str, recipe: str) -> pa.Table:
    """Return the `boxes` rows of one image."""
    count = len(objects.labels)
    xyxy = objects.xyxy.astype(np.float32)
    limits = np.array([row["width"], row["height"]], np.float32)
    truncated = (xyxy[:, :2] <= 0).any(1) | (xyxy[:, 2:] >= limits).any(1)
    columns: dict[str, Any] = {
        "box_id": [f"{row['image_id']}#{rank}" for rank in range(count)],
        "image_id": [row["image_id"]] * count,
        "label": list(objects.labels),
        **{name: xyxy[:, axis] for axis, name in enumerate(("xmin", "ymin", "xmax", "ymax"))},
        "truncated": truncated,
        "difficult": objects.difficult,
        "ignore": objects.ignore,
        "source": [kind] * count,
        "recipe": [recipe] * count,
        "area_px": [area if area >= 0 else None for area in objects.areas.tolist()],
        "suspect": flag_suspicious(objects) if recipe != "true" else [None] * count,
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["boxes"])


def extract_image(
    row: dict[str, Any], cards: Mapping[str, Card], config: ExtractConfig
) -> tuple[pa.Table, dict[str, Any]]:
    """Return one image's boxes and its row in `extracts`."""
    card = cards[row["dataset"]]
    if row["annotation_uri"] is None:
        boxes = apply_corrections(empty_table("boxes"), row, row.get("corrections", ()))
        return boxes, _log_row(row, len(boxes), {}, 0.0)
    data = annotation_bytes(row["annotation_uri"])
    if hashlib.sha256(data).hexdigest() != row["annotation_sha256"]:
        raise StaleInputError("the annotation has changed since it was indexed; run `facade index` again, then this")
    objects, unknown, recipe = extract_objects(card, config, row, data)
    boxes = apply_corrections(boxes_table(row, objects, card.kind, recipe), row, row.get("corrections", ()))
    return boxes, _log_row(row, len(boxes), objects.dropped, unknown)


def extract_rows(
    rows: Sequence[dict[str, Any]], cards: Mapping[str, Card], config: ExtractConfig
) -> dict[str, pa.Table]:
    """Return the tables of some images."""
    results, rejected = process_rows(STAGE.name, rows, lambda row: extract_image(row, cards, config))
    boxes = pa.concat_tables([empty_table("boxes"), *(table for table, _ in results)])
    extracts = table_from_rows("extraction_log", [row for _, row in results])
    return {"boxes": boxes, "extraction_log": extracts, "rejected": table_from_rows("rejected", rejected)}


def run(context: Context, config: ExtractConfig) -> Outcome:
    """Extract the boxes of all datasets of the work folder."""
    index, folder = context.folder("index"), context.folder(STAGE.name)
    index_digest(index)  # before a lock makes folders: a mistyped --work must leave none
    with locked(folder.path, reads=[index.path]):
        images = _add_corrections(context, index.read("images").to_pylist())
        cards = read_cards(index)
        function = partial(extract_rows, cards=cards, config=config)
        shards = []
        for name, card in cards.items():
            decided = [STAGE.algorithm, card.model_dump(), config.model_dump(exclude={"previews"})]
            rows = [row for row in images if row["dataset"] == name]
            shards += make_shards(name, rows, partial(_shard_digest, decided))
        draw = partial(_draw_previews, folder, images, config.previews)
        plan = StagePlan(
            shards, function, {"extract": config.model_dump(), "index": index_digest(index)}, draw_pictures=draw
        )
        outcome = run_stage(STAGE, context, plan)
        if not outcome.changed and not _previews_exist(folder, images, config.previews):
            draw(folder.require_manifest().receipts)
        _log_summary(context, folder)
        return outcome


def _add_corrections(context: Context, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the images, those that have corrections in the work folder with them."""
    path = context.work / CORRECTIONS_FILE
    if not path.is_file():
        return images
    found, known = read_corrections(path), {row["image_id"]: row for row in images}
    check_corrections(path, found, known)
    if strange := sorted(found.keys() - known.keys()):
        context.log(f"extract: {len(strange)} images of {path} are not indexed, as {strange[0]}")
    count = sum(len(own) for name, own in found.items() if name in known)
    context.log(f"extract: {count} labels are ignored (listed in {path})")
    return [{**row, "corrections": found[row["image_id"]]} if row["image_id"] in found else row for row in images]


def _shard_digest(key_fields: list[Any], rows: Sequence[dict[str, Any]]) -> str:
    corrections = {row["image_id"]: row["corrections"] for row in rows if "corrections" in row}
    kept = [[row[key] for key in CACHE_KEY_COLUMNS] for row in rows]
    return json_digest([key_fields, kept, corrections] if corrections else [key_fields, kept])


def _log_row(row: Mapping[str, Any], boxes: int, dropped: Mapping[str, int], unknown: float) -> dict[str, Any]:
    return {"image_id": row["image_id"], "boxes": boxes, "dropped": list(dropped.items()), "unknown_share": unknown}


def _draw_previews(
    folder: StageFolder, images: Sequence[dict[str, Any]], max_photos: int, receipts: Sequence[Receipt]
) -> list[Path]:
    pictures = []
    for name in sorted({receipt.dataset for receipt in receipts}):
        entries = [r.tables["boxes"] for r in receipts if r.dataset == name and "boxes" in r.tables]
        boxes = folder.read_files("boxes", entries)
        own = [row for row in images if row["dataset"] == name]
        pictures += draw_samples(folder.path / "previews", name, own, boxes, max_photos)
    return pictures


def _previews_exist(folder: StageFolder, images: Sequence[dict[str, Any]], max_photos: int) -> bool:
    """Return whether there are as many drawings of each dataset as were asked for."""
    names = [row["dataset"] for row in images]
    drawings = folder.path / "previews"
    return all(len(list((drawings / name).glob("*.jpg"))) == min(max_photos, names.count(name)) for name in set(names))


def _log_summary(context: Context, folder: StageFolder) -> None:
    extracts, boxes = folder.read("extraction_log"), folder.read("boxes", columns=["label", "suspect"])
    labels, suspects = boxes["label"].to_pylist(), boxes["suspect"].to_pylist()
    counts = ", ".join(f"{labels.count(label):,} {label}s" for label in sorted(set(labels)))
    context.log(f"extract: {len(labels):,} boxes in {len(extracts):,} images: {counts}")
    marked = [f"{suspects.count(kind):,} {kind}" for kind in sorted({kind for kind in suspects if kind})]
    dropped = sum(count for entry in extracts["dropped"].to_pylist() for _, count in entry)
    shares = extracts["unknown_share"].to_numpy()
    unknown = (
        f"; unknown to the legend: {shares.mean():.2%} on average, {shares.max():.2%} at worst" if shares.any() else ""
    )
    context.log(
        f"extract: {dropped:,} regions under the smallest area; suspects: {', '.join(marked) or 'none'}{unknown}"
    )
