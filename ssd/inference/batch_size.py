"""Find the fastest batch size of a detector on its device."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ssd.inference.stream import BatchedModel

__all__ = ["best_batch"]

# What is tried on a GPU; a larger batch must be so much faster to be worth its memory.
BATCH_SIZES, MIN_SPEEDUP = (16, 32, 64, 128, 256), 1.03


CPU_BATCH = 3  # with four, the widest layer of MobileNetV2 is more than what `ssd.memory` keeps


def best_batch(network: BatchedModel, inputs: Tensor) -> int:
    """Return the fastest batch size, measured on a GPU with copies of the first of some rows."""
    if network.device.type == "cpu":
        return CPU_BATCH
    best, fewest = BATCH_SIZES[0], float("inf")
    for batch in BATCH_SIZES:
        try:
            seconds = _time_batch(network, inputs[:1].repeat(batch, 1, 1, 1)) / batch
        except torch.OutOfMemoryError:
            break
        if seconds * MIN_SPEEDUP > fewest:
            break
        best, fewest = batch, seconds
    torch.cuda.empty_cache()
    return best


def _time_batch(network: BatchedModel, inputs: Tensor, rounds: int = 3) -> float:
    """Time a batch, after one to warm up."""
    network.outputs(inputs)
    torch.cuda.synchronize(network.device)
    begin = time.perf_counter()
    for _ in range(rounds):
        network.outputs(inputs)
    torch.cuda.synchronize(network.device)
    return (time.perf_counter() - begin) / rounds
