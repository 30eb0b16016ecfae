"""Seeded chance: the only source of randomness of the drawn street."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Bytes = NDArray[np.uint8]


class SeededRandom:
    """A stream of random choices; equal entropy gives equal choices on every machine.

    Only `random()` and full-range `integers()` of PCG64 are used: both are plain integer code in numpy, while
    `normal()` and its like go through the C library's mathematics.
    """

    def __init__(self, *entropy: int) -> None:
        """Start the stream that belongs to these non-negative integers."""
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * float(self._rng.random())

    def integer(self, low: int, high: int) -> int:
        """Return an integer in [low, high], both ends included."""
        return low + int(self._rng.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Return True that often."""
        return float(self._rng.random()) < probability

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self.integer(0, len(options) - 1)]

    def bytes(self, *shape: int) -> Bytes:
        """Return an array of that shape of evenly distributed bytes."""
        return self._rng.integers(0, 256, size=shape, dtype=np.uint8)
