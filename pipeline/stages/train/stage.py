"""`train`: boxes and photos become a detector, in a bundle; a run that is stopped is gone on with."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pipeline.errors import FacadeError
from pipeline.execution.runner import Context, Outcome
from pipeline.imaging.drawing import contact_sheet, draw_boxes, save_picture
from pipeline.models.bundle import LATEST_LINK, translate_errors
from pipeline.stages.train.config import TrainConfig
from pipeline.stages.train.data import SPLITS, PhotoCache
from pipeline.stages.train.figures import draw_mosaic, draw_training
from pipeline.stages.train.initial_weights import load_initial_weights
from pipeline.stages.train.plan import TrainingPlan, make_plan
from pipeline.storage.files import write_bytes
from pipeline.storage.lock import locked
from pipeline.storage.schemas import table_from_rows
from pipeline.tracking.run_logger import RunLogger, open_run
from ssd import (
    Detector,
    DivergedError,
    TrainingCallbacks,
    TrainingResult,
    TrainingRun,
    TrainingTask,
    augment,
    load_bundle,
    read_history,
)
from ssd.device import resolve_device
from ssd.training.loop import BUNDLE, CHECKPOINT

__all__ = [
    "NAME",
    "SETTINGS_FILE",
    "build_task",
    "finalize",
    "make_outcome",
    "run",
    "run_outcome",
    "update_latest_link",
    "write_json",
]

NAME: Final = "train"
SETTINGS_FILE: Final = "settings.json"
MOSAIC_PHOTOS: Final = 16
# Photos drawn with what is found there, above which score.
PREVIEW_COUNT: Final = 12
PREVIEW_MIN_SCORE: Final = 0.3


def run(context: Context, config: TrainConfig, resume: bool = False, photo_cache: PhotoCache | None = None) -> Outcome:
    """Train a model on the photos of the work folder.

    An interrupted run resumes with the same settings; `resume` continues the last interrupted one,
    whatever the settings. `photo_cache` are those that an earlier run has decoded.
    """
    started, folder = time.monotonic(), context.folder(NAME).path
    reads = [context.folder(stage).path for stage in ("index", "extract", "priors")]
    with locked(folder, reads=reads):
        config = _load_stopped_config(folder, config) if resume else config
        plan = make_plan(context, config)
        out, rows = folder / plan.name, len(plan.training_rows.rows)
        kept, finished = _read_settings(out), read_history(out)
        rejected = int(kept.get("rejected", 0))
        if finished is not None and kept.get("concluded"):
            update_latest_link(folder, plan.name)
            return run_outcome(out, finished, started, rows, rejected, kept.get("run_id"))
        with open_run(NAME, context.tracking, context.parent_run(), resume_id=kept.get("run_id")) as tracked:
            kept |= {"config": config.model_dump(), "run_id": tracked.run_id}
            write_json(out / SETTINGS_FILE, kept, context)
            tracked.log_settings({**plan.settings(), "device": str(resolve_device(config.device))})
            if finished is None:
                task, rejected = build_task(
                    context, plan, photo_cache or PhotoCache(config.max_side), {"run_id": tracked.run_id}
                )
                kept |= {"rejected": rejected}
                write_json(out / SETTINGS_FILE, kept, context)
                tracked.log_files(_draw_mosaic(task, out))
                finished = _train(context, config, task, out, tracked)
                tracked.log_files(_draw_detections(task, out))
            finalize(context, tracked, out, finished)
            write_json(out / SETTINGS_FILE, {**kept, "concluded": True}, context)
        return replace(run_outcome(out, finished, started, rows, rejected, tracked.run_id), changed=True)


def build_task(
    context: Context, plan: TrainingPlan, photo_cache: PhotoCache, metadata: Mapping[str, Any]
) -> tuple[TrainingTask, int]:
    """Return the task of a plan, its photos decoded, and how many of them were rejected."""
    start, source, notes = load_initial_weights(plan.init_weights, plan.model, plan.ssd_config.seed)
    for note in notes:
        context.log(f"train: {note.rstrip('.')}")
    rows = plan.training_rows.rows
    rejected = photo_cache.load(rows, context.make_progress("train: decoding photos", len(rows)))
    _check_rejected(context, rejected, len(rows), context.folder(NAME).path / plan.name)
    train, val, test = (photo_cache.make_dataset(plan.training_rows, split) for split in SPLITS)
    if train is None:
        raise FacadeError("train: no photo of the train split could be decoded; see the rejected ones.")
    metadata = {**plan.settings(), "name": plan.name, "init_weights": source, **metadata}
    return TrainingTask(plan.model, plan.ssd_config, train, val, test, start, metadata=metadata), len(rejected)


def _check_rejected(context: Context, rejected: Sequence[dict[str, Any]], count: int, out: Path) -> None:
    """Keep the `rejected` rows, and stop above the share that is allowed."""
    path = out / "rejected.parquet"
    path.unlink(missing_ok=True)
    if not rejected:
        return
    buffer = io.BytesIO()
    pq.write_table(table_from_rows("rejected", rejected), buffer)
    write_bytes(path, buffer.getvalue(), context.disk_retry_seconds)
    first = f"{rejected[0]['image_id']}: {rejected[0]['message']}"
    context.log(f"train: {len(rejected)} of {count} photos were rejected, the first is {first}; all are in {path}")
    if len(rejected) > context.max_rejected * count:
        share = f"{len(rejected) / count:.1%}, allowed are {context.max_rejected:.1%}"
        raise FacadeError(
            f"train: {len(rejected)} of {count} photos were rejected ({share}), as {first}; fix them or raise "
            "--max-rejected."
        )


def _train(
    context: Context, config: TrainConfig, task: TrainingTask, out: Path, run_logger: RunLogger
) -> TrainingResult:
    """Run a training task, with a progress bar and one MLflow entry per epoch."""
    learning = task.config
    steps = max(len(task.train) // learning.batch, 1) * learning.epochs
    progress = context.make_progress(NAME, steps * learning.batch)

    untold: list[Mapping[str, float]] = []

    def epoch(row: Mapping[str, float]) -> None:
        untold.append(row)
        try:
            run_logger.log_series(untold)
            untold.clear()
        except FacadeError as error:  # no reason to lose hours of training
            context.log(f"train: {error} Training continues; will retry with the next epoch.")
        if "val.loss" in row or task.val is None:
            context.log(_epoch_line(row, learning.epochs))

    watch = TrainingCallbacks(progress.advance, epoch, lambda sentence: context.log(f"train: {sentence}"))
    try:
        with translate_errors(NAME):
            course = TrainingRun(
                task, out, config.device, 60 * config.checkpoint_minutes, context.disk_retry_seconds, watch
            )
            progress.done = course.trainer.progress.step * learning.batch
            finished = course.run()
    except DivergedError as error:
        raise FacadeError(f"{error} The last checkpoint stays in {out / CHECKPOINT}.") from error
    run_logger.log_series(untold)
    return finished


def finalize(context: Context, run_logger: RunLogger, out: Path, result: TrainingResult) -> None:
    """Hand figures, scores and the bundle of a finished run to MLflow, make it the latest, and tell of it."""
    scores = {f"best.val.{name}": value for name, value in result.val.items()}
    scores |= {f"test.{name}": value for name, value in result.test.items()}
    versions = {f"version.{name}": version(name) for name in ("torch", "torchvision")}
    run_logger.log({"best.epoch": float(result.best), **scores}, {"digest": result.digest, **versions})
    run_logger.log_files(draw_training(result.rows, result.best, out / "figures"))
    run_logger.log_bundle(out / BUNDLE)
    update_latest_link(out.parent, out.name)
    _log_summary(context, out, result)


def _draw_mosaic(task: TrainingTask, out: Path) -> list[Path]:
    """Return the picture of the photos as the first steps may show them."""
    count = min(MOSAIC_PHOTOS, len(task.train))
    generator = np.random.default_rng(task.config.seed)
    chosen = generator.permutation(len(task.train))[:count]
    photos, targets = [task.train.photos[row] for row in chosen], [task.train.targets[row] for row in chosen]
    inputs, shown = augment(photos, targets, task.config.augmentation, task.model.priors.input_size, generator)
    return [draw_mosaic(inputs, shown, task.model.classes, out / "figures" / "augmented.png")]


def _draw_detections(task: TrainingTask, out: Path) -> list[Path]:
    """Return the contact sheet of detections in held-out photos, if there are any."""
    examples = task.test or task.val
    if examples is None:
        return []
    bundle, photos = load_bundle(out / BUNDLE), []
    spread = np.linspace(0, len(examples) - 1, min(PREVIEW_COUNT, len(examples))).round().astype(int)
    for row, found in zip(spread, Detector(bundle)([examples.photos[row] for row in spread]), strict=True):
        sure = zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
        boxes = [
            {"label": task.model.classes[label - 1], **dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))}
            for box, label, score in sure
            if score >= PREVIEW_MIN_SCORE
        ]
        photo = Image.fromarray(examples.photos[row].permute(1, 2, 0).contiguous().numpy())
        photos.append((examples.names[row], draw_boxes(photo, boxes)))
    return [save_picture(contact_sheet(photos), out / "figures" / "found.jpg")]


def _load_stopped_config(folder: Path, config: TrainConfig) -> TrainConfig:
    """Return the settings of the last run that was stopped, on the device that is asked for now."""
    found = [path for path in folder.glob(f"*/{SETTINGS_FILE}") if not _read_settings(path.parent).get("concluded")]
    if not found:
        raise FacadeError(f"{folder} has no run that was stopped; start one without --resume.")
    latest = max(found, key=lambda path: path.stat().st_mtime)
    stopped: TrainConfig = TrainConfig.model_validate(_read_settings(latest.parent)["config"])
    changes = {"device": config.device, "checkpoint_minutes": config.checkpoint_minutes}
    resumed: TrainConfig = stopped.model_copy(update=changes)
    return resumed


def _read_settings(out: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads((out / SETTINGS_FILE).read_text(encoding="utf-8"))
        return data
    except (OSError, ValueError):
        return {}


def write_json(path: Path, value: Any, context: Context) -> None:
    """Write a small JSON file atomically."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode(), context.disk_retry_seconds)


def update_latest_link(folder: Path, name: str) -> None:
    """Let WORK/train/latest lead to a run."""
    link = folder / f".{LATEST_LINK}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(name, target_is_directory=True)
    link.replace(folder / LATEST_LINK)


def _epoch_line(row: Mapping[str, float], epochs: int) -> str:
    """Return an epoch as people read it."""
    parts = [f"train: epoch {row['epoch']:.0f} of {epochs}: loss {row['train.loss']:.2f}"]
    if "val.loss" in row:
        parts.append(f"val {row['val.loss']:.2f}")
    if "val.map50" in row:
        parts.append(f"mAP {_format_map(row, 'val.')}")
    return ", ".join([*parts, f"{row['images_per_second']:.1f} photos/s"])


def _format_map(scores: Mapping[str, float], prefix: str) -> str:
    """Return a mean average precision with that of its classes, of a hundred."""
    start = f"{prefix}ap50."
    own = [f"{name.removeprefix(start)} {100 * scores[name]:.1f}" for name in scores if name.startswith(start)]
    return f"{100 * scores[f'{prefix}map50']:.1f} ({', '.join(own)})"


def _log_summary(context: Context, out: Path, result: TrainingResult) -> None:
    context.log(f"train: best epoch: {result.best}")
    if "map50" in result.test:
        context.log(f"train: on test, VOC mAP at IoU .5: {_format_map(result.test, '')}")
        for name in sorted(key.removesuffix(".map50") for key in result.test if key.endswith(".map50")):
            context.log(f"train:   {name}: {_format_map(result.test, f'{name}.')}")
    context.log(f"train: the model is {out / BUNDLE}, its curves are in {out / 'figures'}")


def run_outcome(
    out: Path, result: TrainingResult, started: float, rows: int, rejected: int = 0, run_id: str | None = None
) -> Outcome:
    """Return the line of a run that is finished, as one that changed nothing."""
    scores = {"val_map50": result.val.get("map50"), "test_map50": result.test.get("map50")}
    known = {name: round(value, 4) for name, value in scores.items() if value is not None}
    outputs = {"bundle": str(out / BUNDLE), "epochs": len(result.rows), **known}
    return make_outcome(started, rows, rejected, outputs=outputs, digest=result.digest, run_id=run_id)


def make_outcome(started: float, rows: int, rejected: int, **values: Any) -> Outcome:
    """Make the outcome of this stage, whose rows are photos and which has no tables."""
    seconds = round(time.monotonic() - started, 3)
    return Outcome(stage=NAME, seconds=seconds, rows_in=rows, rows_out=rows - rejected, rejected=rejected, **values)
