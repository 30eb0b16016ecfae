"""What may happen to a training photo, as settings, and the settings that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import Any, Final

__all__ = ["AUGMENTATIONS", "NO_AUGMENTATION", "AugmentationConfig"]

Range = tuple[float, float]

IMAGENET_MEAN: Final = (123.675, 116.28, 103.53)


@dataclass(frozen=True)
class AugmentationConfig:
    """What may happen to a photo, and how often; the defaults are the report's. Ranges are (least, most), drawn evenly.

    Attributes:
        colour_chance: of brightness, contrast, saturation and hue, each on its own.
        brightness: factor.
        brightness_added: grey levels, drawn together with the factor.
        contrast: factor.
        saturation: factor.
        hue: turns of the colour circle.
        zoom_chance: of drawing the photo smaller, on a ground of `fill`.
        zoom: sides of the ground, in sides of the photo.
        fill: red, green and blue of the ground.
        min_crop_ious: minimum IoU of a crop with one of its objects, one sampled each time (0: any, None: no crop);
            empty: never a crop.
        crop_scale: sides of a crop, in sides of what is cropped; each side has its own.
        crop_ratio: width over height of a crop, in pixels of the photo.
        trials: crops drawn to meet an overlap before the next one is asked for.
        flip_chance: of mirroring left and right.
        min_side: an object with a side below it, in pixels of the input, is ignored.
    """

    colour_chance: float = 0.5
    brightness: Range = (0.5, 1.5)
    brightness_added: Range = (0.0, 0.0)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.5, 1.5)
    hue: Range = (-18 / 255, 18 / 255)
    zoom_chance: float = 0.5
    zoom: Range = (1.0, 4.0)
    fill: tuple[float, float, float] = IMAGENET_MEAN
    min_crop_ious: tuple[float | None, ...] = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0, None)
    crop_scale: Range = (0.3, 1.0)
    crop_ratio: Range = (0.5, 2.0)
    trials: int = 50
    flip_chance: float = 0.5
    min_side: float = 2.0

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            _set(self, name, _parse_numbers(name, getattr(self, name), 2, least, most))
            if getattr(self, name)[0] > getattr(self, name)[1]:
                raise ValueError(f"{name} of an augmentation is (least, most); got {getattr(self, name)}.")
        for name, most in _MAX_FACTOR.items():
            _set(self, name, _parse_number(name, getattr(self, name), 0, most))
        _set(self, "fill", _parse_numbers("fill", self.fill, 3, 0, 255))
        if not isinstance(self.min_crop_ious, (tuple, list)):
            raise ValueError(f"min_crop_ious of an augmentation are numbers and None; got {self.min_crop_ious!r}.")
        ious = (None if value is None else _parse_number("min_crop_ious", value, 0, 1) for value in self.min_crop_ious)
        _set(self, "min_crop_ious", tuple(ious))
        if type(self.trials) is not int or self.trials < 1:
            raise ValueError(f"trials of an augmentation is a whole number above zero; got {self.trials!r}.")


_MAX_FACTOR: Final[Mapping[str, float]] = MappingProxyType(
    {"colour_chance": 1, "zoom_chance": 1, "flip_chance": 1, "min_side": 1000}
)
# What both ends of each range lie between.
_RANGES: Final[Mapping[str, Range]] = MappingProxyType(
    {
        "brightness": (0, 100),
        "brightness_added": (-255, 255),
        "contrast": (0, 100),
        "saturation": (0, 100),
        "hue": (-0.5, 0.5),
        "zoom": (1, 100),
        "crop_scale": (0, 1),
        "crop_ratio": (0, 100),
    }
)


def _parse_numbers(what: str, values: Any, count: int, minimum: float, maximum: float) -> tuple[float, ...]:
    """Return so many finite numbers between two others as a tuple of floats."""
    if not isinstance(values, (tuple, list)) or len(values) != count:
        raise ValueError(f"{what} of an augmentation is {count} numbers; got {values!r}.")
    return tuple(_parse_number(what, value, minimum, maximum) for value in values)


def _parse_number(what: str, value: Any, minimum: float, maximum: float) -> float:
    """Return a finite number between two others as a float."""
    if isinstance(value, bool) or not isinstance(value, Real) or not minimum <= float(value) <= maximum:
        raise ValueError(f"{what} of an augmentation is from {minimum:g} to {maximum:g}; got {value!r}.")
    return float(value)


def _set(instance: object, name: str, value: object) -> None:
    """Set a field of a frozen instance that is still being made: lists become tuples, so that settings are equal."""
    object.__setattr__(instance, name, value)


# For validation: the plain resize, every box as it is.
NO_AUGMENTATION: Final = AugmentationConfig(
    colour_chance=0.0, zoom_chance=0.0, min_crop_ious=(), flip_chance=0.0, min_side=0.0
)

# The paper's is that of its released code: brightness is added, hue turns by 18 of OpenCV's 180, and a crop has .3 of
# a side at least. The text says "[0.1, 1] of the original image size"; as areas both are the same, for .3² is .09.
AUGMENTATIONS: Final[Mapping[str, AugmentationConfig]] = MappingProxyType(
    {
        "epfl": AugmentationConfig(),
        "paper": AugmentationConfig(
            brightness=(1.0, 1.0), brightness_added=(-32.0, 32.0), hue=(-0.1, 0.1), min_side=0.0
        ),
        # For few epochs or uniform photos: each object is seen more than once.
        "mild": AugmentationConfig(
            zoom_chance=0.25, zoom=(1.0, 2.0), min_crop_ious=(None, 0.3, 0.5, 0.7), crop_scale=(0.5, 1.0)
        ),
        "none": NO_AUGMENTATION,
    }
)
