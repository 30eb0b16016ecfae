"""A shard of photos and a network become the `photos`, `detections` and `rejected` tables; this runs in workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.assets import DEFAULT_MODEL, is_packaged, resolve_bundle
from pipeline.errors import FacadeError
from pipeline.execution.parallel import concurrent_shards, cpu_count, report_progress, worker_number
from pipeline.execution.sharding import rejected_row
from pipeline.imaging.image_io import decode_upright_photo
from pipeline.models.operating_point import OperatingPoint, load_operating_point
from pipeline.stages.detect.config import DONE, NAME, REJECTED, DetectConfig
from pipeline.stages.detect.sources import read_photo
from pipeline.storage.schemas import COORDINATES, SCHEMAS, empty_table, table_from_rows

if TYPE_CHECKING:
    from ssd import BatchedModel, Detections, LoadedPhoto, StreamResult

__all__ = ["BundleDetectorSpec", "DetectorSpec", "LoadedModel", "detect_rows", "detector_spec", "tables_for_lost_row"]

PROGRESS_INTERVAL: Final = 32


@dataclass(frozen=True)
class LoadedModel:
    """A network that is ready to find, its classes, and the least size (height, width) that it wants of a photo."""

    network: BatchedModel
    classes: tuple[str, ...]
    min_size: tuple[int, int]
    batch: int
    operating_point: OperatingPoint | None = None


class DetectorSpec(Protocol):
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
    def operating_point_digest(self) -> str | None:
        """What its operating point is, if it has one."""

    def load(self, config: DetectConfig) -> LoadedModel:
        """Return the network, ready."""


@dataclass(frozen=True)
class BundleDetectorSpec:
    """A bundle by its path, and the digests that it and its operating point must still have where it is opened."""

    path: str
    digest: str
    operating_point_digest: str | None = None
    classes: tuple[str, ...] = ()

    def load(self, config: DetectConfig) -> LoadedModel:
        """Return the bundle's network on this process's device, opened once however many threads ask for it."""
        with _load_lock:
            return _load_model(self, config)


def detector_spec(folder: Path, use_operating_point: bool = True) -> BundleDetectorSpec:
    """Make the detector spec of a bundle that a user named.

    Args:
        folder: the bundle.
        use_operating_point: select by its operating point, if it has one. Detections that are to be evaluated do not:
            the evaluation fits that point, and would change what it is fitted to.

    Raises:
        FacadeError: if the bundle cannot be used.
    """
    from pipeline.models.bundle import open_bundle
    from ssd import bundle_digest

    classes = tuple(open_bundle(folder).model.config.classes)
    digest = bundle_digest(folder)
    point = load_operating_point(folder, digest) if use_operating_point else None
    path = DEFAULT_MODEL if is_packaged(folder) else str(folder.absolute())  # every machine has its own copy of that
    return BundleDetectorSpec(path, digest, point.digest if point else None, classes)


_load_lock = Lock()


@lru_cache(1)
def _load_model(spec: BundleDetectorSpec, config: DetectConfig) -> LoadedModel:
    from dataclasses import replace

    import torch

    from pipeline.models.bundle import open_bundle, translate_errors
    from ssd import Detector, TiledDetector, TilingConfig, best_batch, bundle_digest, tune_malloc
    from ssd.device import resolve_device

    folder = resolve_bundle(spec.path)
    bundle = open_bundle(folder)
    if (found := bundle_digest(folder)) != spec.digest:
        raise FacadeError(
            f"{folder} has changed since the command began ({found[:12]}); run it again on another --out."
        )
    point = load_operating_point(folder, spec.digest) if spec.operating_point_digest else None
    if spec.operating_point_digest and (point is None or point.digest != spec.operating_point_digest):
        raise FacadeError(f"the operating point in {folder} has changed since the command began; run it again.")
    changes = {name: getattr(config, name) for name in ("min_score", "nms_iou", "max_detections")}
    bundle = replace(bundle, decode=replace(bundle.decode, **{k: v for k, v in changes.items() if v is not None}))
    with translate_errors("detect.device"):
        device = resolve_device(config.device, worker_number())  # of several GPUs the one that is this process's
    if device.type == "cpu":
        tune_malloc()
    else:
        torch.set_num_threads(1)  # for each of the threads that read
    detector = Detector(bundle, device, config.bfloat16)
    height, width = detector.input_size
    tiling = TilingConfig(config.tile_levels, config.tile_overlap)
    network = TiledDetector(detector, tiling) if config.tile else detector
    batch = config.batch or best_batch(detector, torch.zeros(1, 3, height, width, dtype=torch.uint8))
    least = (height, width) if config.downscale_on_read and not config.tile else (0, 0)
    return LoadedModel(network, tuple(bundle.model.config.classes), least, batch, point)


def _default_reader_threads(device: str) -> int:
    """Return the number of reading threads per shard: two on a CPU, for a GPU its share of all cores."""
    import torch

    if device == "cpu":
        return 2
    return max(2, cpu_count() // (torch.cuda.device_count() * concurrent_shards()))


def detect_rows(rows: Sequence[dict[str, Any]], spec: DetectorSpec, config: DetectConfig) -> dict[str, pa.Table]:
    """Run the detector over the photos of a shard."""
    from ssd import InferenceStream

    opened = spec.load(config)
    read = partial(_read_photo, min_size=opened.min_size, max_pixels=config.max_pixels)
    stream = InferenceStream(
        opened.network, read, config.reader_threads or _default_reader_threads(opened.network.device.type), opened.batch
    )
    kept = _TableBuilder(opened, spec.digest, config.threshold)
    for number, found in enumerate(stream(rows), start=1):
        kept.add(found)
        if number % PROGRESS_INTERVAL == 0:
            report_progress(PROGRESS_INTERVAL)
    report_progress(len(rows) % PROGRESS_INTERVAL)
    return kept.build()


def tables_for_lost_row(row: dict[str, Any], stage: str, error: Exception) -> dict[str, pa.Table]:
    """Return the tables of a photo that crashes its process."""
    photo = _photo_row(row, REJECTED, None, 0)
    rejected = rejected_row(row, stage, error)
    return {"photos": table_from_rows("photos", [photo]), "rejected": table_from_rows("rejected", [rejected])}


def _read_photo(row: dict[str, Any], min_size: tuple[int, int], max_pixels: int) -> LoadedPhoto:
    """Return a photo of the plan as the network wants it; what its file says of its place goes into the row."""
    import torch

    from ssd import LoadedPhoto

    pixels, facts = decode_upright_photo(read_photo(row), min_size, max_pixels)
    if row["latitude"] is None and row["longitude"] is None:  # both of one source, or it would be another place
        row["latitude"], row["longitude"] = facts.latitude, facts.longitude
    if row["heading"] is None:
        row["heading"] = facts.heading
    return LoadedPhoto(torch.from_numpy(pixels).permute(2, 0, 1), (facts.height, facts.width))


def _photo_row(row: dict[str, Any], status: str, size: tuple[int, int] | None, detections: int) -> dict[str, Any]:
    kept = {name: row[name] for name in ("image_id", "uri", "latitude", "longitude", "heading", "extra")}
    height, width = size or (None, None)
    return {**kept, "status": status, "width": width, "height": height, "detections": detections}


class _TableBuilder:
    """The tables of a shard, as they grow."""

    def __init__(self, model: LoadedModel, digest: str, threshold: float | None) -> None:
        self.classes, self.operating_point = np.array(["", *model.classes]), model.operating_point
        self.digest, self.threshold = digest, threshold
        self.photos: list[dict[str, Any]] = []
        self.rejected: list[dict[str, Any]] = []
        self.detections: list[tuple[str, Detections]] = []

    def add(self, result: StreamResult[dict[str, Any]]) -> None:
        """Add the result of a photo."""
        row, count = result.item, 0
        if result.error is not None:
            self.rejected.append(rejected_row(row, NAME, result.error))
        if result.detections is not None:
            self.detections.append((row["image_id"], result.detections))
            count = len(result.detections)
        status = DONE if result.error is None else REJECTED
        self.photos.append(_photo_row(row, status, result.size, count))

    def build(self) -> dict[str, pa.Table]:
        """Return the tables."""
        return {
            "photos": table_from_rows("photos", self.photos),
            "detections": self._detections_table(),
            "rejected": table_from_rows("rejected", self.rejected),
        }

    def _detections_table(self) -> pa.Table:
        if not self.detections:
            return empty_table("detections")
        boxes, labels, scores = (
            np.concatenate([getattr(one, name).numpy() for _, one in self.detections])
            for name in ("boxes", "labels", "scores")
        )
        names = self.classes[labels]
        counts = [len(one) for _, one in self.detections]
        photos = np.repeat(np.arange(len(counts)), counts)
        probabilities, selected = self._select(names, photos, scores)
        # As arrays, not row by row: in Python a shard's ids would take as long as a GPU takes for half its photos.
        images = pa.array([image_id for image_id, _ in self.detections], pa.string()).take(pa.array(photos))
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

    def _select(self, names: Any, photos: Any, scores: Any) -> tuple[Any, Any]:
        """Return the probabilities of detections, and which are selected."""
        point = self.operating_point or OperatingPoint("", 0, "", {})
        probabilities, chosen = point.apply(names, photos, scores)
        return probabilities, chosen if self.threshold is None else scores >= self.threshold
