"""What a training run is decided to be before any photo is decoded: settings, priors, network, rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import Field

from pipeline.bundle import told
from pipeline.config import Settings, read_text
from pipeline.errors import FacadeError, UsageError
from pipeline.files import json_digest
from pipeline.model import priors_named
from pipeline.stage import Context
from pipeline.starting import identity
from pipeline.training_data import Material, gather
from ssd import AUGMENTATIONS, PRESETS, SSD, TRAININGS, ModelConfig, PriorSpec, backbone_for
from ssd import TrainConfig as Learning

__all__ = ["TrainConfig", "TrainingPlan", "decide"]

CHOSEN: Final = "chosen"

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]


class TrainConfig(Settings):
    """What to train, on what, and what differs from a preset.

    Attributes:
        preset: epfl (the report), paper, fast (a GPU), light (CPUs), demo; by default fast with a GPU, else light.
        backbone: vgg16, mobilenet_v2 or tiny; the preset's by default.
        fusion: "concat" for Feature-Fused SSD.
        start: "imagenet", "none", "default" (the model that comes along), a file of a trunk, or a bundle's folder; the
            preset's by default.
        priors: "chosen" by `calibrate`, another of its priors by name, a preset, or a JSON file.
        datasets: names, with how often their photos are shown in relation to others; empty is all, all alike.
        classes: what to find; empty is all that the datasets label.
        everything: learn from all photos, whatever their split, and keep the last epoch, for none is left to judge by.
        side: photos are kept in memory with no side longer than this, in pixels.
        device: cpu, cuda or auto.
        checkpoint_minutes: from one checkpoint to the next.

    All others are those of `ssd.TrainConfig`, and the preset's by default; `augmentation` is a name (epfl, paper,
    mild, none) or a table of what differs from the preset's, `loss` such a table.
    """

    preset: Literal["epfl", "paper", "fast", "light", "demo"] | None = None
    backbone: Literal["vgg16", "mobilenet_v2", "tiny"] | None = None
    fusion: Literal["concat"] | None = None
    start: str | None = None
    priors: str = CHOSEN
    datasets: dict[str, Annotated[float, Field(ge=0)]] | tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    everything: bool = False
    side: int = Field(default=600, ge=64)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_minutes: float = Field(default=10.0, ge=0)

    epochs: int | None = None
    batch: int | None = None
    optimiser: Literal["sgd", "adamw"] | None = None
    lr: Positive | None = None
    momentum: Share | None = None
    weight_decay: float | None = None
    bias_factor: Positive | None = None
    warmup: Share | None = None
    decay: Literal["none", "cosine"] | tuple[float, ...] | None = None
    clip: float | None = None
    ema: Share | None = None
    bfloat16: bool | None = None
    best_by: Literal["loss", "map"] | None = None
    validate_every: int | None = None
    patience: int | None = None
    augmentation: str | dict[str, Any] | None = None
    loss: dict[str, Any] | None = None
    seed: int | None = None

    def named(self) -> str:
        """Return the preset."""
        return self.preset or ("fast" if torch.cuda.is_available() else "light")

    def weights(self) -> dict[str, float]:
        """Return the datasets with their weights."""
        return dict(self.datasets) if isinstance(self.datasets, dict) else dict.fromkeys(self.datasets, 1.0)

    def learning(self) -> Learning:
        """Return how to learn: the preset with what differs from it."""
        preset = TRAININGS[self.named()]
        names = {field.name for field in fields(Learning)} - {"augmentation", "loss"}
        changed = {name: value for name in names if (value := getattr(self, name)) is not None}
        try:
            if isinstance(self.augmentation, str):
                if self.augmentation not in AUGMENTATIONS:
                    raise ValueError(f"augmentation is {', '.join(AUGMENTATIONS)}, or a table of settings")
                changed["augmentation"] = AUGMENTATIONS[self.augmentation]
            elif self.augmentation:
                changed["augmentation"] = replace(preset.augmentation, **self.augmentation)
            if self.loss:
                changed["loss"] = replace(preset.loss, **self.loss)
            return replace(preset, **changed)
        except (TypeError, ValueError) as error:
            raise UsageError(f"settings [train]: {' '.join(str(error).split())}") from None


# What each preset trains, and what from; all others train vgg16 from ImageNet's weights.
BACKBONES: Final[Mapping[str, tuple[str, str]]] = {"light": ("mobilenet_v2", "imagenet"), "demo": ("tiny", "none")}


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
    path = context.folder("calibrate").path / "priors.json"
    if name in PRESETS:
        return priors_named(name), "preset"  # type: ignore[return-value]
    if name.endswith(".json"):
        return priors_named(name), Path(name).name  # type: ignore[return-value]
    if not path.exists():
        raise FacadeError(
            f"{path} is not there; run `facade calibrate` first, or choose priors with --set train.priors=paper_coco."
        )
    data = json.loads(read_text(path))
    chosen = data["chosen"] if name == CHOSEN else name
    if chosen not in data["specs"]:
        raise UsageError(
            f"train.priors: {name!r} is none of {CHOSEN}, {', '.join(sorted({*data['specs'], *PRESETS}))}, or a file "
            "named *.json."
        )
    return PriorSpec.from_json(data["specs"][chosen]), f"calibrate, {name}"
