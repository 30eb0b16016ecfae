"""What all commands share: their common options, and one run of one to its line of JSON and its exit code.

People read stderr; programs read the one line of JSON on stdout and the exit code: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.output import say

if TYPE_CHECKING:
    from pipeline.execution.runner import Context

__all__ = ["Config", "Count", "Debug", "Scheduler", "Sets", "Share", "Tracking", "Work", "context_of"]

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


def context_of(
    work: Path,
    tables: dict[str, Any],
    scheduler: str | None,
    workers: int | None,
    tracking: str | None,
    max_rejected: float,
) -> Context:
    """Return what every command brings along."""
    from pipeline.config import resolve
    from pipeline.execution.parallel import Workers
    from pipeline.execution.runner import Context
    from pipeline.storage.stage_folder import StoreConfig

    patience = resolve(StoreConfig, tables, "store").patience
    return Context(
        work=work.absolute(),
        workers=Workers(scheduler, workers),
        tracking=tracking,
        max_rejected=max_rejected,
        patience=patience,
        say=say,
    )
