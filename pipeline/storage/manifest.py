"""Records of a stage folder: shards, receipts and the manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.errors import FacadeError
from pipeline.storage.files import json_digest

__all__ = ["Manifest", "Receipt", "Shard", "TableFile"]

MANIFEST_FORMAT = 2


@dataclass(frozen=True)
class Shard:
    """Some input rows, and a digest over everything that decides what comes out of them.

    Attributes:
        dataset: the dataset of the rows.
        ordinal: the shard's number in it.
        digest: of all that decides the tables.
        rows: the input rows.
        retry_of: the receipt of this shard, where it is finished and only its rejected rows are to be tried again.
    """

    dataset: str
    ordinal: int
    digest: str
    rows: Sequence[dict[str, Any]] = field(default=(), repr=False)
    retry_of: Receipt | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """The name that the shard's files share."""
        return f"{self.dataset}-{self.ordinal:05d}-{self.digest[:12]}"


@dataclass(frozen=True)
class TableFile:
    """One Parquet file: its path below the stage's folder, and what `verify` holds it to."""

    file: str
    rows: int
    bytes: int
    sha256: str
    content: str


@dataclass(frozen=True)
class Receipt:
    """What became of a shard: `rows_out + rejected == rows_in`, and the files."""

    key: str
    dataset: str
    ordinal: int
    rows_in: int
    rows_out: int
    rejected: int
    tables: dict[str, TableFile]
    transient: int = 0  # rejected rows whose reason may pass (no permission, a store away): such a shard is tried again

    def __post_init__(self) -> None:
        """Refuse a shard that lost or invented rows."""
        if self.rows_out + self.rejected != self.rows_in:
            raise FacadeError(
                f"shard {self.key}: {self.rows_in} rows in, {self.rows_out} out and {self.rejected} rejected; "
                "a row was lost or doubled, please report this."
            )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Receipt:
        """Return the receipt that `asdict` wrote."""
        return cls(**{**value, "tables": {name: TableFile(**entry) for name, entry in value["tables"].items()}})


@dataclass(frozen=True)
class Manifest:
    """The shards that make up a stage's tables, in order of dataset and ordinal."""

    stage: str
    receipts: tuple[Receipt, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    run_id: str | None = None

    @cached_property
    def digest(self) -> str:
        """The digest of what the tables say, whatever their files are called."""
        contents = [
            [receipt.dataset, receipt.ordinal, name, entry.content]
            for receipt in self.receipts
            for name, entry in sorted(receipt.tables.items())
        ]
        return json_digest(contents)

    def total(self, count: str) -> int:
        """Return the sum of `rows_in`, `rows_out` or `rejected` over the shards."""
        return sum(getattr(receipt, count) for receipt in self.receipts)

    def files(self, table: str, dataset: str | None = None) -> list[TableFile]:
        """Return the files of one table, of one dataset or all."""
        wanted = [receipt for receipt in self.receipts if dataset in (None, receipt.dataset)]
        return [receipt.tables[table] for receipt in wanted if table in receipt.tables]

    def to_json(self) -> bytes:
        """Return the manifest as its file's bytes."""
        counts = {name: self.total(name) for name in ("rows_in", "rows_out", "rejected")}
        head = {"format": MANIFEST_FORMAT, "stage": self.stage, "digest": self.digest, **counts}
        body = {"run_id": self.run_id, "settings": self.settings, "shards": [asdict(r) for r in self.receipts]}
        return (json.dumps({**head, **body}, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes, where: Path) -> Manifest:
        """Return the manifest in a file's text."""
        try:
            value = json.loads(text)
            if value["format"] > MANIFEST_FORMAT:
                raise FacadeError(f"{where} was written by a newer facade-ssd; update this one.")
            if value["format"] < MANIFEST_FORMAT:
                raise FacadeError(
                    f"{where} was written by facade-ssd 0.1, whose tables have other names; move {where.parents[1]} "
                    "away and run its commands again."
                )
            receipts = tuple(Receipt.from_json(entry) for entry in value["shards"])
            return cls(value["stage"], receipts, value["settings"], value["run_id"])
        except (ValueError, KeyError, TypeError) as error:
            raise FacadeError(f"{where} is corrupt ({error}); delete it and run the stage again.") from error
