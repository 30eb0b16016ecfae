"""All that a training run starts from, and its form as a folder for a machine that has nothing but this library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ssd.bundle import write_folder
from ssd.containers import Target
from ssd.decoding import DecodeConfig
from ssd.model import SSD, ModelConfig
from ssd.training.config import TrainConfig
from ssd.training.dataset import InMemoryDataset
from ssd.weight_conversion import load_trunk

__all__ = ["TASK_FILE", "TrainingTask", "load_task", "save_task"]

FORMAT: Final = 2
TASK_FILE: Final = "task.json"
INIT_FILE: Final = "start.safetensors"
SPLITS: Final = ("train", "val", "test")


@dataclass(frozen=True)
class TrainingTask:
    """Everything that decides a training.

    Attributes:
        model: The network.
        config: Settings of the training.
        train: Photos to train on.
        val: Photos that select the best epoch; None: the last epoch is kept.
        test: Photos on which the best epoch is evaluated, once, at the end.
        init_weights: Initial weights: a backbone's with torchvision's names, or those of a bundle that fit.
        decode: How outputs become detections.
        metadata: What else the bundle should record: digests, origin of the weights.
    """

    model: ModelConfig
    config: TrainConfig
    train: InMemoryDataset
    val: InMemoryDataset | None = None
    test: InMemoryDataset | None = None
    init_weights: Mapping[str, Tensor] = field(default_factory=dict)
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def build_model(self) -> SSD:
        """Return the network as the run begins: what `start` has not is drawn by the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            model = SSD(self.model)
        if any(name.startswith("features.") for name in self.init_weights):
            load_trunk(model, self.init_weights)
        elif self.init_weights:
            model.load_state_dict({**model.state_dict(), **self.init_weights})
        return model

    @property
    def digest(self) -> str:
        """What decides the course of the run, as a sha256: settings and photos' names, not their pixels."""
        decided = [self.model.to_json(), self.config.to_json(), list(self.train.names), _to_plain(self.metadata)]
        return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


def save_task(folder: Path, task: TrainingTask) -> None:
    """Write a task into a folder at one stroke: settings as JSON, photos and boxes as arrays, no pickle."""
    if folder.exists() and not (folder / TASK_FILE).is_file():
        raise FileExistsError(f"{folder} exists and is not a prepared task; give another folder.")
    splits = {name: examples for name in SPLITS if (examples := getattr(task, name)) is not None}
    about = {
        "format": FORMAT,
        "model": task.model.to_json(),
        "config": task.config.to_json(),
        "decode": asdict(task.decode),
        "metadata": _to_plain(task.metadata),
        "splits": {name: _dataset_rows(examples) for name, examples in splits.items()},
    }
    files = {TASK_FILE: json.dumps(about, indent=1).encode(), INIT_FILE: save(dict(task.init_weights))}
    write_folder(folder, files | {f"{name}.safetensors": save(_dataset_tensors(e)) for name, e in splits.items()})


def load_task(folder: Path) -> TrainingTask:
    """Return the task that was written into a folder."""
    try:
        data = json.loads((folder / TASK_FILE).read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"it has format {data['format']!r}, this release reads {FORMAT}")
        splits = {
            name: _build_dataset(rows, load_file(folder / f"{name}.safetensors"))
            for name, rows in data["splits"].items()
        }
        return TrainingTask(
            model=ModelConfig.from_json(data["model"]),
            config=TrainConfig.from_json(data["config"]),
            init_weights=load_file(folder / INIT_FILE),
            decode=DecodeConfig(**data["decode"]),
            metadata=data["metadata"],
            **splits,
        )
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"{folder} is no prepared task: {error}. Write it again with `facade train --export-task`."
        ) from error


def _dataset_rows(examples: InMemoryDataset) -> dict[str, Any]:
    rows = {"names": examples.names, "weights": examples.weights, "sets": examples.sets}
    return {key: None if row is None else list(row) for key, row in rows.items()}


def _dataset_tensors(examples: InMemoryDataset) -> dict[str, Tensor]:
    """Return photos and targets as tensors by name."""
    tensors: dict[str, Tensor] = {}
    for place, (photo, target) in enumerate(zip(examples.photos, examples.targets, strict=True)):
        parts = {"photo": photo, "boxes": target.boxes, "labels": target.labels}
        parts |= {"ignore": target.ignore} if target.ignore is not None else {}
        parts |= {"labelled": target.labelled} if target.labelled is not None else {}
        # A clone, for tensors that share memory are refused.
        tensors |= {f"{place}.{name}": part.cpu().clone() for name, part in parts.items()}
    return tensors


def _build_dataset(rows: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> InMemoryDataset:
    count = range(len(rows["names"]))
    targets = [
        Target(*(tensors.get(f"{place}.{name}") for name in ("boxes", "labels", "ignore", "labelled")))  # type: ignore[arg-type]
        for place in count
    ]
    return InMemoryDataset(
        rows["names"], [tensors[f"{place}.photo"] for place in count], targets, rows["weights"], rows["sets"]
    )


def _to_plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dict(values)))
    return plain
