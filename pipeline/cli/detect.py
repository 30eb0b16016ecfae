"""`facade detect`: a model reads an archive of photos into tables."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.assets import DEFAULT, bundle_named
from pipeline.cli.options import Config, Count, Debug, Scheduler, Sets, Share, Tracking, context_of
from pipeline.cli.output import finish
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.execution.runner import Outcome

__all__ = ["detect"]

MODELS = ("models:/", "runs:/")


def detect(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, a pattern, a .tar, a .zip, an address as s3://…, a list (.txt, .csv, .parquet), a photo, "
            "or a work folder."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="A bundle's folder, models:/NAME@ALIAS of MLflow, or default, the model that comes along, which it is "
            "unless told; of a work folder its own, trained last."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of results; default: WORK/detect of a work folder.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Of a work folder: train, val, test, held-out (val and test), all.")
    ] = "held-out",
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many photos.")] = None,
    tile: Annotated[
        bool, typer.Option("--tile", help="Look at large photos in overlapping tiles too: slower, for small windows.")
    ] = False,
    draw: Annotated[int, typer.Option(min=0, help="Draw so many photos with what is found in them.")] = 0,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try rejected photos once more.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="For schedulers: write the plan, print the groups of its shards.")
    ] = False,
    shards: Annotated[
        str | None, typer.Option(metavar="A:B", help="For schedulers: one group; the same command without it ends all.")
    ] = None,
    config: Config = None,
    sets: Sets = None,
    scheduler: Scheduler = None,
    workers: Count = None,
    tracking: Tracking = None,
    max_rejected: Share = 0.05,
    debug: Debug = False,
) -> None:
    """Find buildings, windows and doors in an archive of photos; what was done before is not done again."""

    def command() -> Outcome | dict[str, Any]:
        from pipeline.config import load_tables, resolve
        from pipeline.execution.parallel import Workers, import_ahead
        from pipeline.stages.detect import stage
        from pipeline.stages.detect.config import DetectConfig
        from pipeline.stages.detect.inference import bundle_finder
        from pipeline.stages.detect.job import SPLITS, Job

        tables = load_tables(config, sets or ())
        settings = resolve(DetectConfig, tables, "detect")
        settings = settings.model_copy(update={"tile": True}) if tile else settings
        if split not in SPLITS:
            raise UsageError(f"--split {split} is none of {', '.join(SPLITS)}.")
        if sum(map(bool, (dry_run, plan, shards))) > 1:
            raise UsageError("--dry-run, --plan and --shards are three different things; give one of them.")
        place = (out or _beside(source)).absolute()
        if not (dry_run or plan):
            import_ahead(
                stage.workers_for(Workers(scheduler, workers), settings.device),
                ["pipeline.stages.detect.inference", "ssd"],
            )
        bundle = _bundle(model or _usual(source), tracking, None if dry_run else place)
        finder = bundle_finder(bundle, chooses=not _is_work(source))
        span = _span(shards) if shards else None
        job = Job(source, finder, place, split, limit, retry_failed, draw, span)
        context = context_of(place.parent, tables, scheduler, workers, tracking, max_rejected)
        if dry_run:
            return stage.preview(context, settings, job)
        if plan:
            return stage.plan(context, settings, job)
        return stage.run(context, settings, job)

    finish("detect", command, debug)


def _beside(source: str) -> Path:
    if not _is_work(source):
        raise UsageError(f"--out is missing: {source} is no work folder, so say where the results should go.")
    return Path(source) / "detect"


def _usual(source: str) -> str:
    """Return the model to use where none is named: a work folder's own, else the one that comes along."""
    if not _is_work(source):
        return DEFAULT
    own = Path(source) / "train" / "latest" / "bundle"
    if not own.is_dir():
        raise UsageError(f"{source} has no trained model; run `facade train`, or name one, as --model {DEFAULT}.")
    return str(own)


def _is_work(source: str) -> bool:
    from pipeline.stages.detect.job import index_of

    return index_of(source) is not None


def _bundle(model: str, tracking: str | None, out: Path | None) -> Path:
    """Return the folder of a bundle; one from MLflow is brought beside the results, where all workers see it."""
    if not model.startswith(MODELS):
        return bundle_named(model)
    from pipeline.tracking.registry import fetch_bundle

    return fetch_bundle(model, tracking, out / "_model" if out else Path(mkdtemp(prefix="facade-")))


def _span(text: str) -> tuple[int, int]:
    if not (found := re.fullmatch(r"(\d+):(\d+)", text)):
        raise UsageError(f"--shards {text} is no span; give two numbers as 0:8, the last is not included.")
    return int(found[1]), int(found[2])
