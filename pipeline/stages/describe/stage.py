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
from pipeline.execution.runner import Context, Outcome, ReduceTask, Stage, StagePlan, run_stage
from pipeline.stages.describe.figures import draw_shapes
from pipeline.stages.describe.histograms import IMAGE_LABEL, count_shapes, histogram, merge_shapes
from pipeline.stages.extract.upstream import require_up_to_date
from pipeline.storage.files import json_digest
from pipeline.storage.lock import locked
from pipeline.storage.manifest import Manifest, Receipt, Shard
from pipeline.storage.schemas import table_from_rows
from pipeline.storage.stage_folder import StageFolder

__all__ = ["STAGE", "DescribeConfig", "load_shapes", "run"]

IMAGE_COLUMNS = ("image_id", "uri", "dataset", "split", "width", "height", "labelled_classes")
# What the boxes' own flags are worth a finding for, with what it means.
FINDING_MESSAGES = {
    "speck": "boxes with a side under 4 pixels",
    "merged": "boxes that look like two objects that touch",
    "dropped": "regions under the smallest area, which got no box",
}


class DescribeConfig(Settings):
    """Nothing to choose yet: bins are fixed, so that counts of any two datasets add up."""


def count_images(tables: Mapping[str, pa.Table]) -> int:
    """Count the images of a shard."""
    return sum(histogram(tables["box_histograms"], "images", IMAGE_LABEL).values()) if "box_histograms" in tables else 0


STAGE = Stage("describe", algorithm=1, rows_out=count_images, primary=None)


def describe_rows(rows: Sequence[dict[str, Any]], extract: StageFolder) -> dict[str, pa.Table]:
    """Return the counts of the images of one shard of `extract`."""
    files = rows[0]["files"]
    boxes, extracts = (
        extract.read_files(name, [files[name]] if name in files else []) for name in ("boxes", "extraction_log")
    )
    return {"box_histograms": count_shapes(rows, boxes, extracts)}


def run(context: Context, config: DescribeConfig) -> Outcome:
    """Describe the boxes of all datasets of the work folder."""
    index, extract, folder = (context.folder(name) for name in ("index", "extract", STAGE.name))
    with locked(folder.path, reads=[index.path, extract.path]):
        manifest = require_up_to_date(index, extract)
        shards = _plan_shards(index, extract, manifest)
        settings = {"describe": config.model_dump(), "extract": manifest.digest}
        last = Shard("all", 0, json_digest([[shard.digest for shard in shards], manifest.digest]))
        findings = ReduceTask(last, partial(_findings_table, folder, index, extract, manifest))
        draw = partial(_draw_figures, folder)
        outcome = run_stage(
            STAGE,
            context,
            StagePlan(shards, partial(describe_rows, extract=extract), settings, reduce=findings, draw_pictures=draw),
        )
        _log_summary(context, folder)
        return outcome


def load_shapes(folder: StageFolder, extract: Manifest) -> pa.Table:
    """Return the counts of the whole, or say that they are older than the boxes."""
    manifest = folder.manifest()
    if manifest is None or manifest.settings.get("extract") != extract.digest:
        raise FacadeError(f"{folder.path} is older than the boxes or absent; run `facade describe` first.")
    return _read_shapes(folder, manifest.receipts)


def _plan_shards(index: StageFolder, extract: StageFolder, manifest: Manifest) -> list[Shard]:
    """Return a shard for each of `extract`'s: the images that it read, and its files."""
    images = {row["image_id"]: row for row in index.read("images", columns=list(IMAGE_COLUMNS)).to_pylist()}
    shards = []
    for receipt in manifest.receipts:
        if "extraction_log" in receipt.tables:
            read = extract.read_files("extraction_log", [receipt.tables["extraction_log"]], ["image_id"])[
                "image_id"
            ].to_pylist()
            rows = [{**images[image], "files": receipt.tables} for image in read]
            contents = [receipt.tables[name].content for name in sorted(receipt.tables)]
            decided = [STAGE.algorithm, contents, [[row[key] for key in IMAGE_COLUMNS] for row in rows]]
            shards.append(Shard(receipt.dataset, receipt.ordinal, json_digest(decided), rows))
    return shards


def _findings_table(
    folder: StageFolder, index: StageFolder, extract: StageFolder, manifest: Manifest, receipts: Sequence[Receipt]
) -> dict[str, pa.Table]:
    shapes = _read_shapes(folder, receipts)
    return {"findings": table_from_rows("findings", _make_findings(shapes, index, extract, manifest))}


def _read_shapes(folder: StageFolder, receipts: Sequence[Receipt]) -> pa.Table:
    entries = [receipt.tables["box_histograms"] for receipt in receipts if "box_histograms" in receipt.tables]
    return merge_shapes([folder.read_files("box_histograms", entries)])


def _make_findings(
    shapes: pa.Table, index: StageFolder, extract: StageFolder, manifest: Manifest
) -> list[dict[str, Any]]:
    """Make the findings of each dataset."""
    boxes = extract.read("boxes", columns=["image_id", "label", "suspect"])
    boxes = boxes.filter(pc.is_valid(boxes["suspect"]))
    remarks = index.read("warnings")
    rows = []
    for dataset in sorted({receipt.dataset for receipt in manifest.receipts}):
        images = sum(histogram(shapes, "images", IMAGE_LABEL, dataset=dataset).values())
        labels = sorted(set(shapes.filter(pc.equal(shapes["dataset"], dataset))["label"].to_pylist()) - {IMAGE_LABEL})
        for label in labels:
            rows += _class_findings(shapes, boxes, dataset, label)
        unknown = histogram(shapes, "unknown", IMAGE_LABEL, dataset=dataset)
        rows.append(
            _make_finding(
                dataset,
                "unknown",
                IMAGE_LABEL,
                images - unknown.get(0, 0),
                images,
                "images with colours or names that the card does not know",
            )
        )
        for kind in ("duplicate", "stray"):
            own = remarks.filter(pc.and_(pc.equal(remarks["dataset"], dataset), pc.equal(remarks["kind"], kind)))
            example = own["uri"][0].as_py() if len(own) else None
            message = "photos with the same bytes as another" if kind == "duplicate" else "labels without a photo"
            rows.append(_make_finding(dataset, kind, IMAGE_LABEL, len(own), images, message, example))
        rejected = sum(receipt.rejected for receipt in manifest.receipts if receipt.dataset == dataset)
        rows.append(
            _make_finding(
                dataset, "rejected", IMAGE_LABEL, rejected, images + rejected, "images whose labels could not be read"
            )
        )
    return [row for row in rows if row["count"] or row["kind"] == "absent"]


def _class_findings(shapes: pa.Table, flagged_boxes: pa.Table, dataset: str, label: str) -> list[dict[str, Any]]:
    total = sum(histogram(shapes, "boxes", label, dataset=dataset).values())
    if total == 0:
        return [_make_finding(dataset, "absent", label, 0, 1, "a class that the labels should show and never do")]
    rows = []
    for kind, message in FINDING_MESSAGES.items():
        count = sum(histogram(shapes, kind, label, dataset=dataset).values())
        mask = pc.and_(pc.equal(flagged_boxes["suspect"], kind), pc.equal(flagged_boxes["label"], label))
        own = flagged_boxes.filter(pc.and_(mask, pc.starts_with(flagged_boxes["image_id"], f"{dataset}/")))
        rows.append(
            _make_finding(
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


def _make_finding(
    dataset: str, kind: str, label: str, count: int, total: int, message: str, example: str | None = None
) -> dict[str, Any]:
    key = {"dataset": dataset, "kind": kind, "label": label, "message": message, "example": example}
    return {**key, "count": count, "share": count / max(total, 1)}


def _draw_figures(folder: StageFolder, receipts: Sequence[Receipt]) -> list[Path]:
    return draw_shapes(_read_shapes(folder, receipts), folder.path / "figures")


def _log_summary(context: Context, folder: StageFolder) -> None:
    shapes = merge_shapes([folder.read("box_histograms")])
    for label in sorted(set(shapes["label"].to_pylist()) - {IMAGE_LABEL}):
        objects = histogram(shapes, "objects", label)
        images, boxes = sum(objects.values()), sum(histogram(shapes, "boxes", label).values())
        without = objects.get(0, 0) / max(images, 1)
        context.log(
            f"describe: {label}: {boxes:,} in {images:,} images that show it, {without:.0%} of them without any"
        )
    for row in folder.read("findings").to_pylist():
        what = f"{row['label']} {row['message']}".strip()
        share = f" ({row['share']:.1%})" if row["count"] else ""
        example = f", as {row['example']}" if row["example"] else ""
        context.log(f"describe: {row['dataset']}: {row['count']:,} {what}{share}{example}")
    context.log(f"describe: figures in {folder.path / 'figures'}")
