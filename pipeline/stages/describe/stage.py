"""`describe`: what the boxes look like, as counts that add up, figures, and a table of what looks wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Settings
from pipeline.errors import FacadeError
from pipeline.execution.runner import Context, Outcome, Plan, Stage, run_stage
from pipeline.stages.describe.figures import draw_shapes
from pipeline.stages.describe.histograms import IMAGE, count_shapes, histogram, merge_shapes
from pipeline.stages.extract.upstream import require_fresh
from pipeline.storage.files import json_digest
from pipeline.storage.lock import locked
from pipeline.storage.manifest import Manifest, Receipt, Shard
from pipeline.storage.schemas import table_from_rows
from pipeline.storage.stage_folder import StageFolder

__all__ = ["STAGE", "DescribeConfig", "described_shapes", "run"]

ROW = ("image_id", "uri", "dataset", "split", "width", "height", "labelled")
# What the boxes' own flags are worth a finding for, with what it means.
SUSPECTS = {
    "speck": "boxes with a side under 4 pixels",
    "merged": "boxes that look like two objects that touch",
    "dropped": "regions under the smallest area, which got no box",
}


class DescribeConfig(Settings):
    """Nothing to choose yet: bins are fixed, so that counts of any two datasets add up."""


def images_counted(tables: Mapping[str, pa.Table]) -> int:
    """Return how many images a shard's counts are of."""
    return sum(histogram(tables["shapes"], "images", IMAGE).values()) if "shapes" in tables else 0


STAGE = Stage("describe", algorithm=1, rows_out=images_counted, primary=None)


def describe_rows(rows: Sequence[dict[str, Any]], extract: StageFolder) -> dict[str, pa.Table]:
    """Return the counts of the images of one shard of `extract`."""
    files = rows[0]["files"]
    boxes, extracts = (
        extract.read_files(name, [files[name]] if name in files else []) for name in ("boxes", "extracts")
    )
    return {"shapes": count_shapes(rows, boxes, extracts)}


def run(context: Context, config: DescribeConfig) -> Outcome:
    """Return what became of all datasets of the work folder."""
    index, extract, folder = (context.folder(name) for name in ("index", "extract", STAGE.name))
    with locked(folder.path, reads=[index.path, extract.path]):
        manifest = require_fresh(index, extract)
        shards = _shards(index, extract, manifest)
        settings = {"describe": config.model_dump(), "extract": manifest.digest}
        last = Shard("all", 0, json_digest([[shard.digest for shard in shards], manifest.digest]))
        closing = (last, partial(_whole, folder, index, extract, manifest))
        draw = partial(_draw, folder)
        outcome = run_stage(
            STAGE, context, Plan(shards, partial(describe_rows, extract=extract), settings, closing=closing, draw=draw)
        )
        _tell(context, folder)
        return outcome


def described_shapes(folder: StageFolder, extract: Manifest) -> pa.Table:
    """Return the counts of the whole, or say that they are older than the boxes."""
    manifest = folder.manifest()
    if manifest is None or manifest.settings.get("extract") != extract.digest:
        raise FacadeError(f"{folder.path} is older than the boxes or absent; run `facade describe` first.")
    return _merged(folder, manifest.receipts)


def _shards(index: StageFolder, extract: StageFolder, manifest: Manifest) -> list[Shard]:
    """Return a shard for each of `extract`'s: the images that it read, and its files."""
    images = {row["image_id"]: row for row in index.read("images", columns=list(ROW)).to_pylist()}
    shards = []
    for receipt in manifest.receipts:
        if "extracts" in receipt.tables:
            read = extract.read_files("extracts", [receipt.tables["extracts"]], ["image_id"])["image_id"].to_pylist()
            rows = [{**images[image], "files": receipt.tables} for image in read]
            contents = [receipt.tables[name].content for name in sorted(receipt.tables)]
            decided = [STAGE.algorithm, contents, [[row[key] for key in ROW] for row in rows]]
            shards.append(Shard(receipt.dataset, receipt.ordinal, json_digest(decided), rows))
    return shards


def _whole(
    folder: StageFolder, index: StageFolder, extract: StageFolder, manifest: Manifest, receipts: Sequence[Receipt]
) -> dict[str, pa.Table]:
    shapes = _merged(folder, receipts)
    return {"findings": table_from_rows("findings", _findings(shapes, index, extract, manifest))}


def _merged(folder: StageFolder, receipts: Sequence[Receipt]) -> pa.Table:
    entries = [receipt.tables["shapes"] for receipt in receipts if "shapes" in receipt.tables]
    return merge_shapes([folder.read_files("shapes", entries)])


def _findings(shapes: pa.Table, index: StageFolder, extract: StageFolder, manifest: Manifest) -> list[dict[str, Any]]:
    """Return what looks wrong, dataset by dataset."""
    boxes = extract.read("boxes", columns=["image_id", "label", "suspect"])
    boxes = boxes.filter(pc.is_valid(boxes["suspect"]))
    remarks = index.read("remarks")
    rows = []
    for dataset in sorted({receipt.dataset for receipt in manifest.receipts}):
        images = sum(histogram(shapes, "images", IMAGE, dataset=dataset).values())
        labels = sorted(set(shapes.filter(pc.equal(shapes["dataset"], dataset))["label"].to_pylist()) - {IMAGE})
        for label in labels:
            rows += _class_findings(shapes, boxes, dataset, label)
        unknown = histogram(shapes, "unknown", IMAGE, dataset=dataset)
        rows.append(
            _finding(
                dataset,
                "unknown",
                IMAGE,
                images - unknown.get(0, 0),
                images,
                "images with colours or names that the card does not know",
            )
        )
        for kind in ("duplicate", "stray"):
            own = remarks.filter(pc.and_(pc.equal(remarks["dataset"], dataset), pc.equal(remarks["kind"], kind)))
            example = own["uri"][0].as_py() if len(own) else None
            message = "photos with the same bytes as another" if kind == "duplicate" else "labels without a photo"
            rows.append(_finding(dataset, kind, IMAGE, len(own), images, message, example))
        rejected = sum(receipt.rejected for receipt in manifest.receipts if receipt.dataset == dataset)
        rows.append(
            _finding(dataset, "rejected", IMAGE, rejected, images + rejected, "images whose labels could not be read")
        )
    return [row for row in rows if row["count"] or row["kind"] == "absent"]


def _class_findings(shapes: pa.Table, suspects: pa.Table, dataset: str, label: str) -> list[dict[str, Any]]:
    total = sum(histogram(shapes, "boxes", label, dataset=dataset).values())
    if total == 0:
        return [_finding(dataset, "absent", label, 0, 1, "a class that the labels should show and never do")]
    rows = []
    for kind, message in SUSPECTS.items():
        count = sum(histogram(shapes, kind, label, dataset=dataset).values())
        mask = pc.and_(pc.equal(suspects["suspect"], kind), pc.equal(suspects["label"], label))
        own = suspects.filter(pc.and_(mask, pc.starts_with(suspects["image_id"], f"{dataset}/")))
        rows.append(
            _finding(
                dataset,
                kind,
                label,
                count,
                total + count * (kind == "dropped"),
                message,
                own["image_id"][0].as_py() if len(own) else None,
            )
        )
    return rows


def _finding(
    dataset: str, kind: str, label: str, count: int, of: int, message: str, example: str | None = None
) -> dict[str, Any]:
    key = {"dataset": dataset, "kind": kind, "label": label, "message": message, "example": example}
    return {**key, "count": count, "share": count / max(of, 1)}


def _draw(folder: StageFolder, receipts: Sequence[Receipt]) -> list[Path]:
    return draw_shapes(_merged(folder, receipts), folder.path / "figures")


def _tell(context: Context, folder: StageFolder) -> None:
    shapes = merge_shapes([folder.read("shapes")])
    for label in sorted(set(shapes["label"].to_pylist()) - {IMAGE}):
        objects = histogram(shapes, "objects", label)
        images, boxes = sum(objects.values()), sum(histogram(shapes, "boxes", label).values())
        without = objects.get(0, 0) / max(images, 1)
        context.say(
            f"describe: {label}: {boxes:,} in {images:,} images that show it, {without:.0%} of them without any"
        )
    for row in folder.read("findings").to_pylist():
        what = f"{row['label']} {row['message']}".strip()
        share = f" ({row['share']:.1%})" if row["count"] else ""
        example = f", as {row['example']}" if row["example"] else ""
        context.say(f"describe: {row['dataset']}: {row['count']:,} {what}{share}{example}")
    context.say(f"describe: figures in {folder.path / 'figures'}")
