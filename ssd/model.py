"""The detector's network, and all that it takes to make one again: priors, classes, backbone, normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from ssd.backbones import BackboneConfig, make_backbone
from ssd.heads import Heads
from ssd.priors.spec import PriorSpec

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "SSD", "ModelConfig", "backbone_for"]

IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

# The map of stride 4, which no network predicts from unless asked to.
FINEST_MAPS: Final = {"vgg16": "conv3_3", "mobilenet_v2": "stride4", "tiny": "stride4"}

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class ModelConfig:
    """What a network is made of.

    Attributes:
        priors: Where it looks; its `input_size` is the size that photos are brought to.
        classes: What it finds, in the order of the labels: the first has label 1, 0 is background.
        backbone: The network below the heads.
        mean: Of red, green and blue from 0 to 1, taken off a photo.
        std: What is left is divided by.
    """

    priors: PriorSpec
    classes: tuple[str, ...]
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD

    def __post_init__(self) -> None:
        names = self.classes
        if isinstance(names, str) or not names or len(set(names)) != len(names) or {"", "background"} & set(names):
            raise ValueError(f"The classes of a model are different names, background not among them; got {names!r}.")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise ValueError(f"A mean and a std are three numbers, each std above 0; got {self.mean}, {self.std}.")
        for name in ("classes", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def to_json(self) -> dict[str, Any]:
        """Return the config as what `json.dumps` takes; `from_json` gives it back, equal."""
        plain = {"classes": list(self.classes), "mean": list(self.mean), "std": list(self.std)}
        backbone = {**asdict(self.backbone), "sources": list(self.backbone.sources)}
        return {"priors": self.priors.to_json(), "backbone": backbone, **plain}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Return the config that `to_json` wrote."""
        return cls(
            priors=PriorSpec.from_json(data["priors"]),
            classes=tuple(data["classes"]),
            backbone=BackboneConfig(**data["backbone"]),
            mean=data["mean"],
            std=data["std"],
        )


class SSD(nn.Module):
    """A single-shot detector: normalised photos in, offsets and logits of every prior out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        shapes = [len(level.shapes) for level in config.priors.maps]
        self.backbone = make_backbone(config.backbone)
        light = config.backbone.name != "vgg16"
        self.heads = Heads(self.backbone.channels, shapes, len(config.classes) + 1, light)
        _check_grid(self)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return offsets (B, P, 4) and logits (B, P, C) of normalised images (B, 3, H, W)."""
        offsets: Tensor
        logits: Tensor
        offsets, logits = self.heads(self.backbone(images))
        return offsets, logits

    def normalise(self, photos: Tensor) -> Tensor:
        """Return photos (B, 3, H, W), red, green, blue from 0 to 255, as the network takes them."""
        # Sent, not made on the device: a GPU is not waited for. No buffers, which `.to(torch.bfloat16)` would round.
        numbers = torch.tensor([self.config.mean, self.config.std]).mul_(255)
        mean, std = numbers.to(photos.device, non_blocking=True)[..., None, None].unbind()
        return (photos - mean).mul_(std.reciprocal())


def _check_grid(model: SSD) -> None:
    """Refuse priors that do not lie on the network's maps."""
    config = model.config
    got = model.backbone.grid(config.priors.input_size)
    priors = [level.size for level in config.priors.maps]
    if got != priors:
        raise ValueError(
            f"The priors {config.priors.name} lie on maps of {_format_sizes(priors)} cells; {config.backbone.name} at "
            f"{config.priors.input_size} has {_format_sizes(got)}. Choose other priors, or another layout or sources."
        )


def _format_sizes(sizes: list[tuple[int, int]]) -> str:
    return ", ".join(f"{rows}x{columns}" for rows, columns in sizes)


def backbone_for(name: str, priors: PriorSpec) -> BackboneConfig:
    """Return a backbone with a map for each of the priors', the one of stride 4 too where they have one more."""
    config = BackboneConfig(name, layout=512 if max(priors.input_size) > 400 else 300)
    with torch.device("meta"):
        names = make_backbone(config).names
    return replace(config, sources=(FINEST_MAPS[name], *names)) if len(priors.maps) == len(names) + 1 else config
