"""`evaluate`: what was found beside what is true: how good it is, what goes wrong, and where to draw the line.

Everything that is fitted is fitted on val, and headline figures are of test.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.config import Settings
from pipeline.describe import require_fresh
from pipeline.errors import FacadeError
from pipeline.evaluation import Evaluation, evaluate_images
from pipeline.evaluation_figures import draw_evaluation
from pipeline.files import json_digest, write_bytes
from pipeline.judged import join, judged_images
from pipeline.lock import locked
from pipeline.operating import OPERATING_FILE
from pipeline.parallel import Workers
from pipeline.promotion import register_candidate
from pipeline.rows import rows_of
from pipeline.scoring import ALL, HEADLINE, headline
from pipeline.stage import Context, Outcome, Plan, Stage, run_stage
from pipeline.store import Receipt, Shard, StageFolder
from pipeline.tracking import open_run
from ssd import bundle_digest
from ssd.checkpoint import MODEL_FILE

__all__ = ["STAGE", "EvaluateConfig", "run"]

STAGE = Stage("evaluate", algorithm=1, rows_out=rows_of("judged"), primary=None)
TEST: Final = "test"
SUSPECTS_FILE: Final = "suspects.csv"


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


def run(context: Context, config: EvaluateConfig) -> Outcome:
    """Return what became of the detections of the work folder, or of those that the settings name."""
    index, extract, folder = (context.folder(name) for name in ("index", "extract", STAGE.name))
    detect = _detections(context, config)
    context = replace(context, workers=Workers(count=0))
    with locked(folder.path, reads=[index.path, extract.path, detect.path]):
        boxes, found = require_fresh(index, extract), detect.require_manifest()
        model = str(found.settings.get("model", ""))
        bundle = _bundle(found.settings, model)
        images, strangers = judged_images(detect, index, extract)
        decided = [STAGE.algorithm, boxes.digest, found.digest, model, config.model_dump(exclude={"detections"})]
        rows = [{"image_id": name, "uri": ""} for name in images["image_id"].to_pylist()]
        shard = Shard("all", 0, json_digest([decided, json_digest([row["image_id"] for row in rows])]), rows)
        load = partial(join, images, detect, extract, _classes(bundle))
        settings = {"evaluate": config.model_dump(), "extract": boxes.digest, "detect": found.digest, "model": model}
        plan = Plan(
            [shard],
            lambda _: evaluate_images(load(), model, config.resamples),
            settings,
            draw=partial(_draw, folder, config.drawings, load, model),
        )
        outcome = run_stage(STAGE, context, plan)
        if strangers:
            context.say(f"evaluate: {strangers:,} photos of {detect.path} have no truth here and are left out")
        _conclude(context, folder, outcome, load, model, bundle)
        _tell(context, folder, bundle)
        return outcome


def _detections(context: Context, config: EvaluateConfig) -> StageFolder:
    place = Path(config.detections).absolute() if config.detections else None
    folder = StageFolder(context.work, "detect", context.patience, place)
    if folder.manifest() is None:
        raise FacadeError(f"{folder.path} has no finished detections; run `facade detect {context.work}` first.")
    return folder


def _bundle(settings: Mapping[str, Any], model: str) -> Path | None:
    """Return the bundle that found, if it is still where it was."""
    place = Path(settings.get("bundle") or "")
    return place if (place / MODEL_FILE).is_file() and bundle_digest(place) == model else None


def _classes(bundle: Path | None) -> list[str]:
    if bundle is None:
        return []
    return list(json.loads((bundle / MODEL_FILE).read_bytes())["classes"])


def _conclude(
    context: Context, folder: StageFolder, outcome: Outcome, load: Any, model: str, bundle: Path | None
) -> None:
    """Write what other programs read, beside the tables and beside the bundle, and tell the bundle's training run."""
    place = folder.path / OPERATING_FILE
    if outcome.changed or not place.is_file():
        point = Evaluation(load(), model, 0).point
        write_bytes(place, point.to_json(), context.patience)
        write_bytes(folder.path / SUSPECTS_FILE, _csv(folder.read("suspects")), context.patience)
    beside = bundle / OPERATING_FILE if bundle else None
    if bundle and beside and (not beside.is_file() or beside.read_bytes() != place.read_bytes()):
        write_bytes(beside, place.read_bytes(), context.patience)
    if outcome.changed and bundle:
        _log_beside_training(context, folder, bundle, outcome)
        if _has_learnt_from_all(bundle):
            context.say(
                f"evaluate: {bundle} has learnt from all photos, whatever their split: these figures say little"
            )
        else:
            register_candidate(context.tracking, bundle, folder, context.say)


def _has_learnt_from_all(bundle: Path) -> bool:
    """Return whether nothing was kept back from a training, so that no photo can tell how good it is."""
    trained = json.loads((bundle / MODEL_FILE).read_bytes()).get("trained", {})
    return set(trained.get("data", {}).get("photos", {})) == {"train"}


def _log_beside_training(context: Context, folder: StageFolder, bundle: Path, outcome: Outcome) -> None:
    trained = json.loads((bundle / MODEL_FILE).read_bytes()).get("trained", {}).get("run_id")
    scores, files = folder.read("scores").to_pylist(), _artifacts(folder)
    for run_id in {outcome.run_id, trained} - {None}:
        with open_run(STAGE.name, context.tracking, resumed=run_id) as tracked:
            tracked.log(_metrics(scores), {"evaluated": outcome.digest})
            tracked.log_files(files)


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


def _tell(context: Context, folder: StageFolder, bundle: Path | None) -> None:
    scores = folder.read("scores").to_pylist()
    splits = sorted({row["split"] for row in scores})
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
    if bundle:
        context.say(f"evaluate: thresholds and what scores are worth are in {bundle / OPERATING_FILE}")


def _points(row: Mapping[str, Any]) -> str:
    spread = "" if row["low"] is None else f" ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
    return f"{100 * row['value']:.1f}{spread}"
