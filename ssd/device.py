"""Choose the device to compute on."""

from __future__ import annotations

import torch

__all__ = ["resolve_device"]


def resolve_device(name: str, index: int = 0) -> torch.device:
    """Return a device by name: "cpu", "cuda", or "auto" for a GPU where there is one.

    Args:
        name: of the device.
        index: of this process among those that share the machine's GPUs.

    Raises:
        ValueError: if PyTorch finds no GPU, and "cuda" is asked for.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        return torch.device(name)
    if not torch.cuda.is_available():
        raise ValueError("The device is cuda, but PyTorch finds no GPU here; leave it out, or install its CUDA build.")
    return torch.device("cuda", index % torch.cuda.device_count())
