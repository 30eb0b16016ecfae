"""A finder that knows what is true and gets some of it wrong, and what it finds judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.stages.detect import stage as detect
from pipeline.stages.detect.config import DetectConfig
from pipeline.stages.detect.inference import LoadedModel
from pipeline.stages.evaluate import stage as evaluate
from pipeline.stages.evaluate.stage import EvaluateConfig
from ssd import Detections

from ..conftest import Workspace
from .noise_model import CLASSES


@dataclass(frozen=True)
class OracleSpec:
    """A finder that knows what is true, and gets some of it wrong."""

    ground_truths: dict[int, Any]
    digest: str = "knowing"
    path: str = ""
    operating_point_digest: str | None = None
    classes: tuple[str, ...] = CLASSES

    def load(self, _: DetectConfig) -> LoadedModel:
        """Return the network."""
        return LoadedModel(_OracleModel(self.ground_truths), CLASSES, (0, 0), 4)


class _OracleModel:
    def __init__(self, ground_truths: dict[int, Any]) -> None:
        import torch

        self.ground_truths, self.device = ground_truths, torch.device("cpu")

    def inputs_of(self, photo: Any) -> Any:
        """Return the photo's fingerprint."""
        import torch

        return torch.tensor([[int(photo.to(torch.int64).sum())]])

    def outputs(self, inputs: Any) -> Any:
        """Return the fingerprints."""
        return inputs, inputs

    def detections_of(self, outputs: Any, _: Any) -> list[Detections]:
        """Return what is true, off by a little, and a box of nothing."""
        import torch

        found = []
        for key in outputs[0].flatten().tolist():
            boxes, labels = self.ground_truths[key]
            generator = np.random.default_rng(key)
            kept = generator.random(len(boxes)) < 0.9
            moved = boxes[kept] + generator.normal(0, 0.3, (kept.sum(), 4))
            moved = np.concatenate([moved, [[1, 1, 9, 9]]])
            scores = np.append(generator.beta(12, 3, kept.sum()), generator.beta(2, 8))
            found.append(
                Detections(
                    torch.tensor(moved, dtype=torch.float32),
                    torch.tensor(np.append(labels[kept], 2)),
                    torch.tensor(scores, dtype=torch.float32),
                )
            )
        return found


def oracle_spec(work: Workspace) -> OracleSpec:
    from pipeline.imaging.image_io import decode_photo
    from pipeline.storage.files import read_bytes

    boxes = work.rows("extract", "boxes")
    truths = {}
    for row in work.rows("index", "images"):
        own = [box for box in boxes if box["image_id"] == row["image_id"]]
        xyxy = np.array([[box[name] for name in ("xmin", "ymin", "xmax", "ymax")] for box in own]).reshape(-1, 4)
        labels = np.array([1 + CLASSES.index(box["label"]) for box in own])
        truths[int(decode_photo(read_bytes(row["uri"])).astype(np.int64).sum())] = (xyxy, labels)
    return OracleSpec(truths)


def run_detect(work: Workspace, spec: Any = None, **changes: Any) -> Any:
    place = work.context.folder("detect").path
    job = detect.Job(str(work.context.work), spec or oracle_spec(work), place)
    return detect.run(work.context, DetectConfig(), replace(job, **changes))


def run_evaluate(work: Workspace, **settings: Any) -> Any:
    return evaluate.run(work.context, EvaluateConfig(**{"bootstrap_samples": 50, "previews": 3, **settings}))
