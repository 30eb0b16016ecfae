"""VGG-16 as the SSD paper changed it, and as Feature-Fused SSD changed that."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, normalize, relu

from ssd.backbones.backbone import EXTRA_LAYERS, Backbone, BackboneConfig, init_kaiming, init_xavier

__all__ = ["VGG16", "Concatenation", "L2Norm", "decimate_classifier"]

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


class VGG16(Backbone):
    """VGG-16 with atrous fc6 and fc7 in place of the classifier, and the paper's extra layers behind them."""

    def __init__(self, config: BackboneConfig) -> None:
        widths = [512, *[256] * (len(EXTRA_LAYERS[config.layout]) - 1)]
        extras = {f"conv{number}_2": width for number, width in enumerate(widths, start=8)}
        super().__init__(config, {"conv3_3": 256, "conv4_3": 512, "fc7": 1024, **extras}, optional="conv3_3")
        channels = 3
        for block, (layers, width) in enumerate(BLOCKS, start=1):
            for layer in range(1, layers + 1):
                self.add_module(f"conv{block}_{layer}", nn.Conv2d(channels, width, 3, padding=1))
                channels = width
        self.apply(init_kaiming)
        behind = {"fc6": nn.Conv2d(512, 1024, 3, padding=6, dilation=6), "fc7": nn.Conv2d(1024, 1024, 1)}
        channels = 1024
        for number, width in enumerate(widths[: self._count_extras(list(extras))]):
            stride, kernel, padding = EXTRA_LAYERS[config.layout][number]
            behind[f"conv{number + 8}_1"] = nn.Conv2d(channels, width // 2, 1)
            behind[f"conv{number + 8}_2"] = nn.Conv2d(width // 2, width, kernel, stride, padding)
            channels = width
        for name, added in behind.items():
            self.add_module(name, added.apply(init_xavier))
        self.tail_names = tuple(behind)
        self.norm3 = L2Norm(256) if "conv3_3" in self.names else None
        self.norm4 = Concatenation() if config.fusion else L2Norm(512)

    def trunk_cells(self, side: int) -> tuple[int, int, int]:
        """Return the cells along a side: of all pools only pool3 keeps the last of an odd number."""
        fine = side // 4
        return fine, -(-fine // 2), -(-fine // 2) // 2

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return all maps by name, conv3_3 and conv4_3 brought to the scale of the others."""
        features, blocks = images, []
        for number, (layers, _) in enumerate(BLOCKS, start=1):
            # Only pool3 keeps the last half of an odd side: 75 becomes 38.
            features = max_pool2d(features, 2, ceil_mode=number == 4) if number > 1 else features
            for layer in range(1, layers + 1):
                features = relu(self.get_submodule(f"conv{number}_{layer}")(features), inplace=True)
            blocks.append(features)
        maps = {} if self.norm3 is None else {"conv3_3": self.norm3(blocks[2])}
        maps["conv4_3"] = self.norm4(blocks[3], blocks[4]) if self.has_fusion else self.norm4(blocks[3])
        features = max_pool2d(features, 3, stride=1, padding=1)
        for name in self.tail_names:
            maps[name] = features = relu(self.get_submodule(name)(features), inplace=True)
        return maps

    @property
    def has_fusion(self) -> bool:
        """Whether conv4_3 is joined with conv5_3."""
        return isinstance(self.norm4, Concatenation)


class L2Norm(nn.Module):
    """Scale features to length one at every location, times a learned scale per channel (section 3.1 of the paper)."""

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, features: Tensor) -> Tensor:
        """Return the features (B, channels, rows, columns), scaled."""
        return normalize(features) * self.weight[:, None, None]


class Concatenation(nn.Module):
    """conv4_3 with what conv5_3 knows of its surroundings: the concatenation module of Feature-Fused SSD.

    Both go through a 3x3 convolution and an L2Norm (scales 20 and 10), conv5_3 after it was brought to the size of
    conv4_3; a 1x1 convolution mixes them down to the channels that the heads of SSD expect.
    """

    def __init__(self, channels: int = 512) -> None:
        super().__init__()
        self.fine = nn.Conv2d(channels, channels, 3, padding=1)
        self.coarse = nn.Conv2d(channels, channels, 3, padding=1)
        self.fine_norm, self.coarse_norm = L2Norm(channels, 20.0), L2Norm(channels, 10.0)
        self.mix = nn.Conv2d(2 * channels, channels, 1)
        self.apply(init_xavier)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return the joined features, of the size of `fine`."""
        coarse = interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        both = [self.fine_norm(relu(self.fine(fine))), self.coarse_norm(relu(self.coarse(coarse)))]
        return relu(self.mix(torch.cat(both, dim=1)))


def decimate_classifier(classifier: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return fc6 and fc7 of `VGG16` from the first two layers of a VGG classifier (section 3 of the paper).

    Of fc6's 7x7 every third place is kept, which the dilation puts back in place; of 4096 channels every fourth.
    """
    fc6, fc7 = classifier["0.weight"].reshape(4096, 512, 7, 7), classifier["3.weight"].reshape(4096, 4096, 1, 1)
    return {
        "fc6.weight": fc6[::4, :, ::3, ::3].contiguous(),
        "fc6.bias": classifier["0.bias"][::4].contiguous(),
        "fc7.weight": fc7[::4, ::4].contiguous(),
        "fc7.bias": classifier["3.bias"][::4].contiguous(),
    }
