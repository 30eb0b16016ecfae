"""Networks for CPUs: MobileNetV2, and one that learns from scratch. Their maps are named by stride."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ssd.backbones.backbone import EXTRA_LAYERS, Backbone, BackboneConfig, init_kaiming

__all__ = ["MobileNetV2", "Tiny"]

# MobileNetV2's table 2: how often wider inside, channels, repeated so often, stride of the first.
BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class LightBackbone(Backbone):
    """A trunk with maps at strides 4 to 32, and separable convolutions behind it."""

    def __init__(self, config: BackboneConfig, trunk: Mapping[str, int], width: int) -> None:
        geometry = EXTRA_LAYERS[config.layout][1:]
        extras = {f"extra{number}": width for number in range(1, len(geometry) + 1)}
        super().__init__(config, {**trunk, **extras}, optional="stride4")
        self.extras, channels = nn.ModuleDict(), trunk["stride32"]
        for name, (stride, kernel, padding) in list(zip(extras, geometry, strict=True))[
            : self._count_extras(list(extras))
        ]:
            narrow = conv_block(channels, width // 2, 1)
            apart = conv_block(width // 2, width // 2, kernel, stride, padding, groups=width // 2)
            self.extras[name] = nn.Sequential(*narrow, *apart, *conv_block(width // 2, width, 1)).apply(init_kaiming)
            channels = width

    def trunk_cells(self, side: int) -> tuple[int, int, int]:
        """Return the cells along a side: strides keep the last of an odd number."""
        return -(-side // 4), -(-side // 8), -(-side // 16)

    def extra_layers(self, maps: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the trunk's maps and the extra ones."""
        features = maps["stride32"]
        for name, layers in self.extras.items():
            maps = {**maps, name: (features := layers(features))}
        return maps


class MobileNetV2(LightBackbone):
    """MobileNetV2, seen at the widened layers before its strides of 16 and 32, as SSDLite does."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config, {"stride4": 144, "stride8": 192, "stride16": 576, "stride32": 1280}, width=256)
        self.features = mobilenet_v2().apply(init_kaiming)

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return all maps by name."""
        maps, features = {}, images
        for number, layer in enumerate(self.features):
            name = {4: "stride4", 7: "stride8", 14: "stride16"}.get(number)
            if name and isinstance(layer, Bottleneck):
                maps[name] = features = layer.conv[0](features)
                features = layer.conv[1:](features)
            else:
                features = layer(features)
        return self.extra_layers(maps | {"stride32": features})


class Tiny(LightBackbone):
    """A network that learns from scratch in minutes on a CPU: eight plain convolutions with batch norms."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config, {"stride4": 32, "stride8": 64, "stride16": 128, "stride32": 192}, width=128)
        self.stem = nn.Sequential(*conv_block(3, 16, 3, 2, 1), *conv_block(16, 32, 3, 2, 1))
        self.stride8 = nn.Sequential(*conv_block(32, 64, 3, 2, 1), *conv_block(64, 64, 3, 1, 1))
        self.stride16 = nn.Sequential(*conv_block(64, 128, 3, 2, 1), *conv_block(128, 128, 3, 1, 1))
        self.stride32 = nn.Sequential(*conv_block(128, 192, 3, 2, 1), *conv_block(192, 192, 3, 1, 1))
        self.apply(init_kaiming)

    def maps(self, images: Tensor) -> dict[str, Tensor]:
        """Return all maps by name."""
        maps = {"stride4": self.stem(images)}
        maps["stride8"] = self.stride8(maps["stride4"])
        maps["stride16"] = self.stride16(maps["stride8"])
        maps["stride32"] = self.stride32(maps["stride16"])
        return self.extra_layers(maps)


def mobilenet_v2() -> nn.Sequential:
    """Return MobileNetV2 without its classifier, its tensors named as torchvision's.

    torchvision's own would do; but its package takes longer to import than PyTorch, in each process that finds.
    """
    layers: list[nn.Module] = [nn.Sequential(*conv_block(3, 32, 3, 2, 1))]
    channels = 32
    for expansion, outputs, count, stride in BOTTLENECKS:
        for number in range(count):
            layers.append(Bottleneck(channels, outputs, stride if number == 0 else 1, expansion))
            channels = outputs
    return nn.Sequential(*layers, nn.Sequential(*conv_block(channels, 1280, 1)))


class Bottleneck(nn.Module):
    """MobileNetV2's block: wider, filtered channel by channel, narrow again, and added to what came in if it can be."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        wider = [nn.Sequential(*conv_block(inputs, width, 1))] if expansion > 1 else []
        apart = nn.Sequential(*conv_block(width, width, 3, stride, 1, groups=width))
        self.conv = nn.Sequential(*wider, apart, nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Return the features (B, outputs, H, W) of features (B, inputs, H, W)."""
        filtered: Tensor = self.conv(features)
        return features + filtered if self.has_shortcut else filtered


def conv_block(
    inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, groups: int = 1
) -> tuple[nn.Module, ...]:
    """Return a convolution with batch norm and rectifier."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return layer, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)
