"""The convolutions that say, for every prior, where its box lies and what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn

from ssd.backbones.backbone import init_normal

__all__ = ["Heads"]


class Heads(nn.Module):
    """One convolution a feature map: for every shape at every place 4 offsets, then C logits.

    `light` puts the 3x3 into a convolution of each channel for itself, and leaves the mixing to a 1x1 (SSDLite).
    """

    def __init__(self, channels: Sequence[int], shapes: Sequence[int], classes: int, light: bool = False) -> None:
        super().__init__()
        if len(channels) != len(shapes):
            raise ValueError(
                f"Every map to predict from has priors; got {len(channels)} maps of the network and {len(shapes)} of "
                "priors. Choose the backbone's sources, or priors for all of them."
            )
        self.classes = classes
        self.outputs = nn.ModuleList()
        for width, count in zip(channels, shapes, strict=True):
            outputs = nn.Conv2d(width, count * (4 + classes), 1 if light else 3, padding=0 if light else 1)
            _initialise(outputs, classes)
            self.outputs.append(nn.Sequential(*_depthwise_block(width), outputs) if light else outputs)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return offsets (B, P, 4) and logits (B, P, C), in the order of the priors: map, row, column, shape."""
        rows = []
        for layer, features in zip(self.outputs, maps, strict=True):
            rows.append(layer(features).permute(0, 2, 3, 1).reshape(features.shape[0], -1, 4 + self.classes))
        both = torch.cat(rows, dim=1)
        return both[..., :4], both[..., 4:]


def _initialise(layer: nn.Conv2d, classes: int) -> None:
    """Draw the weights as if offsets and logits came from two convolutions, each by Xavier's rule."""
    per_shape = layer.weight.data.view(-1, 4 + classes, *layer.weight.shape[1:])
    place = layer.kernel_size[0] * layer.kernel_size[1]
    for part in (per_shape[:, :4], per_shape[:, 4:]):
        bound = sqrt(6 / (place * (layer.in_channels + part.shape[0] * part.shape[1])))
        part.uniform_(-bound, bound)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def _depthwise_block(channels: int) -> tuple[nn.Module, ...]:
    layer = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    init_normal(layer.weight, "fan_in")
    return layer, nn.BatchNorm2d(channels), nn.ReLU6(inplace=True)
