"""Rows that kill their process: worked on in children, by halves, until the killer stands alone."""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from pipeline.errors import FacadeError

__all__ = ["RowsFunction", "run_isolated"]

EXIT_OUT_OF_MEMORY = 137  # what a shell says of a process that the kernel killed for its memory
RowsFunction = Callable[[Sequence[dict[str, Any]]], Mapping[str, pa.Table]]
Reject = Callable[[dict[str, Any], str], Mapping[str, pa.Table]]


def run_isolated(
    function: RowsFunction, rows: Sequence[dict[str, Any]], reject: Reject, memory: int
) -> dict[str, pa.Table]:
    """Return the tables of all rows, those of a row that no child survives made by `reject(row, message)`."""
    tables, death = _run_in_child(function, rows, memory)
    if tables is not None:
        return dict(tables)
    if _run_in_child(function, [], memory)[0] is None:
        raise FacadeError(
            f"a worker process died ({death}) before it read a row; lower --workers to give each more memory."
        )
    return _bisect(function, rows, reject, memory, death)


def _bisect(
    function: RowsFunction, rows: Sequence[dict[str, Any]], reject: Reject, memory: int, death: str
) -> dict[str, pa.Table]:
    """Return the tables of rows that a child died of."""
    if len(rows) == 1:
        return dict(reject(rows[0], f"it crashes the worker process ({death})"))
    middle, parts = len(rows) // 2, list[dict[str, pa.Table]]()
    for half in (rows[:middle], rows[middle:]):
        tables, death = _run_in_child(function, half, memory)
        parts.append(dict(tables) if tables is not None else _bisect(function, half, reject, memory, death))
    first, second = parts
    return {name: pa.concat_tables(part[name] for part in parts if name in part) for name in first | second}


def _run_in_child(
    function: RowsFunction, rows: Sequence[dict[str, Any]], memory: int
) -> tuple[Mapping[str, pa.Table] | None, str]:
    """Return the tables, or None and what the child died of."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_child_main, args=(function, rows, memory, theirs), daemon=True)
    child.start()
    theirs.close()  # so that the death of the child ends the pipe
    try:
        answer = ours.recv()
    except EOFError:
        answer = None
    child.join()
    if isinstance(answer, BaseException):
        raise answer
    return answer, _death_cause(child.exitcode or 0)


def _death_cause(code: int) -> str:
    if code == EXIT_OUT_OF_MEMORY:
        return "out of memory"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _child_main(function: RowsFunction, rows: Sequence[dict[str, Any]], memory: int, connection: Connection) -> None:
    # RLIMIT_DATA counts what is really asked for; RLIMIT_AS would count the address space that CUDA only reserves.
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    try:
        connection.send(function(rows))
    except MemoryError:
        os._exit(EXIT_OUT_OF_MEMORY)  # a death like any other: there may be no memory left to tell of it
    except Exception as error:  # the edge of a shard: the parent decides
        connection.send(error)
