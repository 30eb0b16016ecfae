"""A finished shard whose rejected photos are tried once more; what was done in it stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.storage.manifest import Receipt
from pipeline.storage.stage_folder import StageFolder

__all__ = ["Redone", "redo"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Redone(Sequence[Row]):
    """The rows of a shard, with what became of them before."""

    rows: Sequence[Row]
    folder: StageFolder
    receipt: Receipt

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | Sequence[Row]:
        return self.rows[place]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def tables(self) -> dict[str, pa.Table]:
        """Return the tables of before."""
        return {name: self.folder.read_files(name, [entry]) for name, entry in self.receipt.tables.items()}


def redo(shard: Redone, function: Callable[[Sequence[Row]], Mapping[str, pa.Table]]) -> dict[str, pa.Table]:
    """Return the tables of a shard after `function` has tried its rejected rows again, in the order of the rows."""
    before, rows = shard.tables(), list(shard)
    rejected = before["rejected"]["image_id"]
    wanted = set(rejected.to_pylist())
    after = function([row for row in rows if row["image_id"] in wanted])
    order = pa.array([row["image_id"] for row in rows])
    return {name: _merged(before.get(name), after.get(name), rejected, order) for name in {*before, *after}}


def _merged(before: pa.Table | None, after: pa.Table | None, rejected: pa.ChunkedArray, order: pa.Array) -> pa.Table:
    """Return a table's rows of before, without those of rejected images, with those of after."""
    kept = before.filter(pc.invert(pc.is_in(before["image_id"], rejected))) if before is not None else None
    table = pa.concat_tables([part for part in (kept, after) if part is not None])
    places = pc.index_in(table["image_id"], order)
    return table.take(pc.array_sort_indices(places.combine_chunks()))  # it keeps the order of what is equal
