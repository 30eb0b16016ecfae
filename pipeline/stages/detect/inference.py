"""A shard of photos and a network become the `photos`, `detections` and `rejected` tables; this runs in workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.assets import DEFAULT, bundle_named, is_shipped
from pipeline.errors import FacadeError
from pipeline.execution.parallel import shards_at_once, tell
from pipeline.execution.sharding import rejected_row
from pipeline.imaging.image_io import upright_photo
from pipeline.models.operating_point import OperatingPoint, load_operating
from pipeline.stages.detect.config import DONE, NAME, REJECTED, DetectConfig
from pipeline.stages.detect.retry import Redone, redo
from pipeline.stages.detect.sources import read_photo
from pipeline.storage.schemas import COORDINATES, SCHEMAS, empty_table, table_from_rows

if TYPE_CHECKING:
    from ssd import Detections, Found, Network, Read

__all__ = ["BundleFinder", "Finder", "Opened", "bundle_finder", "find_rows", "given_up"]

TOLD_EVERY: Final = 32


@dataclass(frozen=True)
class Opened:
    """A network that is ready to find, its classes, and the least size (height, width) that it wants of a photo."""

    network: Network
    classes: tuple[str, ...]
    least: tuple[int, int]
    batch: int
    point: OperatingPoint | None = None


class Finder(Protocol):
    """What travels to the workers in place of a network: it is opened there, once a process."""

    @property
    def digest(self) -> str:
        """What the network is, in `model_digest` of each detection."""

    @property
    def path(self) -> str:
        """Where it lies, for those who want to know more of it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What it can find."""

    @property
    def operating(self) -> str | None:
        """What its operating point is, if it has one."""

    def open(self, config: DetectConfig) -> Opened:
        """Return the network, ready."""


@dataclass(frozen=True)
class BundleFinder:
    """A bundle by its path, and the digests that it and its operating point must still have where it is opened."""

    path: str
    digest: str
    operating: str | None = None
    classes: tuple[str, ...] = ()

    def open(self, config: DetectConfig) -> Opened:
        """Return the bundle's network on this process's device, opened once however many threads ask for it."""
        with _opening:
            return _opened(self, config)


def bundle_finder(folder: Path, chooses: bool = True) -> BundleFinder:
    """Return the finder of a bundle that a user named, or say in a sentence why it cannot be used.

    `chooses` by its operating point, if it has one. What is found in order to be judged does not: the judgement is what
    makes that point, and would change what it is made from.
    """
    from pipeline.models.bundle import open_bundle
    from ssd import bundle_digest

    classes = tuple(open_bundle(folder).model.config.classes)
    digest = bundle_digest(folder)
    point = load_operating(folder, digest) if chooses else None
    path = DEFAULT if is_shipped(folder) else str(folder.absolute())  # every machine has its own copy of that
    return BundleFinder(path, digest, point.digest if point else None, classes)


_opening = Lock()


@lru_cache(1)
def _opened(finder: BundleFinder, config: DetectConfig) -> Opened:
    from dataclasses import replace

    import torch

    from pipeline.models.bundle import open_bundle
    from ssd import Detector, Tiled, TilingConfig, best_batch, bundle_digest, keep_freed_memory

    folder = bundle_named(finder.path)
    bundle = open_bundle(folder)
    if (found := bundle_digest(folder)) != finder.digest:
        raise FacadeError(
            f"{folder} has changed since the command began ({found[:12]}); run it again on another --out."
        )
    point = load_operating(folder, finder.digest) if finder.operating else None
    if finder.operating and (point is None or point.digest != finder.operating):
        raise FacadeError(f"the operating point in {folder} has changed since the command began; run it again.")
    changes = {name: getattr(config, name) for name in ("score", "overlap", "keep")}
    bundle = replace(bundle, decode=replace(bundle.decode, **{k: v for k, v in changes.items() if v is not None}))
    device = _device(config.device)
    if device == "cpu":
        keep_freed_memory()
    else:
        torch.set_num_threads(1)  # for each of the threads that read
    detector = Detector(bundle, device, config.bfloat16)
    height, width = detector.input_size
    tiling = TilingConfig(config.tile_levels, config.tile_overlap)
    network = Tiled(detector, tiling) if config.tile else detector
    batch = config.batch or best_batch(detector, torch.zeros(1, 3, height, width, dtype=torch.uint8))
    least = (height, width) if config.scaled and not config.tile else (0, 0)
    return Opened(network, tuple(bundle.model.config.classes), least, batch, point)


def _device(name: str) -> str:
    """Return the device of this process: of several GPUs the one that is its own."""
    import torch

    from pipeline.execution.parallel import worker_number

    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise FacadeError(
            "detect.device is cuda, but PyTorch finds no GPU here; leave it out, or install its CUDA build."
        )
    return f"cuda:{worker_number() % torch.cuda.device_count()}"


def _readers(device: str) -> int:
    """Return how many threads read for a shard: beside a processor's network two, for a GPU its share of all cores."""
    import torch

    if device == "cpu":
        return 2
    return max(2, len(os.sched_getaffinity(0)) // (torch.cuda.device_count() * shards_at_once()))


def find_rows(rows: Sequence[dict[str, Any]], finder: Finder, config: DetectConfig) -> dict[str, pa.Table]:
    """Return the tables of a shard of the plan."""
    if isinstance(rows, Redone):
        return redo(rows, partial(_found, finder=finder, config=config))
    return _found(rows, finder, config)


def given_up(row: dict[str, Any], rejected: dict[str, Any]) -> dict[str, pa.Table]:
    """Return the tables of a photo that was rejected before its shard came to it."""
    photo = _photo_row(row, REJECTED, None, 0)
    return {"photos": table_from_rows("photos", [photo]), "rejected": table_from_rows("rejected", [rejected])}


def _found(rows: Sequence[dict[str, Any]], finder: Finder, config: DetectConfig) -> dict[str, pa.Table]:
    from ssd import Stream

    opened = finder.open(config)
    read = partial(_read, least=opened.least, max_pixels=config.max_pixels)
    stream = Stream(opened.network, read, config.readers or _readers(opened.network.device.type), opened.batch)
    kept = _Tables(opened, finder.digest, config.select)
    for number, found in enumerate(stream(rows), start=1):
        kept.add(found)
        if number % TOLD_EVERY == 0:
            tell(TOLD_EVERY)
    tell(len(rows) % TOLD_EVERY)
    return kept.tables()


def _read(row: dict[str, Any], least: tuple[int, int], max_pixels: int) -> Read:
    """Return a photo of the plan as the network wants it; what its file says of its place goes into the row."""
    import torch

    from ssd import Read

    pixels, facts = upright_photo(read_photo(row), least, max_pixels)
    if row["latitude"] is None and row["longitude"] is None:  # both of one source, or it would be another place
        row["latitude"], row["longitude"] = facts.latitude, facts.longitude
    if row["heading"] is None:
        row["heading"] = facts.heading
    return Read(torch.from_numpy(pixels).permute(2, 0, 1), (facts.height, facts.width))


def _photo_row(row: dict[str, Any], status: str, size: tuple[int, int] | None, detections: int) -> dict[str, Any]:
    kept = {name: row[name] for name in ("image_id", "uri", "latitude", "longitude", "heading", "extra")}
    height, width = size or (None, None)
    return {**kept, "status": status, "width": width, "height": height, "detections": detections}


class _Tables:
    """The tables of a shard, as they grow."""

    def __init__(self, opened: Opened, digest: str, select: float | None) -> None:
        self.classes, self.point = np.array(["", *opened.classes]), opened.point
        self.digest, self.select = digest, select
        self.photos: list[dict[str, Any]] = []
        self.rejected: list[dict[str, Any]] = []
        self.found: list[tuple[str, Detections]] = []

    def add(self, found: Found[dict[str, Any]]) -> None:
        """Take in what became of a photo."""
        row, count = found.item, 0
        if found.error is not None:
            self.rejected.append(rejected_row(row, NAME, found.error))
        if found.detections is not None:
            self.found.append((row["image_id"], found.detections))
            count = len(found.detections)
        status = DONE if found.error is None else REJECTED
        self.photos.append(_photo_row(row, status, found.size, count))

    def tables(self) -> dict[str, pa.Table]:
        """Return the tables."""
        return {
            "photos": table_from_rows("photos", self.photos),
            "detections": self._detections(),
            "rejected": table_from_rows("rejected", self.rejected),
        }

    def _detections(self) -> pa.Table:
        if not self.found:
            return empty_table("detections")
        boxes, labels, scores = (
            np.concatenate([getattr(one, name).numpy() for _, one in self.found])
            for name in ("boxes", "labels", "scores")
        )
        names = self.classes[labels]
        counts = [len(one) for _, one in self.found]
        photos = np.repeat(np.arange(len(counts)), counts)
        probabilities, selected = self._chosen(names, photos, scores)
        # As arrays, not row by row: in Python a shard's ids would take as long as a GPU takes for half its photos.
        images = pa.array([image_id for image_id, _ in self.found], pa.string()).take(pa.array(photos))
        ranks = pa.array(np.concatenate([np.arange(count) for count in counts])).cast(pa.string())
        columns: dict[str, Any] = {
            "detection_id": pc.binary_join_element_wise(images, ranks, "#"),
            "image_id": images,
            "label": pa.array(self.classes, pa.string()).take(pa.array(labels)),
            "score": scores,
            "probability": pa.array(probabilities.astype(np.float32), mask=np.isnan(probabilities)),
            "selected": selected,
            **{name: boxes[:, axis] for axis, name in enumerate(COORDINATES)},
            "model_digest": pa.repeat(self.digest, len(scores)),
        }
        return pa.Table.from_pydict(columns, schema=SCHEMAS["detections"])

    def _chosen(self, names: Any, photos: Any, scores: Any) -> tuple[Any, Any]:
        """Return what detections are worth, and which are selected."""
        point = self.point or OperatingPoint("", 0, "", {})
        worth, chosen = point.read(names, photos, scores)
        return worth, chosen if self.select is None else scores >= self.select
