"""What every network shows: feature maps with names, on one grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from torch import Tensor, nn

__all__ = ["BACKBONE_NAMES", "EXTRA_LAYERS", "Backbone", "BackboneConfig", "init_kaiming", "init_normal", "init_xavier"]

BACKBONE_NAMES: Final = ("vgg16", "mobilenet_v2", "tiny")
# Stride, kernel and padding of the extra maps, after the one of stride 16: the paper's SSD300, and its SSD512.
EXTRA_LAYERS: Final = {
    300: ((2, 3, 1), (2, 3, 1), (1, 3, 0), (1, 3, 0)),
    512: ((2, 3, 1), (2, 3, 1), (2, 3, 1), (2, 3, 1), (1, 4, 1)),
}


@dataclass(frozen=True)
class BackboneConfig:
    """Which network, and what of it the heads see.

    Attributes:
        name: One of `NAMES`.
        sources: The maps to predict from, by name, finest first; none: all of the paper's.
        layout: 300 or 512, whose extra layers.
        fusion: "concat" joins conv4_3 with the upsampled conv5_3 (Feature-Fused SSD); VGG-16 only.
    """

    name: str = "vgg16"
    sources: tuple[str, ...] = ()
    layout: int = 300
    fusion: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        if self.name not in BACKBONE_NAMES:
            raise ValueError(f"The backbones are {', '.join(BACKBONE_NAMES)}; got {self.name!r}.")
        if self.layout not in EXTRA_LAYERS:
            raise ValueError(f"The layouts are {', '.join(map(str, EXTRA_LAYERS))}; got {self.layout!r}.")
        if self.fusion not in {None, "concat"} or (self.fusion and self.name != "vgg16"):
            raise ValueError(f"The fusion of vgg16 is 'concat' or none, others have none; got {self.fusion!r}.")


class Backbone(nn.Module):
    """A network with named feature maps.

    Attributes:
        names: The maps that `forward` gives, finest first.
        channels: The channels of each.
        source_names: All maps that it could give: of strides 4, 8 and 16, then those of the extra layers.
    """

    names: tuple[str, ...]
    channels: tuple[int, ...]
    source_names: tuple[str, ...]

    def __init__(self, config: BackboneConfig, map_channels: Mapping[str, int], optional: str) -> None:
        """Choose the maps to give: those asked for, else all of the known (name to channels) but the optional one."""
        super().__init__()
        chosen = config.sources or tuple(name for name in map_channels if name != optional)
        if list(chosen) != [name for name in map_channels if name in chosen]:
            raise ValueError(
                f"The maps to predict from are some of {', '.join(map_channels)}, in this order; got {chosen}."
            )
        self.names, self.channels = chosen, tuple(map_channels[name] for name in chosen)
        self.source_names, self.layout = tuple(map_channels), config.layout

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps named by `names`, each (B, channels, rows, columns), of normalised images (B, 3, H, W)."""
        maps = self.maps(images)
        return [maps[name] for name in self.names]

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return all maps by name."""
        raise NotImplementedError

    def grid(self, input_size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the (rows, columns) of each map of an input (height, width)."""
        rows, columns = (dict(zip(self.source_names, self._cells(side), strict=True)) for side in input_size)
        return [(rows[name], columns[name]) for name in self.names]

    def _cells(self, side: int) -> list[int]:
        """Return the cells along a side of the input of each known map."""
        cells = list(self.trunk_cells(side))
        for stride, kernel, padding in EXTRA_LAYERS[self.layout]:
            cells.append((cells[-1] + 2 * padding - kernel) // stride + 1)
        return cells

    def trunk_cells(self, side: int) -> tuple[int, int, int]:
        """Return the cells along a side of the input of the maps of strides 4, 8 and 16."""
        raise NotImplementedError

    def _count_extras(self, extras: Sequence[str]) -> int:
        """Count the extra layers that are needed: those up to the last source map."""
        return max((number for number, name in enumerate(extras, start=1) if name in self.names), default=0)


def init_xavier(module: nn.Module) -> None:
    """Draw the weights of a convolution as the paper does; its bias becomes 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_kaiming(module: nn.Module) -> None:
    """Draw the weights of a convolution that a rectifier follows; its bias becomes 0."""
    if isinstance(module, nn.Conv2d):
        init_normal(module.weight, "fan_out")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def init_normal(weight: Tensor, mode: Literal["fan_in", "fan_out"]) -> None:
    """Draw the weights of a convolution by Kaiming's rule, if they have a place."""
    if not weight.is_meta:  # or PyTorch would import its compiler to draw nothing, which takes longer than all the rest
        nn.init.kaiming_normal_(weight, mode=mode, nonlinearity="relu")
