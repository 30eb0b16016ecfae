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
from pipeline.models.bundle import translate_errors
from pipeline.models.prior_specs import load_prior_spec
from pipeline.stages.train.config import CHOSEN_PRIORS, PRESET_BACKBONES, TrainConfig
from pipeline.stages.train.data import TrainingRows, load_training_rows
from pipeline.stages.train.initial_weights import weights_fingerprint
from pipeline.storage.files import json_digest
from ssd import PRESETS, SSD, ModelConfig, PriorSpec, backbone_for
from ssd import TrainConfig as Learning

__all__ = ["TrainingPlan", "make_plan"]


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that is decided before a photo is decoded."""

    config: TrainConfig
    ssd_config: Learning
    model: ModelConfig
    training_rows: TrainingRows
    init_weights: str
    priors_source: str

    @property
    def name(self) -> str:
        """The run's folder: the preset, and a digest of all that decides the run."""
        network = [self.model.to_json(), weights_fingerprint(self.init_weights)]
        decided = [self.training_rows.digest, self.ssd_config.to_json(), network, self.config.max_side]
        weights = [sorted(self.training_rows.weights.items()), self.training_rows.split_counts()]
        return f"{self.config.preset_name()}-{json_digest([decided, weights])[:10]}"

    def settings(self) -> dict[str, Any]:
        """Return the settings that MLflow and the bundle record."""
        priors = self.model.priors
        return {
            "train": {
                "preset": self.config.preset_name(),
                "backbone": self.model.backbone.name,
                "fusion": self.model.backbone.fusion,
                "classes": list(self.model.classes),
                "init_weights": Path(self.init_weights).name,  # a bundle travels, this machine's folders do not
                "side": self.config.max_side,
                **self.ssd_config.to_json(),
            },
            "priors": {"name": priors.name, "source": self.priors_source, "count": priors.count},
            "data": {
                "digest": self.training_rows.digest,
                "datasets": self.training_rows.datasets(),
                "weights": dict(self.training_rows.weights),
                "photos": self.training_rows.split_counts(),
            },
        }


def make_plan(context: Context, config: TrainConfig) -> TrainingPlan:
    """Resolve the settings of a training run: the data, the network and how it is trained."""
    learning = config.to_ssd_config()
    backbone, start = PRESET_BACKBONES.get(config.preset_name(), ("vgg16", "imagenet"))
    backbone = config.backbone or backbone
    start = config.init_weights or (start if backbone != "tiny" else "none")
    material = load_training_rows(context, config.dataset_weights(), config.classes)
    if config.use_all_splits:
        material = replace(material, rows=[{**row, "split": "train"} for row in material.rows])
    spec, source = _load_priors(context, config.priors)
    with translate_errors("train.priors"):
        model = ModelConfig(spec, material.classes, replace(backbone_for(backbone, spec), fusion=config.fusion))
        with torch.device("meta"):  # without weights: only to see that all of it fits together
            SSD(model)
    return TrainingPlan(config, learning, model, material, start, source)


def _load_priors(context: Context, name: str) -> tuple[PriorSpec, str]:
    """Return the priors to train with, and what has made them."""
    path = context.folder("priors").path / "priors.json"
    if name in PRESETS:
        return load_prior_spec(name), "preset"  # type: ignore[return-value]
    if name.endswith(".json"):
        return load_prior_spec(name), Path(name).name  # type: ignore[return-value]
    if not path.exists():
        raise FacadeError(
            f"{path} is not there; run `facade priors` first, or choose priors with --set train.priors=paper_coco."
        )
    data = json.loads(read_text(path))
    chosen = data["chosen"] if name == CHOSEN_PRIORS else name
    if chosen not in data["specs"]:
        raise UsageError(
            f"train.priors: {name!r} is not one of {CHOSEN_PRIORS}, {', '.join(sorted({*data['specs'], *PRESETS}))}, "
            "nor a file named *.json."
        )
    return PriorSpec.from_json(data["specs"][chosen]), f"priors, {name}"
