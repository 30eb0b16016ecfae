"""Files of weights that other programs saved: tensors by name, or a sentence about what the file is instead.

Only here is a `.pth` opened, and never with the unpickler that runs what a file tells it to.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import FacadeError, UsageError

__all__ = ["WeightFile", "read_weight_file"]

PICKLE_SUFFIXES = (".pth", ".pt", ".pth.tar")
SAFETENSORS_SUFFIX = ".safetensors"
# Keys under which training programs store the weights, next to epoch, optimiser and other state.
WRAPPER_KEYS = ("state_dict", "model", "model_state_dict")
PARALLEL_PREFIX = "module."
NOT_TENSORS = "only the program that made it can open it: there, save `torch.save(model.state_dict(), 'weights.pth')`"
# Said of files that then open as they should, or that get a sentence of ours.
KNOWN_WARNINGS = r"Detected pickle protocol|'torch\.load' received a zip file that looks like a TorchScript archive"


@dataclass(frozen=True)
class WeightFile:
    """What a file holds: its name, the sha256 of its bytes, and its tensors by name."""

    name: str
    sha256: str
    tensors: Mapping[str, Tensor]


def read_weight_file(path: Path) -> WeightFile:
    """Return the tensors of a file, out of what programs wrap them in and without the prefix of DataParallel."""
    name = path.name.lower()
    if not name.endswith((*PICKLE_SUFFIXES, SAFETENSORS_SUFFIX)):
        raise UsageError(
            f"{path}: unsupported weight file extension; supported: {', '.join(PICKLE_SUFFIXES)}, {SAFETENSORS_SUFFIX}."
        )
    with path.open("rb") as file:  # first of all: a file that is not there is the commonest mistake
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    tensors = (
        _read_safetensors(path) if name.endswith(SAFETENSORS_SUFFIX) else unwrap_state_dict(path, _load_pickle(path))
    )
    return WeightFile(path.name, sha256, strip_prefix(tensors))


def unwrap_state_dict(path: Path, value: Any) -> dict[str, Tensor]:
    """Return the tensors by name that a loaded object is, or has below one of the usual keys."""
    inside = value
    while isinstance(inside, Mapping) and (key := next((key for key in WRAPPER_KEYS if key in inside), None)):
        inside = inside[key]
    if not isinstance(inside, Mapping) or not inside or not all(isinstance(one, Tensor) for one in inside.values()):
        keys = f" with the keys {', '.join(map(str, list(value)[:5]))}" if isinstance(value, Mapping) else ""
        raise FacadeError(
            f"{path} holds a {type(value).__name__}{keys}, expected tensors by name, or such below one of the keys "
            f"{', '.join(WRAPPER_KEYS)}; save the model's state_dict() and import that."
        )
    return {str(name): tensor for name, tensor in inside.items()}


def strip_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as they were named before DataParallel put them one level down."""
    if not all(name.startswith(PARALLEL_PREFIX) for name in tensors):
        return dict(tensors)
    return {name.removeprefix(PARALLEL_PREFIX): tensor for name, tensor in tensors.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise FacadeError(f"{path} cannot be read as safetensors ({_short(error)}); fetch or save it again.") from None
    return tensors


def _load_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=KNOWN_WARNINGS, category=UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torn and damaged files raised eleven classes, OSError and struct.error among them
        raise FacadeError(_load_error_message(path, error)) from error


def _load_error_message(path: Path, error: Exception) -> str:
    if found := re.search(r"GLOBAL (\S+)", str(error)):
        return f"{path} holds more than tensors ({found[1]}), and {NOT_TENSORS} and import that."
    if "TorchScript" in str(error):
        return f"{path} holds a TorchScript program, and {NOT_TENSORS} and import that."
    return f"{path} is corrupt, or not as torch.save writes by itself ({_short(error)}); fetch or save it again."


def _short(error: Exception) -> str:
    """Return the class of an error and the beginning of what it says, on one line."""
    said = str(error).rpartition("WeightsUnpickler error:")[2]  # torch puts a page of advice around it
    return f"{type(error).__name__}: {' '.join(said.split())[:80]}".rstrip(": .")
