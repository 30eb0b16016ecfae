"""The command line: paths and common options here, knobs in TOML or `--set`.

People read stderr; programs read the one line of JSON on stdout and the exit code: 0 done, 1 failed, 2 wrong usage.
Heavy imports live inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

import pipeline
from pipeline.errors import FacadeError, UsageError

if TYPE_CHECKING:
    from pipeline.stage import Context, Outcome

__all__ = ["main"]

app = typer.Typer(
    name="facade",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    help="From photos of buildings with labels to boxes, from boxes to detectors, from detectors to tables.",
)

Work = Annotated[Path, typer.Option("--work", help="The work folder: all tables of all stages live in it.")]
Config = Annotated[Path | None, typer.Option("--config", help="Settings: a TOML file with one table a stage.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="One setting; may be repeated.")
]
Scheduler = Annotated[str | None, typer.Option(help="A Dask scheduler's address; default: workers on this machine.")]
Count = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Worker processes; default: one a core. 0: this process, to debug."),
]
Tracking = Annotated[
    str | None, typer.Option(help="MLflow's address, or 'off'; default: MLFLOW_TRACKING_URI, else mlflow.db here.")
]
Share = Annotated[float, typer.Option(min=0, max=1, help="Fail above this share of rejected images.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """From photos of buildings with labels to boxes, from boxes to detectors, from detectors to tables."""
    if version:
        _say(f"facade-ssd {pipeline.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def index(
    card: Annotated[str, typer.Option(help="A dataset card: the name of one that comes along, or a TOML file.")],
    root: Annotated[str, typer.Option(help="The dataset's folder: a path, or any fsspec address.")],
    work: Work,
    config: Config = None,
    sets: Sets = None,
    scheduler: Scheduler = None,
    workers: Count = None,
    tracking: Tracking = None,
    max_rejected: Share = 0.05,
    debug: Debug = False,
) -> None:
    """List a dataset: pair photos and annotations, hash, check and split them."""

    def command() -> Outcome:
        from pipeline.config import load_tables, resolve
        from pipeline.dataset import card_named
        from pipeline.index import IndexConfig, run

        tables = load_tables(config, sets or ())
        settings = resolve(IndexConfig, tables, "index")
        found, text = card_named(card)
        return run(_context(work, tables, scheduler, workers, tracking, max_rejected), settings, found, text, root)

    _finish("index", command, debug)


def _add_stage(name: str, what: str) -> None:
    """Add the command of a stage that needs nothing but a work folder and its settings."""

    @app.command(name, help=what)
    def stage(
        work: Work,
        config: Config = None,
        sets: Sets = None,
        scheduler: Scheduler = None,
        workers: Count = None,
        tracking: Tracking = None,
        max_rejected: Share = 0.05,
        debug: Debug = False,
    ) -> None:
        def command() -> Outcome:
            from pipeline.config import load_tables, resolve, settings_of

            tables = load_tables(config, sets or ())
            settings = resolve(settings_of(name), tables, name)
            context = _context(work, tables, scheduler, workers, tracking, max_rejected)
            outcome: Outcome = import_module(f"pipeline.{name}").run(context, settings)
            return outcome

        _finish(name, command, debug)


_add_stage("extract", "Turn annotations into boxes: masks by a recipe, true boxes as they are.")
_add_stage("describe", "Count boxes: shapes, sizes, objects an image, what looks wrong; with figures.")
_add_stage("calibrate", "Fit prior boxes, judge them beside the presets on boxes not fitted to, and choose.")


@app.command("run")
def run_all(
    file: Annotated[
        Path, typer.Argument(help="A TOML file: work, [[datasets]] with card and root, tables of settings.")
    ],
    first: Annotated[str, typer.Option("--from", help="The stage to begin with.")] = "index",
    last: Annotated[str, typer.Option("--to", help="The stage to end with.")] = "calibrate",
    sets: Sets = None,
    scheduler: Scheduler = None,
    workers: Count = None,
    tracking: Tracking = None,
    max_rejected: Share = 0.05,
    debug: Debug = False,
) -> None:
    """Run the stages one after the other, skipping what is done, under one MLflow run."""

    def command() -> dict[str, Any]:
        from pipeline.config import load_tables
        from pipeline.run import load_run, run

        tables = load_tables(file, sets or ())
        work, datasets = load_run(file)
        context = _context(work, tables, scheduler, workers, tracking, max_rejected)
        return run(context, tables, datasets, first, last)

    _finish("run", command, debug)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the drawn facades, the tables and the pictures go.")] = Path("demo"),
    images: Annotated[int, typer.Option(min=1, help="How many facades to draw.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds draw other streets.")] = 0,
    workers: Count = None,
    tracking: Tracking = None,
    debug: Debug = False,
) -> None:
    """Draw facades and take them through the pipeline, offline, on this machine."""

    def command() -> dict[str, Any]:
        from pipeline.demo import run

        return run(_context(out / "work", {}, None, workers, tracking, 0.05), out, images, seed)

    _finish("demo", command, debug)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A work folder, or any folder with finished stages below it.")],
    debug: Debug = False,
) -> None:
    """Check all tables against their manifests: files, digests, schemas, counts."""

    def command() -> dict[str, Any]:
        from pipeline.verify import verify as check

        started = time.monotonic()
        findings = check(folder)
        for problem in findings.problems:
            _say(f"verify: {problem}")
        if findings.problems:
            raise FacadeError(f"{folder}: {len(findings.problems)} problems in {findings.files} files; see above.")
        _say(f"verify: {findings.files} files of {', '.join(findings.stages)} are as they were written")
        counts = {name: getattr(findings, name) for name in ("rows_in", "rows_out", "rejected")}
        seconds = time.monotonic() - started
        return {"stage": "verify", "changed": False, **counts, "seconds": round(seconds, 3), "outputs": {}}

    _finish("verify", command, debug)


model_app = typer.Typer(help="Weights of other programs become bundles; bundles tell what they are, and become ONNX.")
app.add_typer(model_app, name="model")

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder with a model.")]


@model_app.callback(invoke_without_command=True)
def model_root(context: typer.Context) -> None:
    """Weights of other programs become bundles; bundles tell what they are, and become ONNX."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@model_app.command("import")
def model_import(
    file: Annotated[Path, typer.Argument(help="Weights of an SSD300 with VGG-16: .pth, .pt or .safetensors.")],
    out: Annotated[Path, typer.Option(help="The bundle to write; an earlier one there is replaced.")],
    classes: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="The classes, by label; as many others as you like start anew.")
    ] = None,
    priors: Annotated[
        str | None, typer.Option(help="Other priors: a preset, or the priors.json of `calibrate`.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Make a bundle of weights of torchvision's ssd300_vgg16, of ssd.pytorch, or of the EPFL report's code."""

    def command() -> dict[str, Any]:
        from pipeline.model import import_model

        return import_model(file, out, classes, priors, _say)

    _finish_model("import", command, debug)


@model_app.command("export")
def model_export(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help="The folder to write; an earlier export there is replaced.")],
    debug: Debug = False,
) -> None:
    """Write a bundle's network as ONNX, judged against PyTorch, and a JSON file with priors, classes and settings."""

    def command() -> dict[str, Any]:
        from pipeline.onnx_export import export_model

        return export_model(bundle, out, _say)

    _finish_model("export", command, debug)


@model_app.command("show")
def model_show(bundle: Bundle, debug: Debug = False) -> None:
    """Tell what a bundle is: network, classes, priors, where it comes from; its weights are checked."""

    def command() -> dict[str, Any]:
        from pipeline.bundle import facts_of, text_of

        found = facts_of(bundle)
        _say(text_of(found))
        return {"changed": False, "outputs": {}, **found}

    _finish_model("show", command, debug)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; the way that `facade` starts."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    command = typer.main.get_command(app)
    try:
        code = command.main(
            args=list(arguments) if arguments is not None else None, prog_name="facade", standalone_mode=False
        )
    except CLICK_ERROR as error:
        code = _fail(_stage_named(arguments), f"{error.format_message().rstrip('.')}; see `facade --help`.", 2)
    if code == INTERRUPTED:
        os._exit(code)  # what is left to clean up has been told to go; its complaints help no one
    sys.exit(code)


INTERRUPTED = 130
# The parent of all usage errors; typer brings a click of its own and exports only this child of it.
CLICK_ERROR: Any = typer.BadParameter.__mro__[2]
STOPPED = "stopped; run the same command again, it goes on from here."


def _finish(stage: str, command: Callable[[], Outcome | dict[str, Any]], debug: bool) -> None:
    """Run a command to its line of JSON and its exit code."""
    try:
        result = command()
    except (UsageError, FacadeError, OSError) as error:
        if debug:
            traceback.print_exc()
        raise typer.Exit(_fail(stage, _sentence(error), 2 if isinstance(error, UsageError) else 1)) from None
    except KeyboardInterrupt:
        raise typer.Exit(_fail(stage, STOPPED, INTERRUPTED)) from None
    line = result if isinstance(result, dict) else asdict(result)
    if line.get("changed") is False and not stage.startswith(("verify", "model")):
        _say(f"{stage}: nothing to do, the tables are up to date")
    print(json.dumps(line), flush=True)  # noqa: T201 - the one line that programs read


def _finish_model(name: str, command: Callable[[], dict[str, Any]], debug: bool) -> None:
    """Run a command on models, whose line has a stage and seconds as all others, and no rows."""
    stage, started = f"model {name}", time.monotonic()

    def timed() -> dict[str, Any]:
        result = command()
        return {"stage": stage, "changed": result["changed"], "seconds": round(time.monotonic() - started, 3), **result}

    _finish(stage, timed, debug)


def _fail(stage: str, sentence: str, code: int) -> int:
    _say(f"error: {sentence}")
    print(json.dumps({"stage": stage, "changed": False, "error": sentence}), flush=True)  # noqa: T201
    return code


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}; check that it exists and may be used, then run the command again."
    return str(error)


def _stage_named(arguments: Sequence[str] | None) -> str:
    words = [word for word in (arguments if arguments is not None else sys.argv[1:]) if not word.startswith("-")]
    return " ".join(words[: 2 if words[0] == "model" else 1]) if words else "facade"


def _context(
    work: Path,
    tables: dict[str, Any],
    scheduler: str | None,
    workers: int | None,
    tracking: str | None,
    max_rejected: float,
) -> Context:
    from pipeline.config import resolve
    from pipeline.parallel import Workers
    from pipeline.stage import Context
    from pipeline.store import StoreConfig

    patience = resolve(StoreConfig, tables, "store").patience
    return Context(
        work=work.absolute(),
        workers=Workers(scheduler, workers),
        tracking=tracking,
        max_rejected=max_rejected,
        patience=patience,
        say=_say,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the command line is what prints


def _stop(_number: int, _frame: FrameType | None) -> None:
    logging.disable(logging.CRITICAL)  # Dask tells at length how its workers were stopped
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt
