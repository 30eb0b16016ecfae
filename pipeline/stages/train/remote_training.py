"""Training on another machine, one that has only `ssd`: the task goes there in a folder, and the run comes back."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from pipeline.errors import FacadeError, UsageError
from pipeline.execution.runner import Context, Outcome
from pipeline.models.bundle import open_bundle
from pipeline.stages.train.config import TrainConfig
from pipeline.stages.train.data import PhotoCache
from pipeline.stages.train.plan import make_plan
from pipeline.stages.train.stage import (
    NAME,
    SETTINGS_FILE,
    build_task,
    finalize,
    make_outcome,
    run_outcome,
    update_latest_link,
    write_json,
)
from pipeline.storage.lock import locked
from pipeline.tracking.run_logger import open_run
from ssd import Bundle, read_history, save_bundle, save_task
from ssd.training.loop import BUNDLE, HISTORY_FILE

__all__ = ["export_task", "import_remote_run"]


def export_task(context: Context, config: TrainConfig, out: Path) -> Outcome:
    """Write a training task into a folder, for `python -m ssd.training` on another machine."""
    started, plan = time.monotonic(), make_plan(context, config)
    with locked(context.folder(NAME).path):
        task, rejected = build_task(context, plan, PhotoCache(config.max_side), {})
    try:
        save_task(out, task)
    except FileExistsError as error:
        raise UsageError(f"--export-task: {error}") from None
    size = sum(path.stat().st_size for path in out.iterdir())
    context.log(f"train: {out} has {size / 2**20:.0f} MiB; where it goes: python -m ssd.training {out} OUT")
    outputs = {"task": str(out), "bytes": size}
    return make_outcome(
        started, len(plan.training_rows.rows), rejected, outputs=outputs, digest=task.digest, changed=True
    )


def import_remote_run(context: Context, source: Path) -> Outcome:
    """Import a run that `python -m ssd.training` finished on another machine into the work folder."""
    started, folder = time.monotonic(), context.folder(NAME).path
    finished = read_history(source)
    if finished is None:
        raise FacadeError(
            f"{source} has no finished run: no {HISTORY_FILE} with its {BUNDLE}, as `python -m ssd.training DIR OUT` "
            "leaves them."
        )
    bundle = open_bundle(source / BUNDLE)
    name, rows = str(bundle.trained.get("name", "")), sum(bundle.trained.get("data", {}).get("photos", {}).values())
    if not name or Path(name).name != name or name.startswith("."):
        raise FacadeError(
            f"{source}: its bundle names no run of `facade train --export-task`; train a prepared folder."
        )
    with locked(folder):
        out = folder / name
        if (known := read_history(out)) is not None and known.rows == finished.rows:
            update_latest_link(folder, name)
            return run_outcome(out, known, started, rows)
        with open_run(NAME, context.tracking, context.parent_run()) as tracked:
            tracked.log_settings({key: bundle.trained[key] for key in ("train", "priors", "data")})
            tracked.log_series(finished.rows)
            own = Bundle(bundle.model, bundle.decode, {**bundle.trained, "run_id": tracked.run_id})
            out.mkdir(parents=True, exist_ok=True)
            finished = replace(finished, digest=save_bundle(out / BUNDLE, own))
            write_json(out / HISTORY_FILE, vars(finished), context)
            finalize(context, tracked, out, finished)
            write_json(out / SETTINGS_FILE, {"run_id": tracked.run_id, "concluded": True}, context)
        return replace(run_outcome(out, finished, started, rows, 0, tracked.run_id), changed=True)
