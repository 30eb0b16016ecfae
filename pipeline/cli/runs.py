"""`facade runs`: list and compare the runs of MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.options import DebugOption, TrackingOption
from pipeline.cli.output import echo, finish_command

__all__ = ["runs_app"]

HELP = "List the evaluated runs of MLflow, or compare two of them."
runs_app = typer.Typer(help=HELP)

RunArgument = Annotated[str, typer.Argument(help="Run id, unique prefix of an id, or unique name.")]


@runs_app.callback(invoke_without_command=True, help=HELP)
def runs_root(context: typer.Context) -> None:
    """Show what there is."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@runs_app.command("list")
def runs_list(
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of runs, newest first.")] = 20,
    all_runs: Annotated[bool, typer.Option("--all", help="Include runs that were not evaluated.")] = False,
    tracking: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """List runs: what was trained, when, and its mean average precision on test with the interval."""

    def command() -> dict[str, Any]:
        from pipeline.comparison.runs import list_runs
        from pipeline.tracking.registry import open_store

        return {"runs": list_runs(open_store(tracking), limit, all_runs, echo)}

    finish_command("runs list", command, debug)


@runs_app.command("compare")
def runs_compare(
    first: RunArgument,
    second: RunArgument,
    out: Annotated[Path, typer.Option(help="The folder of the figure.")] = Path("compare"),
    tracking: TrackingOption = None,
    debug: DebugOption = False,
) -> None:
    """Compare two runs: their settings, and whether the second is better than the first by more than noise."""

    def command() -> dict[str, Any]:
        from pipeline.comparison.runs import compare_runs
        from pipeline.tracking.registry import open_store

        return compare_runs(open_store(tracking), (first, second), out, echo)

    finish_command("runs compare", command, debug)
