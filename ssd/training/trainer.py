"""One resumable optimisation loop, step by step.

What a step shows is decided by the seed, the epoch and the step alone, so that nothing of chance has to be saved: a
checkpoint is the weights, the optimiser's memory, and how far it is.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ssd.augmentation.sampling import augment
from ssd.containers import Target, TargetBatch
from ssd.inference.detector import supports_bfloat16
from ssd.losses.multibox import Loss, MultiBoxLoss
from ssd.model import SSD
from ssd.training.config import TrainConfig
from ssd.training.dataset import InMemoryDataset

__all__ = ["DivergedError", "Progress", "Trainer"]

Batch = tuple[list[str], Tensor, list[Target], TargetBatch]
Network = Callable[[Tensor], tuple[Tensor, Tensor]]


class DivergedError(ArithmeticError):
    """The loss is no finite number: says which images were shown."""


@dataclass
class Progress:
    """How far a run is, and what it has seen.

    Attributes:
        step: Steps done, over all epochs.
        losses: Location and confidence of each step done.
        seconds: Spent on steps.
        wait_seconds: Of these, spent on waiting for photos.
    """

    step: int = 0
    losses: list[tuple[float, float]] = field(default_factory=list)
    seconds: float = 0.0
    wait_seconds: float = 0.0


class _Prefetcher:
    """Batches made in threads, some steps before they are asked for, those of the next epoch too.

    What a photo is changed by is planned in Python and drawn by many small steps: one thread feeds no GPU.
    """

    def __init__(self, function: Callable[[int], Batch], steps: int, threads: int) -> None:
        self.function, self.steps, self.depth = function, steps, 2 * threads
        self.pool = ThreadPoolExecutor(threads, "batch")
        self.futures: dict[int, Future[Batch]] = {}

    def __call__(self, step: int) -> Batch:
        """Return the batch of a step, and begin those that follow."""
        wanted = [step, *range(step + 1, min(step + self.depth, self.steps))]
        self.futures = {
            number: self.futures.get(number) or self.pool.submit(self.function, number) for number in wanted
        }
        return self.futures.pop(step).result()


class _GraphWrapper(nn.Module):
    """A model in a shell: what is captured takes the place of the shell's `forward`, and the model's stays its own."""

    def __init__(self, model: SSD) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Run the model."""
        offsets, logits = self.model(images)
        return offsets, logits


class Trainer:
    """A model, what it learns from, and how far it is."""

    def __init__(
        self, model: SSD, examples: InMemoryDataset, config: TrainConfig, device: str | torch.device = "cpu"
    ) -> None:
        if len(examples) < config.batch:
            raise ValueError(
                f"There are {len(examples)} photos to learn from, fewer than a batch of {config.batch}; add some, or "
                "make the batch smaller."
            )
        self.config, self.examples, self.device = config, examples, torch.device(device)
        placed = model.to(self.device)
        self.model: SSD = placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = MultiBoxLoss(model.config.priors, config.loss).to(self.device)
        self.optimiser = _optimiser(self.model, config)
        self.average_model = _make_average(self.model, config.ema)
        self.progress = Progress()
        self._order = lru_cache(2)(self._epoch_order)
        self.prefetcher = _Prefetcher(
            self._batch, self.steps_per_epoch * config.epochs, 1 if self.device.type == "cpu" else 3
        )
        self.bfloat16 = supports_bfloat16(device) if config.bfloat16 is None else config.bfloat16

    @property
    def steps_per_epoch(self) -> int:
        """The steps of an epoch: whole batches."""
        return len(self.examples) // self.config.batch

    @property
    def eval_weights(self) -> SSD:
        """The network to use: the average of the weights where there is one."""
        return self.model if self.average_model is None else self.average_model

    def run(self, until_step: int, on_step: Callable[[], None] = lambda: None) -> None:
        """Do steps until so many are done, over all epochs; `on_step` is called after each."""
        self.model.train()
        network = self.network  # on a GPU captured now, before threads that make batches have work for it
        while self.progress.step < until_step:
            begin = time.perf_counter()
            batch = self.prefetcher(self.progress.step)
            waited = time.perf_counter() - begin
            self._step(network, *batch)
            self.progress.wait_seconds += waited
            self.progress.seconds += time.perf_counter() - begin
            on_step()

    @cached_property
    def network(self) -> Network:
        """The model as it is run: on a GPU captured, so that a step is not hundreds of launches from Python."""
        if self.device.type != "cuda":
            return self.model
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        inputs = torch.zeros(self.config.batch, 3, *self.model.config.priors.input_size, device=self.device)
        inputs = inputs.to(memory_format=torch.channels_last)
        # Of the streams that gradients are added up on; it costs nothing here.
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16, cache_enabled=False):
            network = torch.cuda.make_graphed_callables(_GraphWrapper(self.model), (inputs,), allow_unused_input=True)
        self.model.load_state_dict(before)  # the passes to get warm have moved the means of batch norms
        return cast("Network", network)

    def _epoch_order(self, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return self.examples.order(np.random.default_rng([self.config.seed, epoch]))

    def _batch(self, step: int) -> Batch:
        """Prepare the batch of a step: names, normalised photos (B, 3, H, W), targets, and these in a block."""
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = self._order(epoch)[place * self.config.batch : (place + 1) * self.config.batch]
        photos = [self.examples.photos[row] for row in chosen]
        targets = [self.examples.targets[row] for row in chosen]
        generator = np.random.default_rng([self.config.seed, epoch, place])
        size = self.model.config.priors.input_size
        inputs, targets = augment(photos, targets, self.config.augmentation, size, generator)
        inputs = self.model.normalise(inputs.to(self.device, non_blocking=True))
        block = TargetBatch.from_targets(targets, 1 + len(self.model.config.classes)).to(self.device)
        return [self.examples.names[row] for row in chosen], inputs, targets, block

    def _step(
        self, network: Network, names: list[str], inputs: Tensor, targets: list[Target], block: TargetBatch
    ) -> None:
        total = self.steps_per_epoch * self.config.epochs
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.lr_at((self.progress.step + 1) / total) * group["factor"]
        # Before the network: waits for the matches of a GPU while nothing else is queued.
        matches = self.loss.match(block)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            offsets, logits = network(inputs.contiguous(memory_format=torch.channels_last))
        loss: Loss = self.loss(offsets, logits, block, matches)
        self.optimiser.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        # Asked for only now that a GPU has most of the step to do; the weights are still as they were.
        sums = torch.stack([loss.location.sum(), loss.confidence.sum()]).tolist()
        if not np.isfinite(sums).all():
            raise DivergedError(_divergence_message(names, targets, loss, self.progress.step))
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimiser.step()
        if self.average_model is not None:
            # Of a run that has just begun, the average is of what there is.
            _move_average(
                self.average_model,
                self.model,
                min(self.config.ema, (1 + self.progress.step) / (10 + self.progress.step)),
            )
        self.progress.step += 1
        self.progress.losses.append((sums[0], sums[1]))

    def state(self) -> dict[str, Tensor]:
        """Return the state to resume from, without the progress: tensors by name, on the CPU."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.average_model is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average_model.state_dict().items()}
        for name, weight in self.model.named_parameters():
            memory = self.optimiser.state.get(weight, {})
            tensors |= {f"optimiser.{key}.{name}": value for key, value in memory.items() if value is not None}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def restore(self, tensors: Mapping[str, Tensor], progress: Progress) -> None:
        """Go on from a state, bit for bit on the same kind of device."""
        self.progress = progress
        self.model.load_state_dict(strip_prefix(tensors, "model."))
        if self.average_model is not None:
            self.average_model.load_state_dict(strip_prefix(tensors, "average."))
        weights = dict(self.model.named_parameters())
        for key_and_name, tensor in strip_prefix(tensors, "optimiser.").items():
            key, _, name = key_and_name.partition(".")
            # Adam counts its steps on the CPU.
            self.optimiser.state[weights[name]][key] = tensor if key == "step" else tensor.to(weights[name])


def _optimiser(model: SSD, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser, biases in a group of their own that learns faster."""
    named = list(model.named_parameters())
    groups = [
        {"params": [weight for name, weight in named if name.endswith("bias") == is_bias], "factor": factor}
        for is_bias, factor in ((False, 1.0), (True, config.bias_factor))
    ]
    if config.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def _make_average(model: SSD, share: float) -> SSD | None:
    """Return a second network, to hold the average of the weights."""
    if not share:
        return None
    average = SSD(model.config).to(next(model.parameters()).device)
    average.load_state_dict(model.state_dict())
    return average.requires_grad_(False)


@torch.no_grad()
def _move_average(average: SSD, model: SSD, share: float) -> None:
    for mean, now in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(now, 1 - share)
        else:
            mean.copy_(now)


def _divergence_message(names: list[str], targets: list[Target], loss: Loss, step: int) -> str:
    """Return a sentence about a loss that is no number: the step, and the images with their boxes."""
    shares = (loss.location + loss.confidence).tolist()
    shown = [
        f"{name} (loss {share:.3g}, boxes {target.boxes.round().int().tolist()[:5]})"
        for name, share, target in zip(names, shares, targets, strict=True)
    ]
    return f"The loss of step {step} is not finite; it showed {'; '.join(shown)}. Lower lr, or look at these boxes."


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name begins with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
