"""`detect`: a city's photos and a model become tables; whatever happens overnight, no row is lost and none is double.

What is done is decided first: the plan of the archive, the model and the settings lie in the folder of results before
the first photo is opened. Each shard of the plan is done once, wherever and however often the command is started.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pipeline.errors import FacadeError, UsageError
from pipeline.execution.parallel import WorkerConfig
from pipeline.execution.runner import Context, Outcome, Stage, StagePlan, run_shards, run_stage
from pipeline.models.bundle import latest_bundle
from pipeline.stages.detect.config import DONE, NAME, DetectConfig
from pipeline.stages.detect.inference import detect_rows, detector_spec, tables_for_lost_row
from pipeline.stages.detect.job import Job, photo_rows
from pipeline.stages.detect.plan import PLAN_FOLDER, DetectionPlan, PlanChanges, PlannedShard
from pipeline.stages.detect.previews import draw_previews
from pipeline.stages.detect.summary import is_summarised, json_lines, write_summary
from pipeline.storage.files import is_remote, json_digest, write_bytes
from pipeline.storage.lock import locked
from pipeline.storage.manifest import Shard
from pipeline.storage.stage_folder import StageFolder

__all__ = ["JOB_FILE", "STAGE", "dry_run", "gpu_workers", "run", "write_plan"]

JOB_FILE: Final = "job.json"
DATASET: Final = "photos"
RUNNING_FOLDER: Final = "_running"
# Shards that a scheduler's task is given at least, and tasks that it is given at most.
MIN_GROUP_SHARDS, MAX_GROUPS = 8, 64
PREVIEW_COUNT: Final = 12  # photos of a work folder


def _count_done(tables: Mapping[str, Any]) -> int:
    return tables["photos"]["status"].to_pylist().count(DONE) if "photos" in tables else 0


STAGE: Final = Stage(
    NAME, algorithm=1, rows_out=_count_done, primary=None, long=True, tables_for_lost_row=tables_for_lost_row
)


def run(context: Context, config: DetectConfig, job: Job | None = None) -> Outcome:
    """Run the detector over an archive, or over the shards of it that the job names.

    Without a job, the model that was trained last detects in the photos of the work folder that it was not trained on.
    """
    job = job or _default_job(context)
    context = replace(context, workers=gpu_workers(context.workers, config.device))
    if job.shards is not None:
        return _run_shard_range(context, config, job, job.shards)
    started = time.monotonic()
    with _open_results(context, config, job) as folder:
        planned = _update_plan(context, folder, job, config.datasets)
        listed = time.monotonic() - started
        shards = DetectionPlan(folder.path).shards()
        outcome = run_stage(STAGE, context, _stage_plan(folder, config, job, shards))
        outcome = replace(outcome, added=planned.added, removed=planned.removed, modified=planned.modified)
        if outcome.changed or not is_summarised(folder, outcome):
            write_summary(folder, outcome, job, listed)
        if job.previews:
            paths = draw_previews(folder, job.previews, job.ground_truth)
            context.log(f"detect: {len(paths)} pictures in {paths[0].parent}" if paths else "detect: nothing to draw")
        return outcome


def _default_job(context: Context) -> Job:
    finder = detector_spec(latest_bundle(context.work), use_operating_point=False)
    return Job(str(context.work), finder, context.folder(NAME).path, previews=PREVIEW_COUNT, overwrite=True)


def gpu_workers(workers: WorkerConfig, device: str) -> WorkerConfig:
    """Return the workers, one for each GPU of this machine unless it is said how many.

    A GPU has two shards at once: in the time of one, half of which is its first photos and its tables, it would idle.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = glob("/dev/nvidia[0-9]*") if chosen is None else [name for name in chosen.split(",") if name.strip()]
    gpus = len(there) if device != "cpu" and workers.scheduler is None else 0
    return replace(workers, count=gpus if workers.count is None else workers.count, threads=2) if gpus else workers


def write_plan(context: Context, config: DetectConfig, job: Job) -> dict[str, Any]:
    """Write the plan, and return the groups of shards that a scheduler may give to `--shards`, one a task."""
    started = time.monotonic()
    with _open_results(context, config, job) as folder:
        planned = _update_plan(context, folder, job, config.datasets)
        shards = DetectionPlan(folder.path).shards()
    size = max(MIN_GROUP_SHARDS, -(-len(shards) // MAX_GROUPS))
    groups = [f"{begin}:{min(begin + size, len(shards))}" for begin in range(0, len(shards), size)]
    return _changes_json(planned, sum(len(shard.rows) for shard in shards), started) | {
        "changed": bool(planned.added or planned.modified),
        "outputs": {"plan": len(shards)},
        "groups": groups,
        "bundle": job.detector.path,
    }


def dry_run(context: Context, config: DetectConfig, job: Job) -> dict[str, Any]:
    """Report what the job would do, and do nothing."""
    started, folder = time.monotonic(), _results_folder(context, job)
    _check_same_job(folder, config, job, write=False)
    with TemporaryDirectory() as elsewhere:
        progress = context.make_progress("detect: listing", None)
        planned = DetectionPlan(folder.path).compare(
            photo_rows(job, config.datasets), job.limit, Path(elsewhere), progress
        )
    known = sum(len(shard.rows) for shard in DetectionPlan(folder.path).shards())
    context.log(
        f"detect: would find in {known + planned.added:,} photos of {job.source}: {planned.added:,} are new, "
        f"{planned.modified:,} have changed, {known - planned.modified:,} are planned or done; nothing was written"
    )
    return _changes_json(planned, known + planned.added, started) | {"changed": False, "outputs": {}}


def _changes_json(plan_changes: PlanChanges, photos: int, started: float) -> dict[str, Any]:
    counts = {"rows_in": photos, "rows_out": 0, "rejected": 0, "seconds": round(time.monotonic() - started, 3)}
    changes = {"added": plan_changes.added, "removed": plan_changes.removed, "modified": plan_changes.modified}
    return {"stage": NAME, **counts, **changes}


@contextmanager
def _open_results(context: Context, config: DetectConfig, job: Job) -> Iterator[StageFolder]:
    """Hold the folder of results, made sure that it is this job's."""
    folder = _results_folder(context, job)
    with locked(folder.path, reads=[one.path for one in (job.index, job.ground_truth) if one]):
        _check_same_job(folder, config, job)
        yield folder


def _results_folder(context: Context, job: Job) -> StageFolder:
    return StageFolder(context.work, NAME, context.disk_retry_seconds, job.out)


def _check_same_job(folder: StageFolder, config: DetectConfig, job: Job, write: bool = True) -> None:
    """Stop if the folder has results of another source, another model or other settings."""
    source = job.source if is_remote(job.source) else str(Path(job.source).absolute())
    part = {"split": job.split, "datasets": sorted(config.datasets)} if job.index else {}
    ours = {"source": source, **part, "model": job.detector.digest, "operating": job.detector.operating_point_digest}
    ours |= {f"detect.{key}": value for key, value in config.cache_key_fields().items()}
    path = folder.path / JOB_FILE
    if not path.exists():
        if folder.manifest() is not None:
            raise FacadeError(f"{folder.path} has tables, but no {JOB_FILE} that tells what of; give another --out.")
        if write:
            write_bytes(path, json_lines(ours), folder.disk_retry_seconds)
        return
    try:
        theirs = dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        raise FacadeError(f"{path} is corrupt; give another --out.") from None
    other = [key for key in ours if theirs.get(key) != ours[key]]
    if other and job.overwrite:
        shutil.rmtree(folder.path / PLAN_FOLDER, ignore_errors=True)
        write_bytes(path, json_lines(ours), folder.disk_retry_seconds)
    elif other:
        differences = ", ".join(f"{key} {_shorten(theirs.get(key))}, not {_shorten(ours[key])}" for key in other)
        raise FacadeError(f"{folder.path} has results of {differences}; give another --out, or what it was begun with.")


def _shorten(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def _update_plan(context: Context, folder: StageFolder, job: Job, datasets: Sequence[str]) -> PlanChanges:
    """List the source into the plan."""
    archive = DetectionPlan(folder.path, folder.disk_retry_seconds)
    planned = archive.update(photo_rows(job, datasets), job.limit, context.make_progress("detect: listing", None))
    if planned.removed and job.index:  # photos that left the split, or the index, must not be evaluated
        shutil.rmtree(archive.path)
        again = archive.update(photo_rows(job, datasets), job.limit, context.make_progress("detect: listing", None))
        planned = replace(planned, modified=again.modified)
    shards = archive.shards()
    if not shards:
        raise FacadeError(f"{job.source} has no photos; name a folder, pattern or list of some, or another --split.")
    gone = f", {planned.removed:,} of them no longer listed" if planned.removed else ""
    changed = f", {planned.modified:,} changed" if planned.modified else ""
    count = sum(len(shard.rows) for shard in shards)
    context.log(f"detect: {count:,} photos in {len(shards):,} shards, {planned.added:,} new{changed}{gone}")
    return planned


def _stage_plan(
    folder: StageFolder, config: DetectConfig, job: Job, planned_shards: Sequence[PlannedShard]
) -> StagePlan:
    """Plan the shards; with `retry_rejected`, the rejected photos of finished shards are tried again."""
    of = {"algorithm": STAGE.algorithm, "model": job.detector.digest, "settings": config.cache_key_fields()}
    of |= {"operating": job.detector.operating_point_digest} if job.detector.operating_point_digest else {}
    finished = folder.finished_receipts(include_transient=True).items()
    retried = {
        key: receipt for key, receipt in finished if receipt.transient or (job.retry_rejected and receipt.rejected)
    }
    shards = []
    for planned in planned_shards:
        shard = Shard(DATASET, planned.ordinal, json_digest({**of, "rows": planned.digest}), planned.rows)
        shards.append(replace(shard, retry_of=retried.get(shard.key)))
    return StagePlan(
        shards,
        partial(detect_rows, spec=job.detector, config=config),
        {"detect": config.model_dump(), "source": job.source, "model": job.detector.digest, "bundle": job.detector.path}
        | {"classes": list(job.detector.classes)},
        folder=folder,
    )


def _run_shard_range(context: Context, config: DetectConfig, job: Job, shard_range: tuple[int, int]) -> Outcome:
    """Detect in some shards of an existing plan, while others may be worked on elsewhere."""
    folder = _results_folder(context, job)
    if not (folder.path / JOB_FILE).exists():
        raise FacadeError(f"{folder.path} has no plan; run the same command with --plan in place of --shards first.")
    with locked(folder.path / RUNNING_FOLDER / "{}-{}".format(*shard_range), reads=[folder.path]):
        _check_same_job(folder, config, job)
        shards = DetectionPlan(folder.path).shards()
        if not 0 <= shard_range[0] < shard_range[1] <= len(shards):
            raise UsageError(
                f"--shards {shard_range[0]}:{shard_range[1]} is not within the plan, which has 0:{len(shards)}."
            )
        return run_shards(STAGE, context, _stage_plan(folder, config, job, shards[slice(*shard_range)]))
