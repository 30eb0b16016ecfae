"""The plan of an archive: which photos are in which shard, written before the first of them is opened.

A shard's rows lie in a Parquet file of their own, `_plan/NNNNN-DIGEST.parquet`, so that a plan takes no memory here and
a worker reads but its own. Photos that come later become new shards; a shard changes when a photo of it does.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import FacadeError
from pipeline.execution.progress import Progress
from pipeline.storage.files import write_bytes
from pipeline.storage.schemas import content_digest, table_from_rows

__all__ = ["MAX_SHARD_PHOTOS", "PLAN_FOLDER", "DetectionPlan", "LazyRows", "PlanChanges", "PlannedShard", "shard_size"]

# Photos of a shard at most, and of the first ones; each size lasts for so many shards and doubles then.
MAX_SHARD_PHOTOS, FIRST_SHARD_PHOTOS, SHARDS_PER_SIZE = 512, 32, 8
PLAN_FOLDER: Final = "_plan"
NEW_PLAN_FOLDER: Final = "_new"
SHARD_FILE: Final = re.compile(r"(\d{5,})-([0-9a-f]{16})\.parquet")

Row = dict[str, Any]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class LazyRows(Sequence[Row]):
    """The rows of a shard, read where they are asked for; it travels as a path."""

    path: Path
    size: int

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        return self._read()[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._read())

    def _read(self) -> list[Row]:
        rows: list[Row] = pq.ParquetFile(self.path).read().to_pylist()
        return rows


@dataclass(frozen=True)
class PlannedShard:
    """A shard of the plan: its number, the digest of its rows, and the rows."""

    ordinal: int
    digest: str
    rows: LazyRows


@dataclass(frozen=True)
class PlanChanges:
    """What a listing has changed: photos new in the plan, changed since, and no longer listed."""

    added: int
    modified: int
    removed: int


@dataclass
class _KnownPhotos:
    """Hashes of all photos of the plan, in order of their ids'."""

    ids: Hashes
    versions: Hashes
    shards: npt.NDArray[np.int32]
    seen: npt.NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        order = np.argsort(self.ids)
        self.ids, self.versions, self.shards = self.ids[order], self.versions[order], self.shards[order]
        self.seen = np.zeros(len(self.ids), np.bool_)

    def positions(self, ids: Hashes) -> npt.NDArray[np.int64]:
        """Return where each of some ids is, -1 where it is not."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[places] == ids, places, -1)


@dataclass(frozen=True)
class DetectionPlan:
    """The plan in a folder of results."""

    folder: Path
    disk_retry_seconds: float = 600.0

    @property
    def path(self) -> Path:
        """The plan's own folder."""
        return self.folder / PLAN_FOLDER

    def shards(self) -> list[PlannedShard]:
        """Return the shards as they are planned."""
        names = self.path.iterdir() if self.path.is_dir() else ()
        found = [(int(match[1]), match[2], path) for path in names if (match := SHARD_FILE.fullmatch(path.name))]
        found.sort(key=lambda entry: (entry[0], entry[2].stat().st_mtime_ns))
        latest = {ordinal: (digest, path) for ordinal, digest, path in found}  # of a change that was cut short, the new
        try:
            return [
                PlannedShard(ordinal, digest, LazyRows(path, pq.read_metadata(path).num_rows))
                for ordinal, (digest, path) in latest.items()
            ]
        except pa.ArrowInvalid as error:
            raise FacadeError(
                f"{self.path} is corrupt ({str(error).splitlines()[0]}); remove that folder and run this again."
            ) from None

    def update(self, listing: Iterable[Row], limit: int | None, progress: Progress) -> PlanChanges:
        """Take a listing into the plan, at most so many photos in all; the plan is the old one until all is listed."""
        shutil.rmtree(self.path / NEW_PLAN_FOLDER, ignore_errors=True)
        planned = self.compare(listing, limit, self.path / NEW_PLAN_FOLDER, progress)
        self._commit(self.path / NEW_PLAN_FOLDER)
        return planned

    def compare(self, listing: Iterable[Row], limit: int | None, new_folder: Path, progress: Progress) -> PlanChanges:
        """Write the shards that a listing adds and those that it changes into an empty folder."""
        shards = self.shards()
        known, fresh, waiting = self._known_photos(shards), array("Q"), list[Row]()
        changes: dict[int, dict[str, Row]] = {}
        ordinal = shards[-1].ordinal + 1 if shards else 0
        room = None if limit is None else max(limit - len(known.ids), 0)
        rows = iter(listing)
        while part := list(islice(rows, MAX_SHARD_PHOTOS)):
            ids = _hashes(row["image_id"] for row in part)
            for row, place, hashed in zip(part, known.positions(ids).tolist(), ids.tolist(), strict=True):
                if place < 0 and (room is None or len(fresh) < room):
                    fresh.append(hashed)
                    waiting.append(row)
                elif place >= 0:
                    self._reconcile(known, place, row, changes)
            while len(waiting) >= (size := shard_size(ordinal)):
                self._write(new_folder, ordinal, waiting[:size])
                ordinal, waiting = ordinal + 1, waiting[size:]
            progress.advance(len(part))
            if room is not None and len(fresh) >= room and known.seen.all():
                break
        progress.close()
        if waiting:
            self._write(new_folder, ordinal, waiting)
        self._check_unique(fresh, new_folder)
        changed = self._rewrite(new_folder, shards, changes)
        return PlanChanges(len(fresh), changed, 0 if limit is not None else int((~known.seen).sum()))

    def _known_photos(self, shards: Sequence[PlannedShard]) -> _KnownPhotos:
        ids, stamps, numbers = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
        for shard in shards:
            table = pq.ParquetFile(shard.rows.path).read(["image_id", "version"])
            ids.append(_hashes(table["image_id"].to_pylist()))
            stamps.append(_hashes(table["version"].to_pylist()))
            numbers.append(np.full(len(table), shard.ordinal, np.int32))
        return _KnownPhotos(np.concatenate(ids), np.concatenate(stamps), np.concatenate(numbers))

    @staticmethod
    def _reconcile(known: _KnownPhotos, index: int, row: Row, changes: dict[int, dict[str, Row]]) -> None:
        """Note that a photo of the plan is still there, and whether it has changed."""
        if known.seen[index]:
            raise _duplicate_id_error(row["image_id"])
        known.seen[index] = True
        if int(known.versions[index]) != _hash(row["version"]):
            changes.setdefault(int(known.shards[index]), {})[row["image_id"]] = row

    def _write(self, folder: Path, ordinal: int, rows: Sequence[Row]) -> None:
        table, buffer = table_from_rows("plan", rows), io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        name = f"{ordinal:05d}-{content_digest(table)[:16]}.parquet"
        write_bytes(folder / name, buffer.getvalue(), self.disk_retry_seconds)

    @staticmethod
    def _check_unique(new_ids: array[int], folder: Path) -> None:
        """Refuse two photos of one id: their rows could not be told apart."""
        values, counts = np.unique(np.frombuffer(new_ids, np.uint64), return_counts=True)
        if (counts > 1).any():
            twice = set(values[counts > 1].tolist())
            for path in sorted(folder.iterdir()):
                for name in pq.ParquetFile(path).read(["image_id"])["image_id"].to_pylist():
                    if _hash(name) in twice:
                        raise _duplicate_id_error(name)

    def _rewrite(self, folder: Path, shards: Sequence[PlannedShard], changes: dict[int, dict[str, Row]]) -> int:
        for shard in shards:
            if own := changes.get(shard.ordinal):
                self._write(folder, shard.ordinal, [own.get(row["image_id"], row) for row in shard.rows])
        return sum(map(len, changes.values()))

    def _commit(self, folder: Path) -> None:
        """Move new shards to the others, in their order, so that a plan cut short is the beginning of the whole."""
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            path.replace(self.path / path.name)
        shutil.rmtree(folder, ignore_errors=True)
        listed = {shard.rows.path for shard in self.shards()}
        for path in self.path.glob("*.parquet"):
            if path not in listed:
                path.unlink()


def shard_size(ordinal: int) -> int:
    """Return the number of photos of a shard, by its ordinal alone.

    The first are small, so that a few hundred photos keep all workers busy too; the others large, so that a city's are
    no more tasks and files than need be.
    """
    return min(MAX_SHARD_PHOTOS, FIRST_SHARD_PHOTOS << min(ordinal // SHARDS_PER_SIZE, 10))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _hashes(texts: Iterable[str]) -> Hashes:
    return np.fromiter(map(_hash, texts), np.uint64)


def _duplicate_id_error(image_id: str) -> FacadeError:
    return FacadeError(f"two photos of the source have the id {image_id!r}; give each its own, or list each once.")
