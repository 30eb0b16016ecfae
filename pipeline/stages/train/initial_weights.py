"""The weights that training starts from: a trunk trained on ImageNet, a bundle, or none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.assets import resolve_bundle
from pipeline.errors import FacadeError
from pipeline.models.bundle import open_bundle, translate_errors
from pipeline.models.weight_files import read_weight_file
from ssd import SSD, ModelConfig, bundle_digest, load_matching_weights, load_trunk
from ssd.bundle import MODEL_FILE

__all__ = ["load_initial_weights", "weights_fingerprint"]

IMAGENET, NONE = "imagenet", "none"
FEATURES_PREFIX = "features."


def load_initial_weights(
    name: str, config: ModelConfig, seed: int
) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Return the tensors to start from, where they come from, and a sentence on whatever of them does not fit.

    `name` is "imagenet", "none", "default", a file of a trunk as torchvision names it, or a bundle's folder.
    """
    if name == NONE:
        return {}, {"from": NONE}, []
    if (folder := resolve_bundle(name)).is_dir():
        return _load_from_bundle(folder, config, seed)
    path = _torchvision_file(config.backbone.name) if name == IMAGENET else folder
    checkpoint = read_weight_file(path)
    with translate_errors(str(path)), torch.device("cpu"):
        unused = load_trunk(SSD(config), checkpoint.tensors)
    kept = {key: tensor.contiguous() for key, tensor in checkpoint.tensors.items() if key not in unused}
    notes = [f"{len(unused)} tensors of {path.name} are not used, the first is {unused[0]}"] if unused else []
    return kept, {"from": checkpoint.name, "sha256": checkpoint.sha256}, notes


def weights_fingerprint(name: str) -> str:
    """Return a location-independent fingerprint: the keyword itself, a bundle's digest, or a file's sha256."""
    path = resolve_bundle(name)
    if (path / MODEL_FILE).is_file():
        return bundle_digest(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return name


def _load_from_bundle(
    folder: Path, config: ModelConfig, seed: int
) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Return a bundle's weights in a network for these classes and priors; what does not fit is drawn by the seed."""
    if not (folder / MODEL_FILE).is_file():
        raise FacadeError(
            f"train.init_weights: {folder} is a folder and no bundle; name one with {MODEL_FILE}, or a file."
        )
    bundle = open_bundle(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SSD(config)
    with translate_errors(str(folder)):
        notes = load_matching_weights(model, bundle.model.state_dict(), 1 + len(bundle.model.config.classes))
    return dict(model.state_dict()), {"from": folder.name, "trained": dict(bundle.trained)}, notes


def _torchvision_file(backbone: str) -> Path:
    """Return torchvision's file of a trunk, from its cache, else downloaded."""
    from torchvision.models import MobileNet_V2_Weights, VGG16_Weights

    known: Mapping[str, Any] = {
        "vgg16": VGG16_Weights.IMAGENET1K_V1,
        "mobilenet_v2": MobileNet_V2_Weights.IMAGENET1K_V1,
    }
    if backbone not in known:
        raise FacadeError(f"{backbone} has no weights of ImageNet; train it with --set train.init_weights=none.")
    url = known[backbone].url
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:
            raise FacadeError(
                f"torchvision's weights of {backbone} are not in {path.parent} and cannot be fetched "
                f"({' '.join(str(error).split())[:80]}); put {path.name} there, name a file (train.init_weights=FILE), "
                "a bundle with train.init_weights=FOLDER, or train from scratch with train.init_weights=none."
            ) from None
    return path
