"""Rows on their way through a stage: cut into shards, worked on one by one, rejected with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.errors import BadInputError
from pipeline.storage.files import safe_text
from pipeline.storage.manifest import Shard

__all__ = ["make_shards", "process_rows", "rejected_row", "row_counter"]

SHARD_ROWS = 64
Result = TypeVar("Result")


def row_counter(table: str) -> Callable[[Mapping[str, pa.Table]], int]:
    """Return the counter of a stage that writes one row into `table` for each input row that it could use."""
    return partial(_count_rows, table)


def _count_rows(table: str, tables: Mapping[str, pa.Table]) -> int:
    return len(tables[table]) if table in tables else 0


def make_shards(
    dataset: str, rows: Sequence[dict[str, Any]], digest: Callable[[Sequence[dict[str, Any]]], str]
) -> list[Shard]:
    """Return rows cut into shards of a fixed size, whatever the number of workers."""
    pieces = [rows[start : start + SHARD_ROWS] for start in range(0, len(rows), SHARD_ROWS)]
    return [Shard(dataset, ordinal, digest(piece), piece) for ordinal, piece in enumerate(pieces)]


def process_rows(
    stage: str, rows: Sequence[dict[str, Any]], function: Callable[[dict[str, Any]], Result]
) -> tuple[list[Result], list[dict[str, Any]]]:
    """Apply `function` to each row; return the results, and `rejected` rows for those that it raised on."""
    results, rejected = [], []
    for row in rows:
        try:
            results.append(function(row))
        except Exception as error:  # the edge of a shard: bad data is a row, not a crash
            rejected.append(rejected_row(row, stage, error))
    return results, rejected


def rejected_row(row: Mapping[str, Any], stage: str, error: Exception) -> dict[str, Any]:
    """Return the `rejected` row of an input row that could not be used."""
    name = type(error).__name__.removesuffix("Error") if isinstance(error, BadInputError) else type(error).__name__
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or name
    texts = {"image_id": row["image_id"], "uri": row["uri"], "message": reason}
    return {"stage": stage, "error": name, **{key: safe_text(text) for key, text in texts.items()}}
