"""`verify`: every manifest of a work folder against the files it lists."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import FacadeError
from pipeline.storage.manifest import Manifest, Receipt, TableFile
from pipeline.storage.schemas import check_schema, content_digest
from pipeline.storage.stage_folder import MANIFEST_FILE, StageFolder

__all__ = ["VerifyReport", "verify"]


@dataclass(frozen=True)
class VerifyReport:
    """What was checked, and the errors, one sentence each."""

    stages: tuple[str, ...]
    files: int
    rows_in: int
    rows_out: int
    rejected: int
    problems: tuple[str, ...]


def verify(work: Path, progress: Callable[[int, int], None] = lambda *_: None) -> VerifyReport:
    """Return the findings on all finished stages below a folder."""
    read = [(path.parent, Manifest.from_json(path.read_bytes(), path)) for path in sorted(work.rglob(MANIFEST_FILE))]
    if not read:
        raise FacadeError(f"{work} holds no finished stage; point at a work folder in which a stage has completed.")
    manifests = [(StageFolder(place.parent, manifest.stage, custom_path=place), manifest) for place, manifest in read]
    files = [(folder, receipt) for folder, manifest in manifests for receipt in manifest.receipts]
    problems: list[str] = []
    for done, (folder, receipt) in enumerate(files, start=1):
        problems += _problems(folder, receipt)
        progress(done, len(files))
    problems += [problem for folder, manifest in manifests for problem in _unlisted_files(folder, manifest)]
    totals = {name: sum(m.total(name) for _, m in manifests) for name in ("rows_in", "rows_out", "rejected")}
    stages = tuple(folder.stage for folder, _ in manifests)
    return VerifyReport(stages, sum(len(r.tables) for _, r in files), **totals, problems=tuple(problems))


def _problems(folder: StageFolder, receipt: Receipt) -> Iterator[str]:
    for name, entry in receipt.tables.items():
        path = folder.path / entry.file
        if not path.is_file():
            yield f"{path} is missing; run `facade {folder.stage}` again"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
            yield f"{path} is not the file that was written; delete it and run `facade {folder.stage}` again"
        else:
            yield from _table_problems(path, name, entry)


def _table_problems(path: Path, name: str, entry: TableFile) -> Iterator[str]:
    try:
        table = pq.ParquetFile(path).read()
        check_schema(table.schema, name, str(path))
    except (FacadeError, pa.ArrowInvalid) as error:
        yield str(error)
        return
    if len(table) != entry.rows:
        yield f"{path} has {len(table)} rows, its manifest says {entry.rows}"
    if content_digest(table) != entry.content:
        yield f"{path} does not say what its manifest says it does"


def _unlisted_files(folder: StageFolder, manifest: Manifest) -> Iterator[str]:
    listed = {entry.file for receipt in manifest.receipts for entry in receipt.tables.values()}
    for path in sorted(folder.path.glob("[!_]*/*.parquet")):
        if path.relative_to(folder.path).as_posix() not in listed:
            yield f"{path} is in no manifest; run `facade {folder.stage}` again, which finishes or deletes it"
