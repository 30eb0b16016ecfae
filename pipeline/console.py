"""What all commands share: their common options, and one run of one to its line of JSON and its exit code.

People read stderr; programs read the one line of JSON on stdout and the exit code: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.errors import FacadeError, UsageError

if TYPE_CHECKING:
    from pipeline.stage import Context, Outcome

__all__ = [
    "INTERRUPTED",
    "Config",
    "Count",
    "Debug",
    "Scheduler",
    "Sets",
    "Share",
    "Tracking",
    "Work",
    "context_of",
    "fail",
    "finish",
    "say",
]

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


INTERRUPTED = 130
STOPPED = "stopped; run the same command again, it goes on from here."


def finish(stage: str, command: Callable[[], Outcome | dict[str, Any]], debug: bool) -> None:
    """Run a command to its line of JSON and its exit code."""
    try:
        result = command()
    except (UsageError, FacadeError, OSError) as error:
        if debug:
            traceback.print_exc()
        raise typer.Exit(fail(stage, _sentence(error), 2 if isinstance(error, UsageError) else 1)) from None
    except KeyboardInterrupt:
        raise typer.Exit(fail(stage, STOPPED, INTERRUPTED)) from None
    line = result if isinstance(result, dict) else asdict(result)
    if line.get("changed") is False and not stage.startswith(("verify", "model", "runs")):
        say(f"{stage}: nothing to do, the tables are up to date")
    print(json.dumps(line), flush=True)  # noqa: T201 - the one line that programs read


def fail(stage: str, sentence: str, code: int) -> int:
    """Say what is wrong, to people and to programs; return the exit code."""
    say(f"error: {sentence}")
    print(json.dumps({"stage": stage, "changed": False, "error": sentence}), flush=True)  # noqa: T201
    return code


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}; check that it exists and may be used, then run the command again."
    return str(error)


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
        say=say,
    )


def say(line: str) -> None:
    """Tell people a line."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the command line is what prints
