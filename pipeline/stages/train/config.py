"""Settings of the train stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Annotated, Any, Final, Literal

import torch
from pydantic import Field

from pipeline.config import Settings
from pipeline.errors import UsageError
from ssd import AUGMENTATIONS, TRAININGS
from ssd import TrainConfig as Learning

__all__ = ["TrainConfig"]

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
        priors: "chosen" by `priors`, another of its priors by name, a preset, or a JSON file.
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
