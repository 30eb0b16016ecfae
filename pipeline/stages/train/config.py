"""Settings of the train stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_type_hints

import torch
from pydantic import Field, create_model

from pipeline.config import RELATIVE_PATH, Settings, renamed_hint
from pipeline.errors import UsageError
from ssd import AUGMENTATIONS, TRAIN_PRESETS
from ssd import TrainConfig as Learning

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["TrainConfig"]

CHOSEN_PRIORS: Final = "chosen"


def _ssd_settings() -> type[Settings]:
    """Make a settings class of the fields of `ssd.TrainConfig`, each optional: the preset has the defaults."""
    hints = get_type_hints(Learning)
    optional: dict[str, Any] = {name: (hints[name] | None, None) for name in SSD_FIELDS}
    return create_model("SsdSettings", __base__=Settings, **optional)


# Settings that `ssd.TrainConfig` has too; augmentation and loss are tables there.
SSD_FIELDS: Final = tuple(field.name for field in fields(Learning) if field.name not in ("augmentation", "loss"))
_SsdSettings = _ssd_settings()


class TrainConfig(_SsdSettings):  # type: ignore[misc,valid-type]  # mypy does not follow create_model
    """What to train, on what, and what differs from a preset.

    Attributes:
        preset: epfl (the report), paper, fast (a GPU), light (CPUs), demo; by default fast with a GPU, else light.
        backbone: vgg16, mobilenet_v2 or tiny; the preset's by default.
        fusion: "concat" for Feature-Fused SSD.
        init_weights: "imagenet", "none", "default" (the bundled default model), a file of a backbone, or a bundle's
            folder; the preset's by default.
        priors: "chosen" by `priors`, another of its priors by name, a preset, or a JSON file.
        datasets: names, with how often their photos are shown in relation to others; empty is all, all alike.
        classes: what to find; empty is all that the datasets label.
        use_all_splits: train on all photos, whatever their split, and keep the last epoch, as no photo is held out.
        max_side: photos are kept in memory with no side longer than this, in pixels.
        device: cpu, cuda or auto.
        checkpoint_minutes: from one checkpoint to the next.

    All others are those of `ssd.TrainConfig`, and the preset's by default; `augmentation` is a name (epfl, paper,
    mild, none) or a table of what differs from the preset's, `loss` such a table.
    """

    preset: Literal["epfl", "paper", "fast", "light", "demo"] | None = None
    backbone: Literal["vgg16", "mobilenet_v2", "tiny"] | None = None
    fusion: Literal["concat"] | None = None
    init_weights: Annotated[str | None, RELATIVE_PATH] = None
    priors: Annotated[str, RELATIVE_PATH] = CHOSEN_PRIORS
    datasets: dict[str, Annotated[float, Field(ge=0)]] | tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    use_all_splits: bool = False
    max_side: int = Field(default=600, ge=64)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_minutes: float = Field(default=10.0, ge=0)
    augmentation: str | dict[str, Any] | None = None
    loss: dict[str, Any] | None = None

    def preset_name(self) -> str:
        """Return the preset."""
        return self.preset or ("fast" if torch.cuda.is_available() else "light")

    def dataset_weights(self) -> dict[str, float]:
        """Return the datasets with their weights."""
        return dict(self.datasets) if isinstance(self.datasets, dict) else dict.fromkeys(self.datasets, 1.0)

    def to_ssd_config(self) -> Learning:
        """Make the settings of ssd: the preset with the changes of these settings."""
        preset = TRAIN_PRESETS[self.preset_name()]
        changed = {name: value for name in SSD_FIELDS if (value := getattr(self, name)) is not None}
        try:
            if isinstance(self.augmentation, str):
                if self.augmentation not in AUGMENTATIONS:
                    raise ValueError(f"augmentation is {', '.join(AUGMENTATIONS)}, or a table of settings")
                changed["augmentation"] = AUGMENTATIONS[self.augmentation]
            elif self.augmentation:
                _check_keys("augmentation", self.augmentation, preset.augmentation)
                changed["augmentation"] = replace(preset.augmentation, **self.augmentation)
            if self.loss:
                _check_keys("loss", self.loss, preset.loss)
                changed["loss"] = replace(preset.loss, **self.loss)
            return replace(preset, **changed)
        except (TypeError, ValueError) as error:
            raise UsageError(f"settings [train]: {' '.join(str(error).split())}") from None


def _check_keys(name: str, given: Mapping[str, Any], preset: DataclassInstance) -> None:
    """Raise `ValueError` if a table has keys that its preset has not."""
    known = sorted(field.name for field in fields(preset))
    for key in given:
        if key not in known:
            raise ValueError(f"unknown key '{name}.{key}'; {renamed_hint(key, known)}known are {', '.join(known)}")


# What each preset trains, and what from; all others train vgg16 from ImageNet's weights.
PRESET_BACKBONES: Final[Mapping[str, tuple[str, str]]] = {
    "light": ("mobilenet_v2", "imagenet"),
    "demo": ("tiny", "none"),
}
