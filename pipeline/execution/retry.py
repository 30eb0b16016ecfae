"""Retry the rejected rows of a finished shard; its other rows stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["retry_rejected"]

Row = dict[str, Any]


def retry_rejected(
    rows: Sequence[Row],
    previous: Mapping[str, pa.Table],
    function: Callable[[Sequence[Row]], Mapping[str, pa.Table]],
) -> dict[str, pa.Table]:
    """Run `function` on the rejected rows, and merge its tables into the previous ones, in the order of the rows."""
    rejected = previous["rejected"]["image_id"]
    rejected_ids = set(rejected.to_pylist())
    retried = function([row for row in rows if row["image_id"] in rejected_ids])
    order = pa.array([row["image_id"] for row in rows])
    return {
        name: _merge_tables(previous.get(name), retried.get(name), rejected, order) for name in {*previous, *retried}
    }


def _merge_tables(
    previous: pa.Table | None, retried: pa.Table | None, rejected: pa.ChunkedArray, order: pa.Array
) -> pa.Table:
    """Replace the rows of rejected images by the retried ones."""
    kept = None if previous is None else previous.filter(pc.invert(pc.is_in(previous["image_id"], rejected)))
    table = pa.concat_tables([part for part in (kept, retried) if part is not None])
    positions = pc.index_in(table["image_id"], order)
    return table.take(pc.array_sort_indices(positions.combine_chunks()))  # a stable sort: rows of an image keep theirs
