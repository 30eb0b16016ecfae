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
from pipeline.execution.parallel import Workers
from pipeline.execution.runner import Context, Outcome, Plan, Stage, run_stage, work_shards
from pipeline.stages.detect.config import DONE, NAME, DetectConfig
from pipeline.stages.detect.inference import bundle_finder, find_rows, given_up
from pipeline.stages.detect.job import Job, photo_rows
from pipeline.stages.detect.plan import PLAN, Archive, Planned, PlannedShard
from pipeline.stages.detect.previews import draw_found
from pipeline.stages.detect.retry import Redone
from pipeline.stages.detect.summary import is_summarised, json_lines, write_summary
from pipeline.storage.files import is_remote, json_digest, write_bytes
from pipeline.storage.lock import locked
from pipeline.storage.manifest import Shard
from pipeline.storage.stage_folder import StageFolder

__all__ = ["ABOUT", "STAGE", "plan", "preview", "run", "workers_for"]

ABOUT: Final = "_detect.json"
DATASET: Final = "photos"
RUNNING: Final = "_running"
# Shards that a scheduler's task is given at least, and tasks that it is given at most.
GROUP, GROUPS = 8, 64
DRAWN: Final = 12  # photos of a work folder


def _rows_done(tables: Mapping[str, Any]) -> int:
    return tables["photos"]["status"].to_pylist().count(DONE) if "photos" in tables else 0


STAGE: Final = Stage(NAME, algorithm=1, rows_out=_rows_done, primary=None, long=True, given_up=given_up)


def run(context: Context, config: DetectConfig, job: Job | None = None) -> Outcome:
    """Return what became of an archive, or of the shards of it that the job names.

    Without a job, the model that was trained last finds in the work folder's own photos that it has not learnt from.
    """
    job = job or _own(context)
    context = replace(context, workers=workers_for(context.workers, config.device))
    if job.shards is not None:
        return _some(context, config, job, job.shards)
    started = time.monotonic()
    with _opened(context, config, job) as folder:
        planned = _take_in(context, folder, job, config.datasets)
        listed = time.monotonic() - started
        shards = Archive(folder.path).shards()
        outcome = run_stage(STAGE, context, _work(folder, config, job, shards))
        outcome = replace(outcome, added=planned.new, removed=planned.gone, modified=planned.changed)
        if outcome.changed or not is_summarised(folder, outcome):
            write_summary(folder, outcome, job, listed)
        if job.drawings:
            paths = draw_found(folder, job.drawings, job.truth)
            context.say(f"detect: {len(paths)} pictures in {paths[0].parent}" if paths else "detect: nothing to draw")
        return outcome


def _own(context: Context) -> Job:
    finder = bundle_finder(context.folder("train").path / "latest" / "bundle", chooses=False)
    return Job(str(context.work), finder, context.folder(NAME).path, drawings=DRAWN, anew=True)


def workers_for(workers: Workers, device: str) -> Workers:
    """Return the workers, one for each GPU of this machine unless it is said how many.

    A GPU has two shards at once: in the time of one, half of which is its first photos and its tables, it would idle.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = glob("/dev/nvidia[0-9]*") if chosen is None else [name for name in chosen.split(",") if name.strip()]
    gpus = len(there) if device != "cpu" and workers.scheduler is None else 0
    return replace(workers, count=gpus if workers.count is None else workers.count, threads=2) if gpus else workers


def plan(context: Context, config: DetectConfig, job: Job) -> dict[str, Any]:
    """Write the plan, and return the groups of shards that a scheduler may give to `--shards`, one a task."""
    started = time.monotonic()
    with _opened(context, config, job) as folder:
        planned = _take_in(context, folder, job, config.datasets)
        shards = Archive(folder.path).shards()
    size = max(GROUP, -(-len(shards) // GROUPS))
    groups = [f"{begin}:{min(begin + size, len(shards))}" for begin in range(0, len(shards), size)]
    return _planned_line(planned, sum(len(shard.rows) for shard in shards), started) | {
        "changed": bool(planned.new or planned.changed),
        "outputs": {"plan": len(shards)},
        "groups": groups,
        "bundle": job.finder.path,
    }


def preview(context: Context, config: DetectConfig, job: Job) -> dict[str, Any]:
    """Return what the job would do, and do nothing."""
    started, folder = time.monotonic(), _folder(context, job)
    _agree(folder, config, job, write=False)
    with TemporaryDirectory() as elsewhere:
        progress = context.progress("detect: listing", None)
        planned = Archive(folder.path).compare(photo_rows(job, config.datasets), job.limit, Path(elsewhere), progress)
    known = sum(len(shard.rows) for shard in Archive(folder.path).shards())
    context.say(
        f"detect: would find in {known + planned.new:,} photos of {job.source}: {planned.new:,} are new, "
        f"{planned.changed:,} have changed, {known - planned.changed:,} are planned or done; nothing was written"
    )
    return _planned_line(planned, known + planned.new, started) | {"changed": False, "outputs": {}}


def _planned_line(planned: Planned, photos: int, started: float) -> dict[str, Any]:
    counts = {"rows_in": photos, "rows_out": 0, "rejected": 0, "seconds": round(time.monotonic() - started, 3)}
    changes = {"added": planned.new, "removed": planned.gone, "modified": planned.changed}
    return {"stage": NAME, **counts, **changes}


@contextmanager
def _opened(context: Context, config: DetectConfig, job: Job) -> Iterator[StageFolder]:
    """Hold the folder of results, made sure that it is this job's."""
    folder = _folder(context, job)
    with locked(folder.path, reads=[one.path for one in (job.indexed, job.truth) if one]):
        _agree(folder, config, job)
        yield folder


def _folder(context: Context, job: Job) -> StageFolder:
    return StageFolder(context.work, NAME, context.patience, job.out)


def _agree(folder: StageFolder, config: DetectConfig, job: Job, write: bool = True) -> None:
    """Stop if the folder has results of another source, another model or other settings."""
    source = job.source if is_remote(job.source) else str(Path(job.source).absolute())
    part = {"split": job.split, "datasets": sorted(config.datasets)} if job.indexed else {}
    ours = {"source": source, **part, "model": job.finder.digest, "operating": job.finder.operating}
    ours |= {f"detect.{key}": value for key, value in config.decisive().items()}
    path = folder.path / ABOUT
    if not path.exists():
        if folder.manifest() is not None:
            raise FacadeError(f"{folder.path} has tables, but no {ABOUT} that tells what of; give another --out.")
        if write:
            write_bytes(path, json_lines(ours), folder.patience)
        return
    try:
        theirs = dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        raise FacadeError(f"{path} is damaged; give another --out.") from None
    other = [key for key in ours if theirs.get(key) != ours[key]]
    if other and job.anew:
        shutil.rmtree(folder.path / PLAN, ignore_errors=True)
        write_bytes(path, json_lines(ours), folder.patience)
    elif other:
        told = ", ".join(f"{key} {_short(theirs.get(key))}, not {_short(ours[key])}" for key in other)
        raise FacadeError(f"{folder.path} has results of {told}; give another --out, or what it was begun with.")


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def _take_in(context: Context, folder: StageFolder, job: Job, datasets: Sequence[str]) -> Planned:
    """List the source into the plan."""
    archive = Archive(folder.path, folder.patience)
    planned = archive.update(photo_rows(job, datasets), job.limit, context.progress("detect: listing", None))
    if planned.gone and job.indexed:  # photos that left the split, or the index, have no place in what is judged by it
        shutil.rmtree(archive.path)
        again = archive.update(photo_rows(job, datasets), job.limit, context.progress("detect: listing", None))
        planned = replace(planned, changed=again.changed)
    shards = archive.shards()
    if not shards:
        raise FacadeError(f"{job.source} has no photos; name a folder, pattern or list of some, or another --split.")
    gone = f", {planned.gone:,} of them no longer listed" if planned.gone else ""
    changed = f", {planned.changed:,} changed" if planned.changed else ""
    count = sum(len(shard.rows) for shard in shards)
    context.say(f"detect: {count:,} photos in {len(shards):,} shards, {planned.new:,} new{changed}{gone}")
    return planned


def _work(folder: StageFolder, config: DetectConfig, job: Job, planned: Sequence[PlannedShard]) -> Plan:
    """Return the plan of the stage; with `retry`, shards with rejected photos are done again, those photos alone."""
    of = {"algorithm": STAGE.algorithm, "model": job.finder.digest, "settings": config.decisive()}
    of |= {"operating": job.finder.operating} if job.finder.operating else {}
    shards = [Shard(DATASET, one.ordinal, json_digest({**of, "rows": one.digest}), one.rows) for one in planned]
    finished = folder.finished(passing=True).items()
    receipts = {key: one for key, one in finished if one.passing or (job.retry and one.rejected)}
    again = frozenset(receipts)
    shards = [
        replace(shard, rows=Redone(shard.rows, folder, receipts[shard.key])) if shard.key in again else shard
        for shard in shards
    ]
    return Plan(
        shards,
        partial(find_rows, finder=job.finder, config=config),
        {"detect": config.model_dump(), "source": job.source, "model": job.finder.digest, "bundle": job.finder.path}
        | {"classes": list(job.finder.classes)},
        folder=folder,
        again=again,
    )


def _some(context: Context, config: DetectConfig, job: Job, span: tuple[int, int]) -> Outcome:
    """Return what became of some shards of a plan that lies there, while others may be worked on elsewhere."""
    folder = _folder(context, job)
    if not (folder.path / ABOUT).exists():
        raise FacadeError(f"{folder.path} has no plan; run the same command with --plan in place of --shards first.")
    with locked(folder.path / RUNNING / "{}-{}".format(*span), reads=[folder.path]):
        _agree(folder, config, job)
        shards = Archive(folder.path).shards()
        if not 0 <= span[0] < span[1] <= len(shards):
            raise UsageError(f"--shards {span[0]}:{span[1]} is not within the plan, which has 0:{len(shards)}.")
        return work_shards(STAGE, context, _work(folder, config, job, shards[slice(*span)]))
