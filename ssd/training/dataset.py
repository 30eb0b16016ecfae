"""Photos in memory with what they should show, and the order in which a run shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssd.containers import Target

__all__ = ["InMemoryDataset"]


@dataclass(frozen=True)
class InMemoryDataset:
    """Photos with what they should show, in memory: on the CPU, or on the GPU where they fit.

    Attributes:
        names: Of each photo, for people.
        photos: Each uint8 (3, H, W), of any size.
        targets: In pixels of the photos, on the CPU.
        weights: How often each is shown in relation to others; all alike by default.
        sets: The dataset of each, to be scored apart; one by default.
    """

    names: Sequence[str]
    photos: Sequence[Tensor]
    targets: Sequence[Target]
    weights: Sequence[float] | None = None
    sets: Sequence[str] | None = None

    def __post_init__(self) -> None:
        rows = (self.names, self.photos, self.targets, self.weights, self.sets)
        counts = {len(row) for row in rows if row is not None}
        if len(counts) > 1:
            raise ValueError(f"Examples have a name, a photo, a target, a weight each; got {sorted(counts)} of them.")
        if self.weights is not None and not (min(self.weights, default=1) >= 0 and sum(self.weights) > 0):
            raise ValueError("The weights of examples are from 0, and one is above.")

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def num_bytes(self) -> int:
        """The memory that the photos take."""
        return sum(photo.numel() for photo in self.photos)

    def to(self, device: torch.device | str) -> InMemoryDataset:
        """Return the examples with their photos on a device."""
        return replace(self, photos=[photo.to(device) for photo in self.photos])

    def order(self, generator: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the photos of an epoch, as many as there are: each once, or as often as its weight says.

        What is left of a share of three and a half is shown once more in every second epoch.
        """
        if self.weights is None:
            return generator.permutation(len(self))
        shares = np.asarray(self.weights, dtype=np.float64)
        shares *= len(self) / shares.sum()
        whole = shares.astype(np.int64)
        missing, rest = len(self) - int(whole.sum()), shares - whole
        if missing:
            whole += np.bincount(_sample(generator, rest, missing), minlength=len(self))
        return generator.permutation(np.repeat(np.arange(len(self)), whole))


def _sample(
    generator: np.random.Generator, shares: np.ndarray[Any, np.dtype[np.float64]], count: int
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return `count` places, each drawn as often as its share says: marks at equal distances on the shares in a row."""
    order = generator.permutation(len(shares))
    marks = (np.arange(count) + generator.random()) * (shares.sum() / count)
    places = np.searchsorted(np.cumsum(shares[order]), marks, side="right").clip(max=len(shares) - 1)
    drawn: np.ndarray[Any, np.dtype[np.int64]] = order[places]
    return drawn
