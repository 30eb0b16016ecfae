"""What a training run is decided to be before any photo is decoded: settings, priors, network, rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.config import read_text
from pipeline.errors import FacadeError, UsageError
from pipeline.execution.runner import Context
from pipeline.models.bundle import told
from pipeline.models.prior_specs import priors_named
from pipeline.stages.train.config import BACKBONES, CHOSEN, TrainConfig
from pipeline.stages.train.data import Material, gather
from pipeline.stages.train.initial_weights import identity
from pipeline.storage.files import json_digest
from ssd import PRESETS, SSD, ModelConfig, PriorSpec, backbone_for
from ssd import TrainConfig as Learning

__all__ = ["TrainingPlan", "decide"]


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that is decided before a photo is decoded."""

    config: TrainConfig
    learning: Learning
    model: ModelConfig
    material: Material
    start: str
    source: str

    @property
    def name(self) -> str:
        """The run's folder: the preset, and a digest of all that decides the run."""
        network = [self.model.to_json(), identity(self.start)]
        decided = [self.material.digest, self.learning.to_json(), network, self.config.side]
        weights = [sorted(self.material.weights.items()), self.material.counts()]
        return f"{self.config.named()}-{json_digest([decided, weights])[:10]}"

    def settings(self) -> dict[str, Any]:
        """Return what MLflow and the bundle tell of the run."""
        priors = self.model.priors
        return {
            "train": {
                "preset": self.config.named(),
                "backbone": self.model.backbone.name,
                "fusion": self.model.backbone.fusion,
                "classes": list(self.model.classes),
                "start": Path(self.start).name,  # a bundle travels, this machine's folders do not
                "side": self.config.side,
                **self.learning.to_json(),
            },
            "priors": {"name": priors.name, "source": self.source, "count": priors.count},
            "data": {
                "digest": self.material.digest,
                "datasets": self.material.datasets(),
                "weights": dict(self.material.weights),
                "photos": self.material.counts(),
            },
        }


def decide(context: Context, config: TrainConfig) -> TrainingPlan:
    """Return what is trained, on what, and how."""
    learning = config.learning()
    backbone, start = BACKBONES.get(config.named(), ("vgg16", "imagenet"))
    backbone = config.backbone or backbone
    start = config.start or (start if backbone != "tiny" else "none")
    material = gather(context, config.weights(), config.classes)
    if config.everything:
        material = replace(material, rows=[{**row, "split": "train"} for row in material.rows])
    spec, source = _priors(context, config.priors)
    with told("train.priors"):
        model = ModelConfig(spec, material.classes, replace(backbone_for(backbone, spec), fusion=config.fusion))
        with torch.device("meta"):  # without weights: only to see that all of it fits together
            SSD(model)
    return TrainingPlan(config, learning, model, material, start, source)


def _priors(context: Context, name: str) -> tuple[PriorSpec, str]:
    """Return the priors to train with, and what has made them."""
    path = context.folder("priors").path / "priors.json"
    if name in PRESETS:
        return priors_named(name), "preset"  # type: ignore[return-value]
    if name.endswith(".json"):
        return priors_named(name), Path(name).name  # type: ignore[return-value]
    if not path.exists():
        raise FacadeError(
            f"{path} is not there; run `facade priors` first, or choose priors with --set train.priors=paper_coco."
        )
    data = json.loads(read_text(path))
    chosen = data["chosen"] if name == CHOSEN else name
    if chosen not in data["specs"]:
        raise UsageError(
            f"train.priors: {name!r} is none of {CHOSEN}, {', '.join(sorted({*data['specs'], *PRESETS}))}, or a file "
            "named *.json."
        )
    return PriorSpec.from_json(data["specs"][chosen]), f"priors, {name}"
