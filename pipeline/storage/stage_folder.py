"""A stage's folder: Parquet shards, receipts of finished shards, and the manifest that says which files count.

A shard's tables are written first, to one side, and its receipt last; a shard with a receipt is finished and is not
done again. When the stage completes, its files move into the tables' folders, the manifest replaces the receipts, and
whatever it does not list is deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline.config import Settings
from pipeline.errors import FacadeError
from pipeline.storage.files import TEMPORARY_SUFFIX, is_transient, write_bytes
from pipeline.storage.manifest import Manifest, Receipt, Shard, TableFile
from pipeline.storage.schemas import check_schema, conform_to_schema, content_digest, empty_table

__all__ = ["STAGED_FOLDER", "StageFolder", "StoreConfig"]

MANIFEST_FILE = "_manifest.json"
KEPT_MANIFESTS = 5
STAGED_FOLDER = "_staged"  # until the manifest lists them, files lie where no reader of the table's folder looks


class StoreConfig(Settings):
    """How tables are kept: `disk_retry_seconds` is the seconds to wait for a full disk or a store that is away."""

    disk_retry_seconds: float = Field(default=600.0, ge=0.0)


@dataclass(frozen=True)
class StageFolder:
    """WORK/STAGE: everything that one stage has written."""

    work: Path
    stage: str
    disk_retry_seconds: float = 600.0
    custom_path: Path | None = None  # elsewhere than in the work folder

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.custom_path or self.work / self.stage

    def manifest(self) -> Manifest | None:
        """Return the committed manifest, or None before the stage has completed once."""
        path = self.path / MANIFEST_FILE
        return Manifest.from_json(path.read_bytes(), path) if path.exists() else None

    def require_manifest(self) -> Manifest:
        """Return the committed manifest, or raise with what to run first."""
        if (manifest := self.manifest()) is None:
            raise FacadeError(f"{self.work} has no finished {self.stage}; run `facade {self.stage}` on it first.")
        return manifest

    def finished_receipts(self, include_transient: bool = False) -> dict[str, Receipt]:
        """Return the receipts of all finished shards by key: the manifest's and those of a run cut short.

        With `include_transient`, those too whose rejected rows may be good by now.
        """
        manifest = self.manifest()
        receipts = {receipt.key: receipt for receipt in (manifest.receipts if manifest else ())}
        for path in sorted((self.path / "_receipts").glob("*.json")):
            with contextlib.suppress(
                ValueError, KeyError, TypeError, AttributeError
            ):  # damaged: its shard is done again
                receipt = Receipt.from_json(json.loads(path.read_bytes()))
                receipts[receipt.key] = receipt
        return {
            key: receipt
            for key, receipt in receipts.items()
            if self._files_exist(receipt) and (include_transient or not receipt.transient)
        }

    def write_shard(
        self, shard: Shard, tables: Mapping[str, pa.Table], rows_out: int, rows_in: int | None = None
    ) -> Receipt:
        """Return the receipt of a shard after writing its tables, those with rows; called inside the worker."""
        entries = {
            name: self._write_table(name, shard.key, table) for name, table in sorted(tables.items()) if len(table)
        }
        errors = tables["rejected"]["error"].to_pylist() if "rejected" in tables else []
        counts = {
            "rows_in": len(shard.rows) if rows_in is None else rows_in,
            "rows_out": rows_out,
            "rejected": len(errors),
        }
        passing = sum(is_transient(error) for error in errors)
        receipt = Receipt(shard.key, shard.dataset, shard.ordinal, **counts, tables=entries, transient=passing)
        text = json.dumps(asdict(receipt)).encode()
        write_bytes(self.path / "_receipts" / f"{shard.key}.json", text, self.disk_retry_seconds)
        return receipt

    def commit(self, manifest: Manifest) -> None:
        """Commit the manifest and its files, keep the last few manifests, and delete files that it does not list."""
        listed = {entry.file for receipt in manifest.receipts for entry in receipt.tables.values()}
        for file in sorted(listed):
            if (staged := self.path / STAGED_FOLDER / file).exists():
                (self.path / file).parent.mkdir(parents=True, exist_ok=True)
                staged.replace(self.path / file)
        data = manifest.to_json()
        write_bytes(self.path / MANIFEST_FILE, data, self.disk_retry_seconds)
        history = self.path / "_history"
        numbers = [int(path.stem) for path in history.glob("*.json") if path.stem.isdigit()]
        write_bytes(history / f"{max(numbers, default=0) + 1:06d}.json", data, self.disk_retry_seconds)
        for path in sorted(history.glob("*.json"))[:-KEPT_MANIFESTS]:
            path.unlink()
        self.delete_stale(manifest)

    def read(self, table: str, dataset: str | None = None, columns: list[str] | None = None) -> pa.Table:
        """Return a table, of one dataset or all, from the files that the manifest lists."""
        return self.read_files(table, self.require_manifest().files(table, dataset), columns)

    def read_files(self, table: str, entries: Iterable[TableFile], columns: list[str] | None = None) -> pa.Table:
        """Return the rows of some files of one table."""
        tables = [self._read_file(table, entry) for entry in entries]
        whole = pa.concat_tables(tables) if tables else empty_table(table)
        return whole.select(columns) if columns else whole

    def _read_file(self, table: str, entry: TableFile) -> pa.Table:
        path = self._locate(entry)
        try:
            found = pq.ParquetFile(path).read()
        except (OSError, pa.ArrowInvalid) as error:
            advice = f"delete it and run `facade {self.stage}` again, which rewrites it"
            raise FacadeError(f"cannot read {path}: {str(error).splitlines()[0]}; {advice}.") from error
        check_schema(found.schema, table, str(path))
        return conform_to_schema(found, table)

    def _write_table(self, name: str, key: str, table: pa.Table) -> TableFile:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        data = buffer.getvalue()
        sha256 = hashlib.sha256(data).hexdigest()
        file = f"{name}/{key}-{sha256[:8]}.parquet"  # a shard done again must not change a file that still counts
        write_bytes(self.path / STAGED_FOLDER / file, data, self.disk_retry_seconds)
        content = content_digest(pq.read_table(io.BytesIO(data)))  # as a reader will see it
        return TableFile(file, len(table), len(data), sha256, content)

    def _files_exist(self, receipt: Receipt) -> bool:
        paths = [(self._locate(entry), entry.bytes) for entry in receipt.tables.values()]
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)

    def delete_stale(self, manifest: Manifest) -> None:
        """Delete shards and receipts that do not count, and what killed writers left behind."""
        listed = {entry.file for receipt in manifest.receipts for entry in receipt.tables.values()}
        for path in [path for path in self.path.rglob("*") if path.is_file()]:
            name = path.relative_to(self.path).as_posix()
            own = re.fullmatch(r"[a-z_]+/.+-\d{5,}-[0-9a-f]{12}-[0-9a-f]{8}\.parquet", name)
            partial = re.fullmatch(rf"\..+\.\d+{re.escape(TEMPORARY_SUFFIX)}", path.name)
            if (own and name not in listed) or name.startswith(("_receipts/", f"{STAGED_FOLDER}/")) or partial:
                path.unlink(missing_ok=True)

    def _locate(self, entry: TableFile) -> Path:
        """Return where a file is: in its table's folder, or not yet."""
        path = self.path / entry.file
        return path if path.exists() else self.path / STAGED_FOLDER / entry.file
