"""`facade detect`: run a model over an archive of photos and write tables."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.assets import DEFAULT_MODEL, resolve_bundle
from pipeline.cli.options import CommonOptions, with_common_options
from pipeline.cli.output import finish
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.execution.runner import Outcome

__all__ = ["detect"]

MLFLOW_PREFIXES = ("models:/", "runs:/")


@with_common_options()
def detect(
    options: CommonOptions,
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
            help="A bundle's folder, models:/NAME@ALIAS of MLflow, or `default` for the bundled default model (used if "
            "omitted); for a work folder, its latest trained model."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of results; default: WORK/detect of a work folder.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Of a work folder: train, val, test, held-out (val and test), all.")
    ] = "held-out",
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of photos.")] = None,
    tile: Annotated[
        bool,
        typer.Option("--tile", help="Also detect in overlapping tiles of large photos: slower, for small windows."),
    ] = False,
    previews: Annotated[int, typer.Option(min=0, help="Number of photos to draw with their detections.")] = 0,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Retry rejected photos.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report what would be done, and do nothing.")] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="For schedulers: write the plan, print the groups of its shards.")
    ] = False,
    shards: Annotated[
        str | None,
        typer.Option(
            metavar="A:B", help="For schedulers: detect in one group; the same command without it commits the tables."
        ),
    ] = None,
) -> None:
    """Detect objects in an archive of photos."""

    def command() -> Outcome | dict[str, Any]:
        from pipeline.config import resolve_settings
        from pipeline.execution.parallel import WorkerConfig, preload_imports
        from pipeline.stages.detect import stage
        from pipeline.stages.detect.config import DetectConfig
        from pipeline.stages.detect.inference import detector_spec
        from pipeline.stages.detect.job import SPLIT_CHOICES, Job

        tables = options.tables()
        settings = resolve_settings(DetectConfig, tables, "detect")
        settings = settings.model_copy(update={"tile": True}) if tile else settings
        if split not in SPLIT_CHOICES:
            raise UsageError(f"--split {split} is not one of {', '.join(SPLIT_CHOICES)}.")
        if sum(map(bool, (dry_run, plan, shards))) > 1:
            raise UsageError("--dry-run, --plan and --shards are three different things; give one of them.")
        results = (out or _default_out(source)).absolute()
        if not (dry_run or plan):
            workers = WorkerConfig(options.scheduler, options.workers)
            modules = ["pipeline.stages.detect.inference", "ssd"]
            preload_imports(stage.gpu_workers(workers, settings.device), modules)
        bundle = _resolve_model(model or _default_model(source), options.tracking, None if dry_run else results)
        detector = detector_spec(bundle, use_operating_point=not _is_work_folder(source))
        shard_range = _parse_range(shards) if shards else None
        job = Job(source, detector, results, split, limit, retry_failed, previews, shard_range)
        with options.open_context(results.parent, tables) as context:
            if dry_run:
                return stage.dry_run(context, settings, job)
            if plan:
                return stage.write_plan(context, settings, job)
            return stage.run(context, settings, job)

    finish("detect", command, options.debug)


def _default_out(source: str) -> Path:
    if not _is_work_folder(source):
        raise UsageError(f"--out is missing: {source} is not a work folder; name a folder for the results.")
    return Path(source) / "detect"


def _default_model(source: str) -> str:
    """Return the model to use if none is named: a work folder's latest, else the bundled default model."""
    if not _is_work_folder(source):
        return DEFAULT_MODEL
    from pipeline.models.bundle import latest_bundle

    bundle = latest_bundle(Path(source))
    if not bundle.is_dir():
        raise UsageError(f"{source} has no trained model; run `facade train`, or name one, as --model {DEFAULT_MODEL}.")
    return str(bundle)


def _is_work_folder(source: str) -> bool:
    from pipeline.stages.detect.job import open_index

    return open_index(source) is not None


def _resolve_model(model: str, tracking: str | None, out: Path | None) -> Path:
    """Return the folder of a bundle; one from MLflow is copied into the results folder, where all workers see it."""
    if not model.startswith(MLFLOW_PREFIXES):
        return resolve_bundle(model)
    from pipeline.tracking.registry import fetch_bundle

    return fetch_bundle(model, tracking, out / "_model" if out else Path(mkdtemp(prefix="facade-")))


def _parse_range(text: str) -> tuple[int, int]:
    if not (match := re.fullmatch(r"(\d+):(\d+)", text)):
        raise UsageError(f"--shards {text} is not a range; give two numbers as 0:8, the last is not included.")
    return int(match[1]), int(match[2])
