"""`evaluate`: what was found beside what is true: how good it is, what goes wrong, and where to draw the line.

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
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.assets import bundle_named, is_shipped
from pipeline.config import Settings
from pipeline.errors import FacadeError
from pipeline.execution.parallel import Workers
from pipeline.execution.runner import Context, Outcome, Plan, Stage, run_stage
from pipeline.execution.sharding import rows_of
from pipeline.models.bundle import has_learnt_from_all
from pipeline.models.operating_point import OPERATING_FILE, OperatingPoint
from pipeline.stages.evaluate.candidate import register_candidate
from pipeline.stages.evaluate.data import join, judged_images
from pipeline.stages.evaluate.figures import draw_evaluation
from pipeline.stages.evaluate.scores import ALL, HEADLINE, headline
from pipeline.stages.evaluate.tables import FIT, Evaluation, evaluate_images
from pipeline.stages.extract.upstream import require_fresh
from pipeline.storage.files import json_digest, write_bytes
from pipeline.storage.lock import locked
from pipeline.storage.manifest import Receipt, Shard
from pipeline.storage.stage_folder import StageFolder
from pipeline.tracking.registry import open_store
from pipeline.tracking.run_logger import OFF, open_run
from ssd import bundle_digest
from ssd.bundle import MODEL_FILE

__all__ = ["STAGE", "EvaluateConfig", "run"]

STAGE = Stage("evaluate", algorithm=1, rows_out=rows_of("judged"), primary=None)
TEST: Final = "test"
SUSPECTS_FILE: Final = "suspects.csv"
CONCLUDED: Final = "_concluded.json"


class EvaluateConfig(Settings):
    """What to judge, and how thoroughly.

    Attributes:
        detections: the folder of `detect` to judge; the work folder's own by default.
        resamples: drawings of the photos that intervals are counted from; 0 for no intervals.
        drawings: so many of the worst photos of each class are drawn, and of the likely wrong labels.
    """

    detections: str | None = None
    resamples: int = Field(default=1000, ge=0)
    drawings: int = Field(default=12, ge=0)


def run(context: Context, config: EvaluateConfig, out: Path | None = None) -> Outcome:
    """Return what became of the detections of the work folder, or of those that the settings name.

    With `out`, the tables go there, and the work folder's own evaluation stays.
    """
    index, extract = (context.folder(name) for name in ("index", "extract"))
    folder = replace(context.folder(STAGE.name), place=out)
    detect = _detections(context, config)
    context = replace(context, workers=Workers(count=0))
    with locked(folder.path, reads=[index.path, extract.path, detect.path]):
        boxes, found = require_fresh(index, extract), detect.require_manifest()
        model, classes = str(found.settings.get("model", "")), found.settings.get("classes", ())
        images, strangers, unseen = judged_images(detect, index, extract)
        kept = config.model_dump(exclude={"detections"})
        decided = [STAGE.algorithm, boxes.digest, found.digest, model, list(classes), kept]
        rows = [{"image_id": name, "uri": ""} for name in images["image_id"].to_pylist()]
        shard = Shard("all", 0, json_digest([decided, json_digest([row["image_id"] for row in rows])]), rows)
        load = partial(join, images, detect, extract, classes)
        settings = {"evaluate": config.model_dump(), "extract": boxes.digest, "detect": found.digest, "model": model}
        plan = Plan(
            [shard],
            lambda _: evaluate_images(load(), model, config.resamples),
            settings,
            draw=partial(_draw, folder, config.drawings, load, model),
            folder=folder,
        )
        outcome = run_stage(STAGE, context, plan)
        if strangers:
            context.say(f"evaluate: {strangers:,} photos of {detect.path} have no truth here and are left out")
        if unseen:
            context.say(f"evaluate: {unseen:,} photos with truth were rejected or not looked at, and are not judged")
        _conclude(context, folder, outcome, load, _Model(model, str(found.settings.get("bundle") or "")))
        _tell(context, folder)
        return outcome


@dataclass(frozen=True)
class _Model:
    """The model that found: its digest, and where its bundle lay then."""

    digest: str
    path: str

    @property
    def shipped(self) -> bool:
        """Whether the bundle came along."""
        return is_shipped(bundle_named(self.path))

    @property
    def bundle(self) -> Path | None:
        """The bundle, if it is still there and may be written to."""
        place = Path(self.path)
        there = not self.shipped and (place / MODEL_FILE).is_file()
        return place if there and bundle_digest(place) == self.digest else None


def _detections(context: Context, config: EvaluateConfig) -> StageFolder:
    place = Path(config.detections).absolute() if config.detections else None
    folder = StageFolder(context.work, "detect", context.patience, place)
    if folder.manifest() is None:
        out = f" --out {place}" if place else ""
        raise FacadeError(f"{folder.path} has no finished detections; run `facade detect {context.work}{out}` first.")
    return folder


def _conclude(context: Context, folder: StageFolder, outcome: Outcome, load: Any, model: _Model) -> None:
    """Write what other programs read, tell MLflow, and note last that it is done: killed, it is done again."""
    bundle, marker = model.bundle, folder.path / CONCLUDED
    store = context.tracking or os.environ.get("MLFLOW_TRACKING_URI", "")
    note = json.dumps({"digest": outcome.digest, "tracking": store, "bundle": bundle and str(bundle)}).encode()
    files = [folder.path / OPERATING_FILE, folder.path / SUSPECTS_FILE]
    if bundle:
        files.append(bundle / OPERATING_FILE)
    if marker.is_file() and marker.read_bytes() == note and all(path.is_file() for path in files):
        return
    point = Evaluation(load(), model.digest, 0).point
    write_bytes(files[0], point.to_json(), context.patience)
    write_bytes(files[1], _csv(folder.read("suspects")), context.patience)
    if model.shipped:
        context.say("evaluate: the model that came along keeps its thresholds; copy its folder for one that does not")
    elif bundle is None and model.path:
        context.say(f"evaluate: the bundle is no longer in {model.path}, and gets neither thresholds nor a version")
    if bundle:
        _hand_over(context, folder, outcome, point, bundle)
    write_bytes(marker, note, context.patience)


def _hand_over(context: Context, folder: StageFolder, outcome: Outcome, point: OperatingPoint, bundle: Path) -> None:
    """Give the operating point to the bundle, and the figures to MLflow."""
    if point.split == FIT or not (bundle / OPERATING_FILE).is_file():  # one that is fitted on val is not given up
        write_bytes(bundle / OPERATING_FILE, point.to_json(), context.patience)
    if context.tracking == OFF:
        return
    trained = json.loads((bundle / MODEL_FILE).read_bytes()).get("trained", {})
    _log_beside_training(context, folder, bundle, trained.get("run_id") or "", outcome)
    if has_learnt_from_all(trained):
        context.say(f"evaluate: {bundle} has learnt from all photos, these among them: the figures say little")
    else:
        register_candidate(context.tracking, bundle, folder, context.say)


def _log_beside_training(context: Context, folder: StageFolder, bundle: Path, trained: str, outcome: Outcome) -> None:
    store = open_store(context.tracking)
    known: list[str | None] = [run_id for run_id in (outcome.run_id or "", trained) if store.run(run_id) is not None]
    scores, files = folder.read("scores").to_pylist(), _artifacts(folder)
    for run_id in known or [None]:
        with open_run(STAGE.name, context.tracking, context.parent(), resumed=run_id) as tracked:
            tracked.log(_metrics(scores), {"evaluated": outcome.digest})
            tracked.log_files(files)
    if trained in known:
        store.add_to_model(trained, bundle / OPERATING_FILE)


def _artifacts(folder: StageFolder) -> list[Path]:
    manifest = folder.require_manifest()
    names = ("judged", "verdicts", "truths", "scores")
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


def _csv(table: pa.Table) -> bytes:
    """Return suspects as a file to go through and to give to `extract`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(table.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return buffer.getvalue().encode()


def _draw(folder: StageFolder, most: int, load: Any, model: str, receipts: Sequence[Receipt]) -> list[Path]:
    tables = {
        name: folder.read_files(name, [one.tables[name] for one in receipts if name in one.tables]) for name in TABLES
    }
    return draw_evaluation(Evaluation(load(), model, 0), tables, folder.path, most)


TABLES: Final = ("scores", "curves", "diagnosis", "judged", "suspects")


def _tell(context: Context, folder: StageFolder) -> None:
    scores = folder.read("scores").to_pylist()
    splits = sorted({row["split"] for row in scores})
    if not splits:
        context.say("evaluate: there is no box to find in these photos, and so there are no figures")
        return
    for split in splits:
        for protocol, title in ((HEADLINE, "VOC mAP at IoU .5"), ("voc11_75", "at .75"), ("coco_100", "COCO mAP")):
            rows = headline(scores, split, protocol)
            told = [f"{label or 'mean'} {_points(row)}" for label, row in rows.items()]
            context.say(f"evaluate: {split}: {title}: {', '.join(told)}")
    shown = TEST if TEST in splits else splits[-1]
    counting = {
        (row["label"], row["protocol"]): row["value"]
        for row in scores
        if row["split"] == shown and row["protocol"].startswith("count_")
    }
    labels = sorted({label for label, _ in counting})
    chosen, threshold = (
        {label: counting[label, f"count_error_{name}"] for label in labels} for name in ("chosen", "threshold")
    )
    told = [f"{label or 'mean'} {chosen[label]:.2f} ({threshold[label]:.2f})" for label in labels]
    if told:
        context.say(f"evaluate: {shown}: objects miscounted in a photo (by one threshold): {', '.join(told)}")
    suspects_found = len(folder.read("suspects", columns=["rank"]))
    context.say(f"evaluate: {suspects_found:,} labels to look at, in {folder.path / SUSPECTS_FILE}")
    fitted = json.loads((folder.path / OPERATING_FILE).read_bytes())["split"]
    beware = (
        "" if fitted == FIT else f", fitted on {fitted}, for none of val was looked at: they say nothing of themselves"
    )
    context.say(f"evaluate: thresholds, and what scores are worth, are in {folder.path / OPERATING_FILE}{beware}")


def _points(row: Mapping[str, Any]) -> str:
    spread = "" if row["low"] is None else f" ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
    return f"{100 * row['value']:.1f}{spread}"
