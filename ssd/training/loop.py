"""The training loop: from the first step to the bundle, with validation, checkpoints and resuming.

A folder `OUT` holds `checkpoint` (from which an interrupted run resumes), `history.json` (one entry per epoch) and, at
the end, `bundle`.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ssd.bundle import Bundle, bundle_digest, save_bundle, write_folder
from ssd.device import resolve_device
from ssd.malloc import tune_malloc
from ssd.model import SSD
from ssd.training.dataset import InMemoryDataset
from ssd.training.task import TrainingTask
from ssd.training.trainer import Progress, Trainer, strip_prefix
from ssd.training.validation import Scores, Validator

__all__ = ["BUNDLE", "CHECKPOINT", "HISTORY_FILE", "TrainingCallbacks", "TrainingResult", "TrainingRun", "read_history"]

CHECKPOINT: Final = "checkpoint"
BUNDLE: Final = "bundle"
HISTORY_FILE: Final = "history.json"
STATE_FILE: Final = "state.json"
TENSORS_FILE: Final = "state.safetensors"
RETRY_PAUSE: Final = 5.0

Row = dict[str, float]


def _do_nothing(*_: Any) -> None:
    """Watch nothing."""


@dataclass(frozen=True)
class TrainingCallbacks:
    """Who wants to know what happens.

    Attributes:
        on_step: Called with the photos shown, after each step.
        on_epoch: Called with the entry of each epoch.
        log: Called with a sentence now and then.
    """

    on_step: Callable[[int], None] = _do_nothing
    on_epoch: Callable[[Mapping[str, float]], None] = _do_nothing
    log: Callable[[str], None] = _do_nothing


@dataclass(frozen=True)
class TrainingResult:
    """What a run has come to.

    Attributes:
        rows: An entry an epoch, flat names to numbers.
        best: The number of the epoch that was kept.
        val: Its scores on val, empty without one.
        test: Its scores on test, empty without one.
        digest: Of the bundle.
    """

    rows: Sequence[Mapping[str, float]]
    best: int
    val: Scores
    test: Scores
    digest: str


@dataclass
class _BestEpoch:
    """The epoch to keep, so far."""

    number: int = 0
    value: float = -math.inf
    weights: Mapping[str, Tensor] | None = None


class TrainingRun:
    """One run of a task in a folder.

    Args:
        task: What to train.
        out: The run's folder; a checkpoint in it is resumed from.
        device: "cpu", "cuda", or "auto".
        checkpoint_seconds: Seconds from one checkpoint to the next.
        retry_seconds: Seconds to wait for a full disk at the end; before, a checkpoint that fails is retried later.
        callbacks: Called on progress.
    """

    def __init__(
        self,
        task: TrainingTask,
        out: Path,
        device: str = "auto",
        checkpoint_seconds: float = 600.0,
        retry_seconds: float = 0.0,
        callbacks: TrainingCallbacks | None = None,
    ) -> None:
        self.task, self.out, self.checkpoint_seconds, self.retry_seconds = task, out, checkpoint_seconds, retry_seconds
        self.callbacks, self.device = callbacks or TrainingCallbacks(), resolve_device(device)
        if self.device.index is not None:
            torch.cuda.set_device(self.device)  # what is captured runs on the streams of the current device
        train, val = (_place_on_device(examples, self.device) for examples in (task.train, task.val))
        assert train is not None
        self.trainer = Trainer(task.build_model(), train, task.config, self.device)
        self.validator = Validator(val, task.model, task.config.loss, task.decode) if val is not None else None
        self.rows: list[Row] = []
        self.best, self.last_checkpoint = _BestEpoch(), time.monotonic()
        self.pending_checkpoint: dict[str, bytes] | None = None
        if (self.out / CHECKPOINT).exists():
            self._resume()

    def run(self) -> TrainingResult:
        """Train to the end, resuming from a checkpoint if there is one."""
        if self.device.type == "cpu":
            tune_malloc()
        with _deterministic(self.device):
            return self._run()

    def _run(self) -> TrainingResult:
        while len(self.rows) < self.task.config.epochs and not self._is_stale():
            self._run_epoch()
        last = self._checkpoint_files()
        self._retry_write(lambda: write_folder(self.out / CHECKPOINT, last))
        return self._finish()

    def _run_epoch(self) -> None:
        trainer, size = self.trainer, self.trainer.steps_per_epoch
        before, number = Progress(**vars(trainer.progress)), len(self.rows) + 1
        trainer.run(number * size, self._after_step)
        now = trainer.progress
        locations, confidences = zip(*now.losses[-size:], strict=True)
        location, confidence = sum(locations) / size, sum(confidences) / size
        seconds, waited = now.seconds - before.seconds, now.wait_seconds - before.wait_seconds
        row: Row = {
            "epoch": number,
            "step": now.step,
            "lr": self.task.config.lr_at(now.step / (size * self.task.config.epochs)),
            "train.loss": location + confidence,
            "train.loss_location": location,
            "train.loss_confidence": confidence,
            "images_per_second": (now.step - before.step) * self.task.config.batch / max(seconds, 1e-9),
            "data_wait": waited / max(seconds, 1e-9),
        }
        if self.validator and (number % self.task.config.validate_every == 0 or number == self.task.config.epochs):
            scores = self.validator(trainer.eval_weights, self.device, trainer.bfloat16)
            row |= {f"val.{name}": value for name, value in scores.items()}
        self.rows.append(row)
        self._keep_if_best(row)
        self.callbacks.on_epoch(row)

    def _keep_if_best(self, row: Row) -> None:
        """Keep the weights if this epoch is the best so far; without validation photos, each is."""
        if self.validator is None:
            value = float(row["epoch"])
        elif "val.loss" in row:
            value = -row["val.loss"] if self.task.config.best_by == "loss" else row.get("val.map50", -math.inf)
        else:
            return
        if self.best.weights is None or value > self.best.value:
            weights = self.trainer.eval_weights.state_dict()
            self.best = _BestEpoch(int(row["epoch"]), value, {name: tensor.clone() for name, tensor in weights.items()})

    def _is_stale(self) -> bool:
        patience = self.task.config.early_stopping_epochs
        return bool(patience and self.rows) and len(self.rows) - self.best.number >= patience

    def _after_step(self) -> None:
        """Write a checkpoint now and then, one step after it was taken: that step's loss has shown that it is good."""
        self.callbacks.on_step(self.task.config.batch)
        if self.pending_checkpoint is not None:
            try:
                write_folder(self.out / CHECKPOINT, self.pending_checkpoint)
            except OSError as error:
                self.callbacks.log(f"could not write checkpoint ({error.strerror}); keeping the previous one")
            self.pending_checkpoint, self.last_checkpoint = None, time.monotonic()
        elif time.monotonic() - self.last_checkpoint >= self.checkpoint_seconds:
            self.pending_checkpoint = self._checkpoint_files()

    def _checkpoint_files(self) -> dict[str, bytes]:
        """Return the files of a checkpoint."""
        tensors = self.trainer.state()
        if self.best.weights is not None:
            tensors |= {f"best.{name}": tensor.cpu().contiguous() for name, tensor in self.best.weights.items()}
        state = {
            "task": self.task.digest,
            "progress": vars(self.trainer.progress),
            "rows": self.rows,
            "best": [self.best.number, self.best.value if self.best.weights is not None else None],
        }
        return {TENSORS_FILE: save(tensors), STATE_FILE: json.dumps(state).encode()}

    def _resume(self) -> None:
        folder = self.out / CHECKPOINT
        try:
            state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            tensors = load((folder / TENSORS_FILE).read_bytes())
            if state["task"] != self.task.digest:
                raise ValueError("it is of other photos, settings or priors")
            losses = [tuple(pair) for pair in state["progress"]["losses"]]
            self.trainer.restore(tensors, Progress(**{**state["progress"], "losses": losses}))
            self.rows = state["rows"]
            number, value = state["best"]
            if value is not None:
                weights = {name: tensor.to(self.device) for name, tensor in strip_prefix(tensors, "best.").items()}
                self.best = _BestEpoch(number, value, weights)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise ValueError(
                f"The checkpoint {folder} can't be resumed from: {error}. Delete it to start over."
            ) from error
        self.callbacks.log(f"resuming from step {self.trainer.progress.step}, epoch {len(self.rows) + 1}")

    def _finish(self) -> TrainingResult:
        """Write the bundle of the best epoch, scored on the test photos, and the history."""
        assert self.best.weights is not None
        model = SSD(self.task.model)
        model.load_state_dict(_round_weights(self.best.weights))
        model.eval()
        row = self.rows[self.best.number - 1]
        val = {name.removeprefix("val."): value for name, value in row.items() if name.startswith("val.")}
        test = self._score_test(model)
        trained = {
            **self.task.metadata,
            "epoch": self.best.number,
            "device": str(self.device),
            "versions": {name: version(name) for name in ("torch", "torchvision", "numpy")},
            "val": val,
            "test": test,
        }
        bundle = Bundle(model, self.task.decode, trained)
        digest = self._retry_write(lambda: save_bundle(self.out / BUNDLE, bundle))
        assert digest is not None
        finished = TrainingResult(self.rows, self.best.number, val, test, digest)
        text = json.dumps(vars(finished), indent=1).encode()
        self._retry_write(lambda: _write_atomically(self.out / HISTORY_FILE, text))
        return finished

    def _score_test(self, model: SSD) -> Scores:
        if self.task.test is None or not len(self.task.test):
            return {}
        validate = Validator(self.task.test, self.task.model, self.task.config.loss, self.task.decode)
        return validate(model, self.device, self.trainer.bfloat16)

    def _retry_write(self, write: Callable[[], Any]) -> Any:
        """Call a write, and retry while the disk is full."""
        end = time.monotonic() + self.retry_seconds
        while True:
            try:
                return write()
            except OSError as error:
                if time.monotonic() >= end:
                    raise
                self.callbacks.log(f"cannot write to {self.out} ({error.strerror}); trying again")
                time.sleep(min(RETRY_PAUSE, self.retry_seconds))


def read_history(out: Path) -> TrainingResult | None:
    """Read the result of a finished run; None if it has not finished."""
    try:
        data = json.loads((out / HISTORY_FILE).read_text(encoding="utf-8"))
        finished = TrainingResult(**data)
        return finished if bundle_digest(out / BUNDLE) == finished.digest else None
    except (OSError, TypeError, ValueError):
        return None


def _round_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights that a bundle stores in half the bits, unless one of them is too large for that.

    What this takes off is an eighth of what bfloat16 does, in which most machines multiply.
    """
    half = {name: tensor.half().float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    return half if all(bool(tensor.isfinite().all()) for tensor in half.values()) else dict(weights)


def _write_atomically(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    partial = path.with_name(f".{path.name}.new")
    partial.write_bytes(data)
    partial.replace(path)


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Let a GPU add in one order, so that a run gone on with is the same; a CPU always does."""
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # It would only cost time: nothing reads such memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _place_on_device(examples: InMemoryDataset | None, device: torch.device) -> InMemoryDataset | None:
    """Return the examples on a GPU, if they take less than half of what is free there."""
    if examples is None or not len(examples):
        return None
    if device.type != "cuda" or examples.num_bytes > torch.cuda.mem_get_info(device)[0] / 2:
        return examples
    return examples.to(device)
