"""A bundle: a folder with a network's weights, and with all that it takes to run it. No pickle.

`weights.safetensors` has the tensors, `model.json` the rest and the weights' sha256: the digest of a model is that of
`model.json`. What else lies in the folder was made for this model (`operating.json`): another one that takes its place
takes it away.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ssd.decoding import DecodeConfig
from ssd.model import SSD, ModelConfig

__all__ = ["MODEL_FILE", "WEIGHTS_FILE", "Bundle", "bundle_digest", "load_bundle", "save_bundle", "write_folder"]

FORMAT: Final = 2
MODEL_FILE: Final = "model.json"
WEIGHTS_FILE: Final = "weights.safetensors"
JSON_KEYS: Final = {"format", "photos", "decode", "trained", "weights_sha256"}  # in addition to the network's own
# How photos are brought to the input; another release that does it otherwise must say so.
PREPROCESSING: Final = {"channels": "red, green, blue", "resize": "squashed to the input, bilinear, antialiased"}


@dataclass(frozen=True)
class Bundle:
    """A network and how to use it.

    Attributes:
        model: In evaluation mode.
        decode: How its outputs become detections.
        trained: What it comes from, for people and programs: data digest, run, source of the weights.
    """

    model: SSD
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    trained: Mapping[str, Any] = field(default_factory=dict)


def save_bundle(folder: Path, bundle: Bundle) -> str:
    """Write a bundle into a folder that was not there or is a bundle, at one stroke; return its digest.

    Weights are stored as float16 where that loses nothing, else as float32; they are loaded as float32.
    """
    if folder.exists() and not (folder / MODEL_FILE).is_file():
        raise FileExistsError(f"{folder} exists and is not a model bundle; give another folder.")
    tensors = _to_half(bundle.model.state_dict())
    if wild := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise ValueError(
            f"Weights of a bundle are finite numbers; {len(wild)} tensors are not, the first is {wild[0]}. The "
            "training diverged: lower lr."
        )
    weights = save(tensors)
    text = json.dumps(
        {
            "format": FORMAT,
            **bundle.model.config.to_json(),
            "photos": PREPROCESSING,
            "decode": asdict(bundle.decode),
            "trained": dict(bundle.trained),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        },
        indent=1,
        allow_nan=False,
    )
    write_folder(folder, {WEIGHTS_FILE: weights, MODEL_FILE: text.encode()})
    return bundle_digest(folder)


def load_bundle(folder: Path) -> Bundle:
    """Return the bundle of a folder, its weights checked, its network in evaluation mode on the CPU."""
    data = _read_json(folder)
    try:
        weights = (folder / WEIGHTS_FILE).read_bytes()
        digest = hashlib.sha256(weights).hexdigest()
        if digest != data["weights_sha256"]:
            raise ValueError(f"its weights have the sha256 {digest}, {MODEL_FILE} says {data['weights_sha256']}")
        if data["photos"] != PREPROCESSING:
            raise ValueError(f"it wants photos as {data['photos']}, which this release does not do")
        with torch.device("meta"):  # no weights are drawn that would be thrown away
            model = SSD(ModelConfig.from_json(data))
        tensors = {
            name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load(weights).items()
        }
        model.load_state_dict(tensors, assign=True)
        if unknown := data.keys() - model.config.to_json().keys() - JSON_KEYS:
            raise ValueError(f"{MODEL_FILE} has {', '.join(sorted(unknown))}, which this release does not know")
        return Bundle(model.eval(), DecodeConfig(**data["decode"]), data["trained"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"The bundle {folder} can't be used: {error}. Export or train it again.") from error


def bundle_digest(folder: Path) -> str:
    """Return the digest of a bundle: the sha256 of `model.json`, which has the weights' own."""
    return hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest()


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder at one stroke, in place of what may be there: it is there as a whole, or as it was."""
    folder = folder.absolute()
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{part}") for part in ("new", "old"))
    try:
        new.mkdir(parents=True)
        for name, data in files.items():
            (new / name).write_bytes(data)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except BaseException:  # an interrupt between the two renames must not cost the only copy
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        data = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} is not a model bundle: a folder with {MODEL_FILE} and {WEIGHTS_FILE} ({error})."
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        got = data.get("format") if isinstance(data, dict) else data
        advice = "; it is of version 0.1: train or import it again" if got == 1 else ""
        raise ValueError(f"The bundle {folder} has format {got!r}; this release reads format {FORMAT}{advice}.")
    return data


def _to_half(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors as they are written: floats in as few bits as hold all of them, counts as they are."""
    whole = {
        name: tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else None).contiguous()
        for name, tensor in tensors.items()
    }
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in whole.items()}
    return half if all(torch.equal(half[name].to(whole[name].dtype), whole[name]) for name in whole) else whole
