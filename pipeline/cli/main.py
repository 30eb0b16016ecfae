"""The command line: paths and common options here, knobs in TOML or `--set`.

People read stderr; programs read the one line of JSON on stdout and the exit code: 0 done, 1 failed, 2 wrong usage.
Heavy imports live inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

import pipeline
from pipeline.cli.detect import detect
from pipeline.cli.model import model_app
from pipeline.cli.options import Config, Count, Debug, Scheduler, Sets, Share, Tracking, Work, context_of
from pipeline.cli.output import INTERRUPTED, fail, finish, say
from pipeline.cli.runs import runs_app
from pipeline.errors import FacadeError, UsageError

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
        say(f"facade-ssd {pipeline.__version__}")
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
        from pipeline.datasets.card import card_named
        from pipeline.stages.index.stage import IndexConfig, run

        tables = load_tables(config, sets or ())
        settings = resolve(IndexConfig, tables, "index")
        found, text = card_named(card)
        return run(context_of(work, tables, scheduler, workers, tracking, max_rejected), settings, found, text, root)

    finish("index", command, debug)


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
            context = context_of(work, tables, scheduler, workers, tracking, max_rejected)
            outcome: Outcome = import_module(f"pipeline.stages.{name}.stage").run(context, settings)
            return outcome

        finish(name, command, debug)


_add_stage("extract", "Turn annotations into boxes: masks by a recipe, true boxes as they are.")
_add_stage("describe", "Count boxes: shapes, sizes, objects an image, what looks wrong; with figures.")
_add_stage("priors", "Fit prior boxes, judge them beside the presets on boxes not fitted to, and choose.")


@app.command()
def train(
    work: Work,
    config: Config = None,
    sets: Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last run that was stopped, whatever its settings were.")
    ] = False,
    sweep: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.toml", help="A grid of runs: priors, augmentation, or your own.")
    ] = None,
    prepare: Annotated[
        Path | None, typer.Option(help="Write the task into this folder, to train where only ssd is installed.")
    ] = None,
    adopt: Annotated[
        Path | None, typer.Option(help="Take in what `python -m ssd.training` has left in this folder.")
    ] = None,
    tracking: Tracking = None,
    max_rejected: Share = 0.05,
    debug: Debug = False,
) -> None:
    """Train a detector on the boxes, and keep the best epoch as a bundle; on a GPU where there is one."""

    def command() -> Outcome | dict[str, Any]:
        from pipeline.config import load_tables, resolve
        from pipeline.stages.train.config import TrainConfig

        tables = load_tables(config, sets or ())
        settings = resolve(TrainConfig, tables, "train")
        context = context_of(work, tables, None, 0, tracking, max_rejected)
        if sum(map(bool, (resume, sweep, prepare, adopt))) > 1:
            raise UsageError("--resume, --sweep, --prepare and --adopt are four different things; give one of them.")
        if sweep:
            from pipeline.stages.train.sweep import run_sweep

            return run_sweep(context, settings, sweep)
        if prepare or adopt:
            from pipeline.stages.train import remote_training as elsewhere

            return elsewhere.prepare(context, settings, prepare) if prepare else elsewhere.adopt(context, adopt or work)
        from pipeline.stages.train.stage import run

        return run(context, settings, resume)

    finish("train", command, debug)


app.command()(detect)
_add_stage(
    "evaluate", "Judge what `detect` found: precision with intervals, what goes wrong, thresholds, doubtful labels."
)
_add_stage("report", "Put all of it on one page that needs nothing but itself: WORK/report/index.html.")


@app.command("run")
def run_all(
    file: Annotated[
        Path, typer.Argument(help="A TOML file: work, [[datasets]] with card and root, tables of settings.")
    ],
    first: Annotated[str, typer.Option("--from", help="The stage to begin with.")] = "index",
    last: Annotated[str, typer.Option("--to", help="The stage to end with.")] = "report",
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
        from pipeline.workflow import load_run, run

        tables = load_tables(file, sets or ())
        work, datasets = load_run(file)
        context = context_of(work, tables, scheduler, workers, tracking, max_rejected)
        return run(context, tables, datasets, first, last)

    finish("run", command, debug)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the drawn facades, the tables and the pictures go.")] = Path("demo"),
    images: Annotated[int, typer.Option(min=1, help="How many facades to draw; from 100 a detector is trained.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds draw other streets.")] = 0,
    workers: Count = None,
    tracking: Tracking = None,
    debug: Debug = False,
) -> None:
    """Draw facades and take them through the pipeline, offline, on this machine."""

    def command() -> dict[str, Any]:
        from pipeline.demo import run

        return run(context_of(out / "work", {}, None, workers, tracking, 0.05), out, images, seed)

    finish("demo", command, debug)


@app.command()
def draw(
    out: Annotated[Path, typer.Option(help="The folder to write: photos, masks, boxes, and a card of each kind.")],
    images: Annotated[int, typer.Option(min=1, help="How many facades to draw.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds draw other streets.")] = 0,
    debug: Debug = False,
) -> None:
    """Draw facades as a dataset, with exact masks and boxes: to train and to try things without any photo."""

    def command() -> dict[str, Any]:
        from pipeline.datasets.synthetic.cards import draw as write

        started, drawn = time.monotonic(), out / "photos"
        before = len(list(drawn.glob("*"))) if drawn.is_dir() else 0
        cards = [card.name for card, _ in write(context_of(out, {}, None, 0, "off", 0.05), out, images, seed)]
        say(f"draw: {images} facades, and the cards {' and '.join(f'{name}.toml' for name in cards)}, are in {out}")
        counts = {"rows_in": images, "rows_out": images, "rejected": 0}
        seconds, outputs = round(time.monotonic() - started, 3), {"drawn": str(out)}
        return {"stage": "draw", "changed": before < images, **counts, "seconds": seconds, "outputs": outputs}

    finish("draw", command, debug)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A work folder, or any folder with finished stages below it.")],
    debug: Debug = False,
) -> None:
    """Check all tables against their manifests: files, digests, schemas, counts."""

    def command() -> dict[str, Any]:
        from pipeline.storage.verify import verify as check

        started = time.monotonic()
        findings = check(folder)
        for problem in findings.problems:
            say(f"verify: {problem}")
        if findings.problems:
            raise FacadeError(f"{folder}: {len(findings.problems)} problems in {findings.files} files; see above.")
        say(f"verify: {findings.files} files of {', '.join(findings.stages)} are as they were written")
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
        code = fail(_stage_named(arguments), f"{error.format_message().rstrip('.')}; see `facade --help`.", 2)
    if code == INTERRUPTED:
        os._exit(code)  # what is left to clean up has been told to go; its complaints help no one
    sys.exit(code)


# The parent of all usage errors; typer brings a click of its own and exports only this child of it.
CLICK_ERROR: Any = typer.BadParameter.__mro__[2]


def _stage_named(arguments: Sequence[str] | None) -> str:
    words = [word for word in (arguments if arguments is not None else sys.argv[1:]) if not word.startswith("-")]
    return " ".join(words[: 2 if words[0] in {"model", "runs"} else 1]) if words else "facade"


def _stop(_number: int, _frame: FrameType | None) -> None:
    logging.disable(logging.CRITICAL)  # Dask tells at length how its workers were stopped
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt
