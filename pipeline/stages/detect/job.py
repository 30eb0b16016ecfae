"""A detection job: which photos, which model, which results folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import UsageError
from pipeline.stages.detect.inference import DetectorSpec
from pipeline.stages.detect.sources import list_photos
from pipeline.storage.files import is_remote
from pipeline.storage.stage_folder import MANIFEST_FILE, StageFolder

__all__ = ["HELD_OUT", "SPLIT_CHOICES", "Job", "open_index"]

HELD_OUT: Final = "held-out"  # not trained on: val to fit thresholds, test for metrics


SPLIT_CHOICES: Final = ("train", "val", "test", HELD_OUT, "all")


@dataclass(frozen=True)
class Job:
    """What to find where.

    Attributes:
        source: as the user named it, see `list_photos`, or a work folder.
        detector: the network.
        out: the folder of results.
        split: of a work folder, the photos to read, one of `SPLITS`.
        limit: at most so many photos.
        retry_rejected: do rejected photos once more.
        previews: draw so many photos with what is found in them.
        shards: only these of the plan, from and up to (the last not included); the plan is taken as it is.
        overwrite: results of another model or other settings give way, in place of being an error.
    """

    source: str
    detector: DetectorSpec
    out: Path
    split: str = HELD_OUT
    limit: int | None = None
    retry_rejected: bool = False
    previews: int = 0
    shards: tuple[int, int] | None = None
    overwrite: bool = False

    @property
    def ground_truth(self) -> StageFolder | None:
        """The boxes of the work folder that the source is, if there are any."""
        folder = StageFolder(Path(self.source), "extract")
        return folder if self.index and folder.manifest() else None

    @property
    def index(self) -> StageFolder | None:
        """The index of the work folder that the source is, if it is one."""
        return open_index(self.source)


def open_index(source: str) -> StageFolder | None:
    """Return the index of a source that is a work folder."""
    folder = StageFolder(Path(source), "index")
    return folder if not is_remote(source) and (folder.path / MANIFEST_FILE).is_file() else None


def photo_rows(job: Job, datasets: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of the source."""
    if job.index is None:
        if datasets:
            raise UsageError(f"detect.datasets is for work folders, and {job.source} is none; leave it out.")
        return list_photos(job.source, job.out.absolute())
    known = {receipt.dataset for receipt in job.index.require_manifest().receipts}
    if unknown := sorted(set(datasets) - known):
        raise UsageError(f"detect.datasets: {job.source} has no {unknown[0]}; it has {', '.join(sorted(known))}.")
    names = ["image_id", "dataset", "uri", "sha256", "split", "latitude", "longitude", "heading"]
    rows = job.index.read("images", columns=names).to_pylist()
    wanted = (row for row in rows if _matches_split(job.split, row["split"]) and row["dataset"] in (datasets or known))
    return ({**row, "version": row["sha256"], "member": None, "extra": None} for row in wanted)


def _matches_split(requested: str, split: str) -> bool:
    return requested in ("all", split) or (requested == HELD_OUT and split != "train")
