"""The settings of a training run, and the named sets of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import cos, inf, pi
from typing import Any, Final, Literal

from ssd.augmentation.config import AUGMENTATIONS, AugmentationConfig
from ssd.losses.multibox import LossConfig

__all__ = ["TRAIN_PRESETS", "TrainConfig"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training; the defaults are the report's.

    Attributes:
        epochs: Number of passes over all photos.
        batch: Photos per step. Photos that do not fill an epoch's last batch are left to the next epoch.
        optimiser: "sgd" or "adamw".
        lr: Learning rate, before the schedule.
        momentum: SGD momentum.
        weight_decay: Weight decay of all weights.
        bias_factor: Factor of the learning rate of biases.
        warmup: Share of all steps in which the learning rate rises from 0.
        lr_schedule: "none", "cosine" (to 0 at the end), or shares of all steps after which the rate is divided by ten.
        clip: Maximum norm of the gradient; None: no clipping.
        ema: Decay per step of the moving average of the weights; 0: no average.
        bfloat16: Whether to multiply in bfloat16; None: if the device supports it.
        best_by: How the best epoch is selected: by "loss" or "map" on the validation photos.
        validate_every: Epochs between validations; the last epoch is always validated.
        early_stopping_epochs: Stop after this number of epochs without a better one; 0: never.
        augmentation: Augmentation of the photos.
        loss: Settings of the loss.
        seed: Seed of the order of photos and of their augmentation.
    """

    epochs: int = 358
    batch: int = 8
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    bias_factor: float = 2.0
    warmup: float = 0.0
    lr_schedule: Literal["none", "cosine"] | tuple[float, ...] = "none"
    clip: float | None = None
    ema: float = 0.0
    bfloat16: bool | None = False
    best_by: Literal["loss", "map"] = "loss"
    validate_every: int = 1
    early_stopping_epochs: int = 0
    augmentation: AugmentationConfig = field(default_factory=lambda: AUGMENTATIONS["epfl"])
    loss: LossConfig = field(default_factory=LossConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "lr_schedule", self.lr_schedule if isinstance(self.lr_schedule, str) else tuple(self.lr_schedule)
        )
        if min(self.epochs, self.batch - 1, self.validate_every) < 1 or min(self.early_stopping_epochs, self.seed) < 0:
            raise ValueError(
                "Training has one epoch or more, two photos a batch or more (batch norm needs them), validate_every "
                "from 1, patience and seed from 0; got "
                f"{self.epochs}, {self.batch}, {self.validate_every}, {self.early_stopping_epochs}, {self.seed}."
            )
        shares = (self.warmup, self.ema, self.momentum)
        if not (0 < self.lr < inf and all(0 <= share < 1 for share in shares) and self.weight_decay >= 0):
            raise ValueError(
                "Training has lr above 0, weight_decay from 0, and warmup, ema and momentum from 0 to below 1; got "
                f"{self.lr}, {self.weight_decay}, {self.warmup}, {self.ema}, {self.momentum}."
            )
        for name, known in (("optimiser", ("sgd", "adamw")), ("best_by", ("loss", "map"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}; got {getattr(self, name)!r}.")
        if isinstance(self.lr_schedule, str) and self.lr_schedule not in {"none", "cosine"}:
            raise ValueError(f"decay is none, cosine, or shares of all steps; got {self.lr_schedule!r}.")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as what `json.dumps` takes; `from_json` gives them back, equal."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainConfig:
        """Return the settings that `to_json` wrote."""
        inner = {"augmentation": AugmentationConfig(**data["augmentation"]), "loss": LossConfig(**data["loss"])}
        return cls(**{**data, **inner})

    def lr_at(self, progress: float) -> float:
        """Return the learning rate at a share of all steps, from 0 to 1."""
        rising = min(1.0, progress / self.warmup) if self.warmup else 1.0
        if self.lr_schedule == "none":
            return self.lr * rising
        if self.lr_schedule == "cosine":
            after = max(progress - self.warmup, 0.0) / (1 - self.warmup)
            return self.lr * rising * (1 + cos(pi * after)) / 2
        return self.lr * rising * 0.1 ** sum(progress >= float(share) for share in self.lr_schedule)


# After four epochs on CMP AdamW was 8 points of mAP ahead of SGD, and balance .5 took the AP of rare doors from 9 to 24
# (RESULTS.md).
FAST: Final = TrainConfig(
    epochs=120,
    batch=32,
    optimiser="adamw",
    lr=3e-4,
    weight_decay=1e-2,
    bias_factor=1.0,
    warmup=0.05,
    lr_schedule="cosine",
    clip=10.0,
    ema=0.999,
    bfloat16=None,
    best_by="map",
    early_stopping_epochs=20,
    loss=LossConfig(min_negatives=16, class_balance=0.5),
)

TRAIN_PRESETS: Final[Mapping[str, TrainConfig]] = {
    "epfl": TrainConfig(),
    # 80,000, 20,000 and 20,000 steps of batch 32 on VOC's 16,551 photos are 232 epochs.
    "paper": TrainConfig(epochs=232, batch=32, lr_schedule=(2 / 3, 5 / 6), augmentation=AUGMENTATIONS["paper"]),
    "fast": FAST,
    "light": replace(FAST, epochs=40, batch=16, lr=1e-3, ema=0.998, early_stopping_epochs=0),
    # Drawn photos are all of one kind: little is to be gained from changing them, and much from seeing them often.
    "demo": replace(
        FAST,
        epochs=32,
        batch=8,
        lr=3e-3,
        warmup=0.1,
        ema=0.99,
        validate_every=3,
        early_stopping_epochs=0,
        augmentation=replace(AUGMENTATIONS["mild"], colour_chance=0.3, zoom_chance=0.0, crop_scale=(0.6, 1.0)),
        loss=LossConfig(min_negatives=4, class_balance=0.5),
    ),
}
