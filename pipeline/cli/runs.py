"""`facade runs`: what MLflow has of evaluated models, in a list and side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.options import Debug, Tracking
from pipeline.cli.output import finish, say

__all__ = ["runs_app"]

WHAT = "MLflow's runs: the evaluated ones in a list, two of them side by side."
runs_app = typer.Typer(help=WHAT)

Id = Annotated[str, typer.Argument(help="A run: its id, the beginning of it, or its name if no other has it.")]


@runs_app.callback(invoke_without_command=True, help=WHAT)
def runs_root(context: typer.Context) -> None:
    """Show what there is."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@runs_app.command("list")
def runs_list(
    most: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="Those too that were not evaluated.")] = False,
    tracking: Tracking = None,
    debug: Debug = False,
) -> None:
    """List runs: what was trained, when, and its mean average precision on test with the interval."""

    def command() -> dict[str, Any]:
        from pipeline.comparison.runs import list_runs
        from pipeline.tracking.registry import open_store

        return {"runs": list_runs(open_store(tracking), most, everything, say)}

    _finish("list", command, debug)


@runs_app.command("compare")
def runs_compare(
    first: Id,
    second: Id,
    out: Annotated[Path, typer.Option(help="The folder of the picture.")] = Path("compare"),
    tracking: Tracking = None,
    debug: Debug = False,
) -> None:
    """Tell what two runs differ in, and whether the second is better than the first by more than noise."""

    def command() -> dict[str, Any]:
        from pipeline.comparison.runs import compare_runs
        from pipeline.tracking.registry import open_store

        return compare_runs(open_store(tracking), (first, second), out, say)

    _finish("compare", command, debug)


def _finish(name: str, command: Callable[[], dict[str, Any]], debug: bool) -> None:
    stage, started = f"runs {name}", time.monotonic()

    def timed() -> dict[str, Any]:
        result = command()
        return {"stage": stage, "changed": False, "seconds": round(time.monotonic() - started, 3), **result}

    finish(stage, timed, debug)
