"""Weights that others have saved: which of their tensors is which of ours.

Known are torchvision's `ssd300_vgg16`, the layout of ssd.pytorch, that of the report's code (a-PyTorch-Tutorial's), and
trunks trained on ImageNet as torchvision names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ssd.backbones import decimate_classifier
from ssd.model import IMAGENET_MEAN, IMAGENET_STD, SSD, Triple
from ssd.priors.presets import preset
from ssd.priors.spec import PriorSpec, clamp_shapes

__all__ = ["LAYOUTS", "WeightLayout", "count_classes", "detect_layout", "load_matching_weights", "load_trunk"]

Weights = Mapping[str, Tensor]

# Where the convolutions of VGG-16 stand in torchvision's `features`.
FEATURE_INDICES: Final = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG_LAYERS: Final = tuple(
    f"conv{block}_{n}" for block, layers in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, layers + 1)
)
VGG_EXTRA_LAYERS: Final = tuple(f"conv{block}_{layer}" for block in range(8, 12) for layer in (1, 2))


@dataclass(frozen=True)
class WeightLayout:
    """How one program names the tensors of an SSD300 with VGG-16, and what its weights expect.

    Attributes:
        modules: Its name of each of our backbone's convolutions.
        scale: Its name of the scales of conv4_3.
        heads: Its names of the heads of a map, offsets and logits, to be filled with the map's number from 0.
        mean: What its photos were normalised with.
        std: Likewise.
        priors: The priors that its released weights were trained with.
    """

    modules: Mapping[str, str]
    scale: str
    heads: tuple[tuple[str, str], ...]
    mean: Triple
    std: Triple
    priors: Callable[[], PriorSpec]

    def convert(self, weights: Weights) -> dict[str, Tensor]:
        """Return the weights under our names."""
        ours = {}
        for name, theirs in self.modules.items():
            for kind in ("weight", "bias"):
                ours[f"backbone.{name}.{kind}"] = weights[f"{theirs}.{kind}"]
        ours["backbone.norm4.weight"] = weights[self.scale].reshape(-1)
        for number, (offsets, logits) in enumerate(self.heads):
            for kind in ("weight", "bias"):
                joined = _join_heads(weights[f"{offsets}.{kind}"], weights[f"{logits}.{kind}"])
                ours[f"heads.outputs.{number}.{kind}"] = joined
        return ours


def _torchvision_layout() -> WeightLayout:
    modules = {
        name: f"backbone.features.{place}" for name, place in zip(VGG_LAYERS[:10], FEATURE_INDICES[:10], strict=True)
    }
    modules |= {name: f"backbone.extra.0.{place}" for name, place in zip(VGG_LAYERS[10:], (1, 3, 5), strict=True)}
    modules |= {"fc6": "backbone.extra.0.7.1", "fc7": "backbone.extra.0.7.3"}
    modules |= {name: f"backbone.extra.{1 + n // 2}.{n % 2 * 2}" for n, name in enumerate(VGG_EXTRA_LAYERS)}
    head = "head.{}_head.module_list.{}"
    heads = tuple((head.format("regression", n), head.format("classification", n)) for n in range(6))
    mean, scale = (0.48235, 0.45882, 0.40784), "backbone.scale_weight"
    return WeightLayout(modules, scale, heads, mean, (1 / 255,) * 3, lambda: clamp_shapes(preset("paper_coco")))


def _ssd_pytorch_layout() -> WeightLayout:
    """Its centres end at the border of the input: the last of ten lies at 300, ours at 304."""
    modules = {
        name: f"vgg.{place}"
        for name, place in zip((*VGG_LAYERS, "fc6", "fc7"), (*FEATURE_INDICES, 31, 33), strict=True)
    }
    modules |= {name: f"extras.{place}" for place, name in enumerate(VGG_EXTRA_LAYERS)}
    heads = tuple((f"loc.{n}", f"conf.{n}") for n in range(6))
    mean = (123 / 255, 117 / 255, 104 / 255)
    return WeightLayout(
        modules, "L2Norm.weight", heads, mean, (1 / 255,) * 3, lambda: clamp_shapes(preset("paper_voc"))
    )


def _report_layout() -> WeightLayout:
    modules = {name: f"base.{name}" for name in VGG_LAYERS} | {"fc6": "base.conv6", "fc7": "base.conv7"}
    modules |= {name: f"aux_convs.{name}" for name in VGG_EXTRA_LAYERS}
    names = ("conv4_3", "conv7", "conv8_2", "conv9_2", "conv10_2", "conv11_2")
    heads = tuple((f"pred_convs.loc_{name}", f"pred_convs.cl_{name}") for name in names)
    return WeightLayout(modules, "rescale_factors", heads, IMAGENET_MEAN, IMAGENET_STD, lambda: preset("epfl_code"))


LAYOUTS: Final[Mapping[str, WeightLayout]] = {
    "torchvision": _torchvision_layout(),
    "ssd.pytorch": _ssd_pytorch_layout(),
    "report": _report_layout(),
}


def detect_layout(weights: Weights) -> str:
    """Return the name of the layout whose tensors these are."""
    for name, layout in LAYOUTS.items():
        if layout.scale in weights and f"{layout.modules['conv1_1']}.weight" in weights:
            return name
    raise ValueError(
        f"The weights are an SSD300 with VGG-16 named as in {', '.join(LAYOUTS)}; "
        f"got {len(weights)} tensors, the first is {next(iter(weights), None)!r}."
    )


def count_classes(weights: Weights, layout: WeightLayout) -> int:
    """Return C, background included, of weights in a layout."""
    offsets, logits = layout.heads[0]
    return 4 * len(weights[f"{logits}.bias"]) // len(weights[f"{offsets}.bias"])


def load_matching_weights(model: SSD, weights: Weights, classes: int) -> list[str]:
    """Fill the model with what fits of weights under our names; return a sentence for whatever did not.

    `classes` is C of the weights. Heads for another C keep their offsets and get new logits; heads for other
    shapes are newly initialised.
    """
    own = model.state_dict()
    unknown, missing = sorted(set(weights) - set(own)), sorted(set(own) - set(weights))
    notes = [f"{len(unknown)} tensors have no place in this model, the first is {unknown[0]}."] if unknown else []
    notes += (
        [f"{len(missing)} tensors are missing and newly initialised, the first is {missing[0]}."] if missing else []
    )
    heads = set()
    for name in sorted(set(own) & set(weights)):
        given = weights[name].to(own[name])
        if given.shape == own[name].shape:
            own[name].copy_(given)
        elif name.startswith("heads."):
            shapes = len(model.config.priors.maps[int(name.split(".")[2])].shapes)
            heads.add(_load_offsets(own[name], given, shapes, classes))
        else:
            raise ValueError(f"{name} is {tuple(own[name].shape)} in this model; got {tuple(given.shape)}.")
    return notes + sorted(heads)


def load_trunk(model: SSD, weights: Weights) -> list[str]:
    """Fill the model's trunk with one trained on ImageNet, as torchvision names it; return the tensors not used.

    For VGG-16 these are `features`, and fc6 and fc7 from `classifier` if it is given. All of it is checked before
    anything is filled: a tensor of another shape might be broadcast, and one that is lacking would go unnoticed.
    """
    name, own = model.config.backbone.name, model.backbone.state_dict()
    if name == "vgg16":
        ours, needed = (
            _convert_vgg(weights),
            {f"{module}.{kind}" for module in VGG_LAYERS for kind in ("weight", "bias")},
        )
    else:
        ours = {key: tensor for key, tensor in weights.items() if key.startswith("features.")}
        needed = {key for key in own if key.startswith("features.") and not key.endswith(".num_batches_tracked")}
    strange = [key for key, tensor in ours.items() if key not in own or tensor.shape != own[key].shape]
    if strange or not ours or needed - set(ours):
        fault = f"no place for {strange[0]}" if strange else f"no {min(needed - set(ours), default='features.0')}"
        raise ValueError(
            f"A trunk for {name} has tensors named features.N as torchvision's, all of them and in its shapes; "
            f"got {len(weights)} tensors, {next(iter(weights), None)!r} first: {fault}."
        )
    for key, tensor in ours.items():
        own[key].copy_(tensor)
    return [name for name in weights if not name.startswith(("features.", "classifier.0.", "classifier.3."))]


def _convert_vgg(weights: Weights) -> dict[str, Tensor]:
    """Return the tensors of torchvision's VGG-16 under our names; those that it has not keep their own."""
    modules = {f"features.{place}": name for name, place in zip(VGG_LAYERS, FEATURE_INDICES, strict=True)}
    ours = {}
    for key, tensor in weights.items():
        module, _, kind = key.rpartition(".")
        if key.startswith("features."):
            ours[f"{modules.get(module, module)}.{kind}"] = tensor
    classifier = {key.removeprefix("classifier."): tensor for key, tensor in weights.items()}
    if all(f"{place}.{kind}" in classifier for place in (0, 3) for kind in ("weight", "bias")):
        ours |= decimate_classifier(classifier)
    return ours


def _join_heads(offsets: Tensor, logits: Tensor) -> Tensor:
    """Return one tensor for our head: for each shape 4 rows of offsets, then C of logits."""
    shapes, rest = len(offsets) // 4, offsets.shape[1:]
    return torch.cat([offsets.reshape(shapes, 4, *rest), logits.reshape(shapes, -1, *rest)], dim=1).flatten(0, 1)


def _load_offsets(parameter: Tensor, tensor: Tensor, shapes: int, classes: int) -> str:
    """Fill the rows of offsets of a head with those of a head for other classes, if its shapes are as many."""
    if tensor.shape[1:] != parameter.shape[1:] or len(tensor) != shapes * (4 + classes):
        return "The priors have other shapes than those of the weights: the heads are newly initialised."
    rest = parameter.shape[1:]
    parameter.view(shapes, -1, *rest)[:, :4] = tensor.view(shapes, -1, *rest)[:, :4]
    model_classes = len(parameter) // shapes - 5
    return (
        f"The weights know {classes - 1} classes, the model {model_classes}: other classes get newly initialised heads."
    )
