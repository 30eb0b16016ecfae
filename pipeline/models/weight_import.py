"""`model import`: weights of other programs become bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import FacadeError, UsageError
from pipeline.models.bundle import translate_errors
from pipeline.models.prior_specs import load_prior_spec
from pipeline.models.weight_files import WeightFile, read_weight_file
from ssd import (
    DECODE_PRESETS,
    LAYOUTS,
    SSD,
    BackboneConfig,
    Bundle,
    ModelConfig,
    PriorSpec,
    bundle_digest,
    clamp_shapes,
    count_classes,
    detect_layout,
    load_matching_weights,
    save_bundle,
)
from ssd.bundle import MODEL_FILE
from ssd.weight_conversion import WeightLayout

__all__ = ["default_class_names", "import_model", "parse_classes"]

# In the order of ssd.pytorch, which is the alphabet's, and so that of a-PyTorch-Tutorial.
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
# The report keeps boxes that overlap by up to .6; the two others decode as the paper does.
DECODE_BY_LAYOUT = {"torchvision": "paper", "ssd.pytorch": "paper", "report": "epfl"}
# All maps, where priors have the one of stride 4 as well: the weights have heads for all others.
FINE_SOURCES = ("conv3_3", "conv4_3", "fc7", "conv8_2", "conv9_2", "conv10_2", "conv11_2")
SEED = 0  # of newly initialised weights: the same file and options give the same bundle


def import_model(
    path: Path, out: Path, classes: str | None, priors: str | None, log: Callable[[str], None]
) -> dict[str, Any]:
    """Write the bundle of a file of weights; return what was made of it, with a note on whatever is not as it was."""
    names, given = parse_classes(classes), load_prior_spec(priors)
    checkpoint = read_weight_file(path)
    layout = _detect_layout(path, checkpoint)
    with translate_errors(str(path)):
        bundle, notes = build_bundle(checkpoint, layout, names, given)
    before = bundle_digest(out) if (out / MODEL_FILE).is_file() else None
    try:
        with translate_errors(str(path)):
            digest = save_bundle(out, bundle)
    except FileExistsError as error:
        raise FacadeError(str(error)) from None
    for note in notes:
        log(f"model import: {note}")
    config = bundle.model.config
    few = ", ".join(config.classes[:5]) + (", ..." if len(config.classes) > 5 else "")
    log(f"model import: {path} ({layout}) is now {out}: {few}; {config.priors.count} priors, {config.priors.name}")
    made = {"bundle": str(out), "layout": layout, "classes": list(config.classes), "priors": config.priors.name}
    return {"changed": digest != before, "outputs": made, "digest": digest, "notes": notes}


def build_bundle(
    weight_file: WeightFile, layout_name: str, classes: tuple[str, ...] | None, priors: PriorSpec | None
) -> tuple[Bundle, list[str]]:
    """Return the bundle of weights in a layout, and a sentence on whatever is not as it was in them.

    `classes` are other classes than the weights' own, `priors` other priors.
    """
    layout = LAYOUTS[layout_name]
    weights, unused = _convert(weight_file.tensors, layout)
    count = count_classes(weight_file.tensors, layout)
    classes, notes = (classes, []) if classes else default_class_names(layout_name, count)
    spec, changed = _select_priors(layout, priors)
    backbone = BackboneConfig()
    if len(spec.maps) == len(FINE_SOURCES):
        backbone, weights = BackboneConfig(sources=FINE_SOURCES), _shift_heads(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = SSD(ModelConfig(spec, classes, backbone, layout.mean, layout.std)).eval()
    notes = [*notes, *changed, *unused, *load_matching_weights(model, weights, count)]
    source = {"file": weight_file.name, "sha256": weight_file.sha256, "layout": layout_name, "notes": notes}
    return Bundle(model, DECODE_PRESETS[DECODE_BY_LAYOUT[layout_name]], {"source": source}), notes


def default_class_names(layout: str, count: int) -> tuple[tuple[str, ...], list[str]]:
    """Return names for the classes of weights with C = `count`, which have none of their own, and a note on them."""
    numbered = tuple(f"class_{number}" for number in range(1, count))
    if count == len(VOC_CLASSES) + 1:
        return VOC_CLASSES, [
            f"The {len(VOC_CLASSES)} classes are taken for those of Pascal VOC; if they are not, name --classes."
        ]
    if layout == "torchvision" and count == len(coco := _torchvision_categories()):
        known = zip(coco[1:], numbered, strict=True)
        names = tuple(number if name == "N/A" else name for name, number in known)
        return names, [f"The {count - 1} classes are taken for torchvision's of COCO; if they are not, name --classes."]
    return numbered, [f"The weights have no names for their {count - 1} classes: class_1 and so on; name --classes."]


def parse_classes(text: str | None) -> tuple[str, ...] | None:
    """Return the class names of a comma-separated option."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) < len(names) or "background" in names:
        raise UsageError(
            f"--classes {text!r} is not a list of different names, without background, as building,window,door."
        )
    return names


def _detect_layout(path: Path, weight_file: WeightFile) -> str:
    try:
        return detect_layout(weight_file.tensors)
    except ValueError as error:
        advice = "import a file of one of these, or rename its tensors"
        raise FacadeError(f"{path}: {str(error).rstrip('.')}; {advice}.") from None


def _convert(tensors: Mapping[str, Tensor], layout: WeightLayout) -> tuple[dict[str, Tensor], list[str]]:
    """Return weights under our names, and a note on those that the layout has no place for."""
    seen = _ImportedTensors(tensors)
    try:
        weights = layout.convert(seen)
    except KeyError as error:
        raise ValueError(f"It lacks the tensor {error}; it is cut short, or of another network.") from None
    unused = sorted(set(tensors) - seen.requested_names)
    return weights, [f"{len(unused)} tensors are not used, the first is {unused[0]}."] if unused else []


def _shift_heads(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with every head moved to the next map, so that there is room for a finer one."""
    heads = "heads.outputs."
    moved = {}
    for name, tensor in weights.items():
        number, _, kind = name.removeprefix(heads).partition(".")
        moved[f"{heads}{int(number) + 1}.{kind}" if name.startswith(heads) else name] = tensor
    return moved


class _ImportedTensors(dict[str, Tensor]):
    """Tensors by name that remember which were asked for."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self.requested_names: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self.requested_names.add(name)
        return super().__getitem__(name)


def _select_priors(layout: WeightLayout, priors: PriorSpec | None) -> tuple[PriorSpec, list[str]]:
    """Return the priors to use, and a note if they are not those that the weights were trained with."""
    own = layout.priors()
    if priors is None or replace(clamp_shapes(priors), name=own.name, note=own.note) == own:
        return own, []
    if priors.input_size != own.input_size:
        raise ValueError(f"The weights are for inputs of {own.input_size}; give priors for these, not {priors.name}.")
    return priors, [
        f"The weights were trained with the priors {own.name}; with {priors.name} train on before you detect."
    ]


def _torchvision_categories() -> Sequence[str]:
    from torchvision.models.detection import SSD300_VGG16_Weights

    categories: Sequence[str] = SSD300_VGG16_Weights.COCO_V1.meta["categories"]
    return categories
