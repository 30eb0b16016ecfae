"""Command output: messages on stderr, one line of JSON on stdout, and the exit code."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from pipeline.errors import FacadeError, UsageError

if TYPE_CHECKING:
    from pipeline.execution.runner import Outcome


__all__ = ["EXIT_INTERRUPTED", "echo", "fail", "finish", "finish_command"]

EXIT_INTERRUPTED = 130
INTERRUPTED_MESSAGE = "interrupted; re-run the same command to resume."


def finish(stage: str, command: Callable[[], Outcome | dict[str, Any]], debug: bool) -> None:
    """Run a command to its line of JSON and its exit code."""
    try:
        result = command()
    except (UsageError, FacadeError, OSError) as error:
        if debug:
            traceback.print_exc()
        raise typer.Exit(fail(stage, _error_message(error), 2 if isinstance(error, UsageError) else 1)) from None
    except KeyboardInterrupt:
        raise typer.Exit(fail(stage, INTERRUPTED_MESSAGE, EXIT_INTERRUPTED)) from None
    line = result if isinstance(result, dict) else asdict(result)
    if line.get("changed") is False and not stage.startswith(("verify", "model", "runs")):
        echo(f"{stage}: nothing to do, the tables are up to date")
    print(json.dumps(line), flush=True)  # noqa: T201 - the one line that programs read


def finish_command(name: str, command: Callable[[], dict[str, Any]], debug: bool) -> None:
    """Run a command whose line of JSON has its name and seconds as all others, and no rows."""
    started = time.monotonic()

    def timed() -> dict[str, Any]:
        result = command()
        return {"stage": name, "changed": False, "seconds": round(time.monotonic() - started, 3), **result}

    finish(name, timed, debug)


def fail(stage: str, message: str, code: int) -> int:
    """Report an error to people and to programs; return the exit code."""
    echo(f"error: {message}")
    print(json.dumps({"stage": stage, "changed": False, "error": message}), flush=True)  # noqa: T201
    return code


def _error_message(error: BaseException) -> str:
    if isinstance(error, OSError):
        file = f"{error.filename}: " if error.filename else ""
        return f"{file}{error.strerror or error}; check that it exists and may be used, then run the command again."
    return str(error)


def echo(line: str) -> None:
    """Print a line for people."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the command line is what prints
