"""Every test of the detector draws the same numbers; the pretrained trunks where they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

WEIGHTS = Path(__file__).resolve().parents[2].parent / "shared" / "weights"


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> Iterator[None]:
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.random.set_rng_state(state)


@pytest.fixture(scope="session")
def released_weights() -> Path:
    """The folder of pretrained trunks."""
    if not WEIGHTS.is_dir():
        pytest.skip(f"no pretrained weights: {WEIGHTS} is not there")
    return WEIGHTS
