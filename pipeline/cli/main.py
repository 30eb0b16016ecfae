"""The command line: paths and common options here, settings in TOML or `--set`.

People read stderr; programs read the one line of JSON on stdout and the exit code: 0 done, 1 failed, 2 wrong usage.
Heavy imports live inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

import pipeline
from pipeline.cli.detect import detect
from pipeline.cli.model import model_app
from pipeline.cli.options import (
    CommonOptions,
    DebugOption,
    TrackingOption,
    WorkersOption,
    WorkOption,
    with_common_options,
)
from pipeline.cli.output import EXIT_INTERRUPTED, echo, fail, finish
from pipeline.cli.runs import runs_app
from pipeline.errors import FacadeError, UsageError
from pipeline.stages import STAGES, load_stage, settings_class

if TYPE_CHECKING:
    from pipeline.execution.runner import Outcome

__all__ = ["main"]

app = typer.Typer(
    name="facade",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    help="From photos of buildings with labels to boxes, from boxes to detectors, from detectors to tables.",
)
app.add_typer(model_app, name="model")
app.add_typer(runs_app, name="runs")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """From photos of buildings with labels to boxes, from boxes to detectors, from detectors to tables."""
    if version:
        echo(f"facade-ssd {pipeline.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@with_common_options()
def index(
    options: CommonOptions,
    card: Annotated[str, typer.Option(help="A dataset card: the name of a packaged one, or a TOML file.")],
    root: Annotated[str, typer.Option(help="The dataset's folder: a path, or any fsspec address.")],
    work: WorkOption,
) -> None:
    """List the dataset that a card describes."""

    def command() -> Outcome:
        from pipeline.config import resolve_settings
        from pipeline.datasets.card import resolve_card
        from pipeline.stages.index.stage import IndexConfig, run

        tables = options.tables()
        settings = resolve_settings(IndexConfig, tables, "index")
        dataset_card, text = resolve_card(card)
        with options.open_context(work, tables) as context:
            return run(context, settings, dataset_card, text, root)

    finish("index", command, options.debug)


@with_common_options("scheduler", "workers")
def train(
    options: CommonOptions,
    work: WorkOption,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the last interrupted run with its own settings.")
    ] = False,
    sweep: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.toml", help="A grid of runs: priors, augmentation, or your own.")
    ] = None,
    export_task: Annotated[
        Path | None, typer.Option(help="Write the task into this folder, to train where only ssd is installed.")
    ] = None,
    import_run: Annotated[
        Path | None, typer.Option(help="Import what `python -m ssd.training` has left in this folder.")
    ] = None,
) -> None:
    """Train a detector."""

    def command() -> Outcome | dict[str, Any]:
        from pipeline.config import resolve_settings
        from pipeline.stages.train import remote_training
        from pipeline.stages.train.config import TrainConfig
        from pipeline.stages.train.stage import run
        from pipeline.stages.train.sweep import run_sweep

        tables = options.tables()
        settings = resolve_settings(TrainConfig, tables, "train")
        if sum(map(bool, (resume, sweep, export_task, import_run))) > 1:
            raise UsageError(
                "--resume, --sweep, --export-task and --import-run are four different things; give one of them."
            )
        with options.open_context(work, tables) as context:
            if sweep:
                return run_sweep(context, settings, sweep)
            if export_task:
                return remote_training.export_task(context, settings, export_task)
            if import_run:
                return remote_training.import_remote_run(context, import_run)
            return run(context, settings, resume)

    finish("train", command, options.debug)


def _stage_command(name: str) -> Callable[..., None]:
    """Make the command of a stage that needs nothing but a work folder and its settings."""

    @with_common_options()
    def stage(options: CommonOptions, work: WorkOption) -> None:
        def command() -> Outcome:
            from pipeline.config import resolve_settings

            tables = options.tables()
            settings = resolve_settings(settings_class(name), tables, name)
            with options.open_context(work, tables) as context:
                outcome: Outcome = load_stage(name).run(context, settings)
                return outcome

        finish(name, command, options.debug)

    return stage


def _help_of(name: str) -> str:
    """Return the help of a stage's command: the docstring of its folder."""
    return (import_module(f"pipeline.stages.{name}").__doc__ or "").strip()


for _name in STAGES:
    _command = {"index": index, "train": train, "detect": detect}.get(_name) or _stage_command(_name)
    app.command(_name, help=_help_of(_name))(_command)


@app.command("run")
@with_common_options("config")
def run_all(
    options: CommonOptions,
    file: Annotated[
        Path, typer.Argument(help="A TOML file: work, [[datasets]] with card and root, tables of settings.")
    ],
    first: Annotated[str, typer.Option("--from", help="The stage to begin with.")] = "index",
    last: Annotated[str, typer.Option("--to", help="The stage to end with.")] = "report",
) -> None:
    """Run the stages one after the other, skipping what is done, under one MLflow run."""

    def command() -> dict[str, Any]:
        from pipeline.workflow import load_run, run

        tables = options.tables(file)
        work, datasets = load_run(file)
        with options.open_context(work, tables) as context:
            return run(context, tables, datasets, first, last)

    finish("run", command, options.debug)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the synthetic streets, the tables and the pictures go.")] = Path(
        "demo"
    ),
    images: Annotated[
        int, typer.Option(min=1, help="How many streets to generate; from 100 on, a detector is trained.")
    ] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other streets.")] = 0,
    workers: WorkersOption = None,
    tracking: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Generate synthetic streets and run all stages on them, offline, on this machine."""

    def command() -> dict[str, Any]:
        from pipeline.demo import run

        with CommonOptions(workers=workers, tracking=tracking).open_context(out / "work", {}) as context:
            return run(context, out, images, seed)

    finish("demo", command, debug)


@app.command()
def draw(
    out: Annotated[Path, typer.Option(help="The folder to write: photos, masks, boxes, and a card of each kind.")],
    images: Annotated[int, typer.Option(min=1, help="How many streets to generate.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds give other streets.")] = 0,
    debug: DebugOption = False,
) -> None:
    """Generate synthetic streets as a dataset, with exact masks and boxes: to try things without any photo."""

    def command() -> dict[str, Any]:
        from pipeline.datasets.synthetic.cards import generate_dataset

        started = time.monotonic()
        photos = out / "photos"
        before = len(list(photos.glob("*"))) if photos.is_dir() else 0
        with CommonOptions(tracking="off").open_context(out, {}) as context:
            cards = generate_dataset(context, out, images, seed)
        files = " and ".join(f"{card.name}.toml" for card, _ in cards)
        echo(f"draw: {images} streets, and the cards {files}, are in {out}")
        counts = {"rows_in": images, "rows_out": images, "rejected": 0}
        seconds = round(time.monotonic() - started, 3)
        return {
            "stage": "draw",
            "changed": before < images,
            **counts,
            "seconds": seconds,
            "outputs": {"drawn": str(out)},
        }

    finish("draw", command, debug)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A work folder, or any folder with finished stages below it.")],
    debug: DebugOption = False,
) -> None:
    """Check all tables against their manifests: files, digests, schemas, counts."""

    def command() -> dict[str, Any]:
        from pipeline.storage.verify import verify as check

        started = time.monotonic()
        findings = check(folder)
        for problem in findings.problems:
            echo(f"verify: {problem}")
        if findings.problems:
            raise FacadeError(f"{folder}: {len(findings.problems)} problems in {findings.files} files; see above.")
        echo(f"verify: {findings.files} files of {', '.join(findings.stages)} are as they were written")
        counts = {name: getattr(findings, name) for name in ("rows_in", "rows_out", "rejected")}
        seconds = time.monotonic() - started
        return {"stage": "verify", "changed": False, **counts, "seconds": round(seconds, 3), "outputs": {}}

    finish("verify", command, debug)


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
        message = error.format_message().rstrip(".")
        code = fail(_requested_stage(arguments), f"{message}{_renamed_hint(message)}; see `facade --help`.", 2)
    if code == EXIT_INTERRUPTED:
        os._exit(code)  # what is left to clean up has been told to go; its complaints help no one
    sys.exit(code)


# The parent of all usage errors; typer has a click of its own, which is not the package click, and exports only this
# child of it.
CLICK_ERROR: Any = typer.BadParameter.__mro__[2]
# Options and commands of version 0.1, and what they are called now.
RENAMED = {
    "--adopt": "--import-run",
    "--draw": "--previews",
    "--most": "--limit",
    "--prepare": "--export-task",
    "calibrate": "priors",
}


def _renamed_hint(message: str) -> str:
    """Name the successor of an option or command of version 0.1, as a part of a sentence."""
    words = message.replace("'", " ").replace(",", " ").split()
    return next((f"; it is called {new} since version 0.2" for old, new in RENAMED.items() if old in words), "")


def _requested_stage(arguments: Sequence[str] | None) -> str:
    words = [word for word in (arguments if arguments is not None else sys.argv[1:]) if not word.startswith("-")]
    return " ".join(words[: 2 if words[0] in {"model", "runs"} else 1]) if words else "facade"


def _stop(_number: int, _frame: FrameType | None) -> None:
    logging.disable(logging.CRITICAL)  # Dask tells at length how its workers were stopped
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt
