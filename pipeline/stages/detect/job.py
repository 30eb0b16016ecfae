"""A detection job: which photos, which model, which results folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import UsageError
from pipeline.stages.detect.inference import Finder
from pipeline.stages.detect.sources import list_photos
from pipeline.storage.files import is_remote
from pipeline.storage.stage_folder import MANIFEST, StageFolder

__all__ = ["HELD_OUT", "SPLITS", "Job", "index_of"]

HELD_OUT: Final = "held-out"  # what a model has not learnt from: val to fit thresholds on, test to judge by


SPLITS: Final = ("train", "val", "test", HELD_OUT, "all")


@dataclass(frozen=True)
class Job:
    """What to find where.

    Attributes:
        source: as the user named it, see `list_photos`, or a work folder.
        finder: the network.
        out: the folder of results.
        split: of a work folder, the photos to read, one of `SPLITS`.
        limit: at most so many photos.
        retry: do rejected photos once more.
        drawings: draw so many photos with what is found in them.
        shards: only these of the plan, from and up to (the last not included); the plan is taken as it is.
        anew: results of another model or other settings give way, in place of being an error.
    """

    source: str
    finder: Finder
    out: Path
    split: str = HELD_OUT
    limit: int | None = None
    retry: bool = False
    drawings: int = 0
    shards: tuple[int, int] | None = None
    anew: bool = False

    @property
    def truth(self) -> StageFolder | None:
        """The boxes of the work folder that the source is, if there are any."""
        folder = StageFolder(Path(self.source), "extract")
        return folder if self.indexed and folder.manifest() else None

    @property
    def indexed(self) -> StageFolder | None:
        """The index of the work folder that the source is, if it is one."""
        return index_of(self.source)


def index_of(source: str) -> StageFolder | None:
    """Return the index of a source that is a work folder."""
    folder = StageFolder(Path(source), "index")
    return folder if not is_remote(source) and (folder.path / MANIFEST).is_file() else None


def photo_rows(job: Job, datasets: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the source."""
    if job.indexed is None:
        if datasets:
            raise UsageError(f"detect.datasets is for work folders, and {job.source} is none; leave it out.")
        return list_photos(job.source, job.out.absolute())
    known = {receipt.dataset for receipt in job.indexed.require_manifest().receipts}
    if unknown := sorted(set(datasets) - known):
        raise UsageError(f"detect.datasets: {job.source} has no {unknown[0]}; it has {', '.join(sorted(known))}.")
    names = ["image_id", "dataset", "uri", "sha256", "split", "latitude", "longitude", "heading"]
    rows = job.indexed.read("images", columns=names).to_pylist()
    wanted = (row for row in rows if _is_of(job.split, row["split"]) and row["dataset"] in (datasets or known))
    return ({**row, "stamp": row["sha256"], "inside": None, "extra": None} for row in wanted)


def _is_of(wanted: str, split: str) -> bool:
    return wanted in ("all", split) or (wanted == HELD_OUT and split != "train")
