"""The evaluate stage: scores, error analysis, thresholds and suspicious labels of a folder of detections.

Everything that is fitted is fitted on val, and headline figures are of test.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.assets import is_packaged, resolve_bundle
from pipeline.config import RELATIVE_PATH, Settings
from pipeline.errors import FacadeError
from pipeline.execution.runner import Context, Outcome, ReduceTask, Stage, StagePlan, run_stage
from pipeline.execution.sharding import row_counter
from pipeline.models.bundle import trained_on_all_splits
from pipeline.models.operating_point import OPERATING_POINT_FILE, OperatingPoint
from pipeline.models.score_format import format_ap
from pipeline.stages.evaluate.candidate import register_candidate
from pipeline.stages.evaluate.data import images_to_evaluate, load_evaluation_data
from pipeline.stages.evaluate.figures import draw_evaluation
from pipeline.stages.evaluate.scores import ALL, HEADLINE, headline_rows
from pipeline.stages.evaluate.tables import FIT_SPLIT, Evaluation, evaluate_images
from pipeline.stages.extract.upstream import require_up_to_date
from pipeline.storage.files import json_digest, write_bytes
from pipeline.storage.lock import locked
from pipeline.storage.manifest import Receipt, Shard
from pipeline.storage.stage_folder import StageFolder
from pipeline.tracking.registry import open_store
from pipeline.tracking.run_logger import OFF, open_run
from ssd import bundle_digest
from ssd.bundle import MODEL_FILE

__all__ = ["STAGE", "EvaluateConfig", "run"]

STAGE = Stage("evaluate", algorithm=1, rows_out=row_counter("evaluated_images"), primary=None)
TEST_SPLIT: Final = "test"
SUSPICIOUS_LABELS_FILE: Final = "suspicious_labels.csv"
FINALIZED_FILE: Final = "finalized.json"


class EvaluateConfig(Settings):
    """What to evaluate, and how thoroughly.

    Attributes:
        detections: the folder of `detect` to evaluate; the work folder's own by default.
        bootstrap_samples: drawings of the photos that intervals are counted from; 0 for no intervals.
        previews: so many of the worst photos of each class are drawn, and of the likely wrong labels.
    """

    detections: Annotated[str | None, RELATIVE_PATH] = None
    bootstrap_samples: int = Field(default=1000, ge=0)
    previews: int = Field(default=12, ge=0)


def run(context: Context, config: EvaluateConfig, out: Path | None = None) -> Outcome:
    """Evaluate the detections of the work folder, or those that the settings name.

    With `out`, the tables go there, and the work folder's own evaluation stays.
    """
    index, extract = (context.folder(name) for name in ("index", "extract"))
    folder = replace(context.folder(STAGE.name), custom_path=out)
    detect = _detections_folder(context, config)
    with locked(folder.path, reads=[index.path, extract.path, detect.path]):
        boxes, found = require_up_to_date(index, extract), detect.require_manifest()
        model, classes = str(found.settings.get("model", "")), found.settings.get("classes", ())
        images, strangers, unseen = images_to_evaluate(detect, index, extract)
        kept = config.model_dump(exclude={"detections"})
        decided = [STAGE.algorithm, boxes.digest, found.digest, model, list(classes), kept]
        shard = Shard("all", 0, json_digest([decided, json_digest(images["image_id"].to_pylist())]))
        load = partial(load_evaluation_data, images, detect, extract, classes)
        settings = {"evaluate": config.model_dump(), "extract": boxes.digest, "detect": found.digest, "model": model}
        plan = StagePlan(
            (),
            None,
            settings,
            reduce=ReduceTask(
                shard, lambda _: evaluate_images(load(), model, config.bootstrap_samples), rows=len(images)
            ),
            draw_pictures=partial(_draw_pictures, folder, config.previews, load, model),
            folder=folder,
        )
        outcome = run_stage(STAGE, context, plan)
        if strangers:
            context.log(f"evaluate: {strangers:,} photos of {detect.path} have no ground truth and were skipped")
        if unseen:
            context.log(
                f"evaluate: {unseen:,} labelled photos have no detections (rejected, or not detected on); "
                "they were not evaluated"
            )
        _finalize(context, folder, outcome, load, _ModelSource(model, str(found.settings.get("bundle") or "")))
        _log_summary(context, folder)
        return outcome


@dataclass(frozen=True)
class _ModelSource:
    """The model that found: its digest, and where its bundle lay then."""

    digest: str
    path: str

    @property
    def is_packaged(self) -> bool:
        """Whether the bundle is the one installed with the package."""
        return is_packaged(resolve_bundle(self.path))

    @property
    def bundle(self) -> Path | None:
        """The bundle, if it is still there and may be written to."""
        place = Path(self.path)
        there = not self.is_packaged and (place / MODEL_FILE).is_file()
        return place if there and bundle_digest(place) == self.digest else None


def _detections_folder(context: Context, config: EvaluateConfig) -> StageFolder:
    place = Path(config.detections).absolute() if config.detections else None
    folder = StageFolder(context.work, "detect", context.disk_retry_seconds, place)
    if folder.manifest() is None:
        out = f" --out {place}" if place else ""
        raise FacadeError(f"{folder.path} has no finished detections; run `facade detect {context.work}{out}` first.")
    return folder


def _finalize(context: Context, folder: StageFolder, outcome: Outcome, load: Any, model: _ModelSource) -> None:
    """Write what other programs read, tell MLflow, and note last that it is done: killed, it is done again."""
    bundle, marker = model.bundle, folder.path / FINALIZED_FILE
    store = context.tracking or os.environ.get("MLFLOW_TRACKING_URI", "")
    note = json.dumps({"digest": outcome.digest, "tracking": store, "bundle": bundle and str(bundle)}).encode()
    files = [folder.path / OPERATING_POINT_FILE, folder.path / SUSPICIOUS_LABELS_FILE]
    if bundle:
        files.append(bundle / OPERATING_POINT_FILE)
    if marker.is_file() and marker.read_bytes() == note and all(path.is_file() for path in files):
        return
    point = Evaluation(load(), model.digest, 0).operating_point
    write_bytes(files[0], point.to_json(), context.disk_retry_seconds)
    write_bytes(files[1], _to_csv(folder.read("suspicious_labels")), context.disk_retry_seconds)
    if model.is_packaged:
        context.log("evaluate: the default model keeps its thresholds; copy its folder to fit them")
    elif bundle is None and model.path:
        context.log(f"evaluate: no bundle at {model.path} any more; thresholds and model version are not written")
    if bundle:
        _publish_operating_point(context, folder, outcome, point, bundle)
    write_bytes(marker, note, context.disk_retry_seconds)


def _publish_operating_point(
    context: Context, folder: StageFolder, outcome: Outcome, point: OperatingPoint, bundle: Path
) -> None:
    """Give the operating point to the bundle, and the figures to MLflow."""
    if (
        point.split == FIT_SPLIT or not (bundle / OPERATING_POINT_FILE).is_file()
    ):  # one that is fitted on val is not given up
        write_bytes(bundle / OPERATING_POINT_FILE, point.to_json(), context.disk_retry_seconds)
    if context.tracking == OFF:
        return
    trained = json.loads((bundle / MODEL_FILE).read_bytes()).get("trained", {})
    _log_to_training_run(context, folder, bundle, trained.get("run_id") or "", outcome)
    if trained_on_all_splits(trained):
        context.log(f"evaluate: {bundle} was trained on all splits, including these photos: the metrics are optimistic")
    else:
        register_candidate(context.tracking, bundle, folder, context.log)


def _log_to_training_run(
    context: Context, folder: StageFolder, bundle: Path, training_run_id: str, outcome: Outcome
) -> None:
    store = open_store(context.tracking)
    known: list[str | None] = [
        run_id for run_id in (outcome.run_id or "", training_run_id) if store.run(run_id) is not None
    ]
    scores, files = folder.read("scores").to_pylist(), _artifacts(folder)
    for run_id in known or [None]:
        with open_run(STAGE.name, context.tracking, context.parent_run(), resume_id=run_id) as tracked:
            tracked.log(_metrics(scores), {"evaluated": outcome.digest})
            tracked.log_files(files)
    if training_run_id in known:
        store.add_to_model(training_run_id, bundle / OPERATING_POINT_FILE)


def _artifacts(folder: StageFolder) -> list[Path]:
    manifest = folder.require_manifest()
    names = ("evaluated_images", "detection_matches", "ground_truths", "scores")
    return [folder.path / entry.file for name in names for entry in manifest.files(name)]


def _metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the scores over all datasets as MLflow's metrics: SPLIT.PROTOCOL, SPLIT.PROTOCOL.CLASS, and intervals."""
    metrics = {}
    for row in rows:
        if (row["dataset"], row["part"]) == (ALL, ALL):
            name = ".".join(part for part in (row["split"], row["protocol"], row["label"]) if part)
            for suffix, key in (("", "value"), (".low", "low"), (".high", "high")):
                if row[key] is not None and np.isfinite(row[key]):
                    metrics[f"{name}{suffix}"] = float(row[key])
    return metrics


def _to_csv(table: pa.Table) -> bytes:
    """Return suspects as a file to go through and to give to `extract`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(table.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return buffer.getvalue().encode()


def _draw_pictures(
    folder: StageFolder, max_photos: int, load: Any, model: str, receipts: Sequence[Receipt]
) -> list[Path]:
    tables = {
        name: folder.read_files(name, [one.tables[name] for one in receipts if name in one.tables])
        for name in PICTURE_TABLES
    }
    return draw_evaluation(Evaluation(load(), model, 0), tables, folder.path, max_photos)


PICTURE_TABLES: Final = ("scores", "curves", "error_breakdown", "evaluated_images", "suspicious_labels")


def _log_summary(context: Context, folder: StageFolder) -> None:
    scores = folder.read("scores").to_pylist()
    splits = sorted({row["split"] for row in scores})
    if not splits:
        context.log("evaluate: these photos have no ground-truth boxes, so there are no metrics")
        return
    for split in splits:
        for protocol, title in ((HEADLINE, "VOC mAP at IoU .5"), ("voc11_75", "at .75"), ("coco_100", "COCO mAP")):
            rows = headline_rows(scores, split, protocol)
            parts = [
                f"{label or 'mean'} {format_ap(row['value'], row['low'], row['high'])}" for label, row in rows.items()
            ]
            context.log(f"evaluate: {split}: {title}: {', '.join(parts)}")
    shown = TEST_SPLIT if TEST_SPLIT in splits else splits[-1]
    counting = {
        (row["label"], row["protocol"]): row["value"]
        for row in scores
        if row["split"] == shown and row["protocol"].startswith("count_")
    }
    labels = sorted({label for label, _ in counting})
    chosen, threshold = (
        {label: counting[label, f"count_error_{name}"] for label in labels} for name in ("selected", "threshold")
    )
    parts = [f"{label or 'mean'} {chosen[label]:.2f} ({threshold[label]:.2f})" for label in labels]
    if parts:
        context.log(f"evaluate: {shown}: mean absolute count error per photo (by one threshold): {', '.join(parts)}")
    suspects_found = len(folder.read("suspicious_labels", columns=["rank"]))
    context.log(f"evaluate: {suspects_found:,} suspicious labels written to {folder.path / SUSPICIOUS_LABELS_FILE}")
    fitted = json.loads((folder.path / OPERATING_POINT_FILE).read_bytes())["split"]
    beware = (
        ""
        if fitted == FIT_SPLIT
        else f"; fitted on {fitted} because no val photos were evaluated: metrics at these thresholds are optimistic"
    )
    context.log(f"evaluate: thresholds and calibration written to {folder.path / OPERATING_POINT_FILE}{beware}")
