"""Training, from photos in memory to a bundle: what a run is made of, its loop, its judge, and how it survives.

`python -m ssd.training DIR OUT` runs a task that was written into a folder, where only this library is installed.
"""

from __future__ import annotations

from ssd.training.config import TRAIN_PRESETS, TrainConfig
from ssd.training.dataset import InMemoryDataset
from ssd.training.loop import TrainingCallbacks, TrainingResult, TrainingRun, read_history
from ssd.training.task import TrainingTask, load_task, save_task
from ssd.training.trainer import DivergedError, Progress, Trainer
from ssd.training.validation import Scores, Validator

__all__ = [
    "TRAIN_PRESETS",
    "DivergedError",
    "InMemoryDataset",
    "Progress",
    "Scores",
    "TrainConfig",
    "Trainer",
    "TrainingCallbacks",
    "TrainingResult",
    "TrainingRun",
    "TrainingTask",
    "Validator",
    "load_task",
    "read_history",
    "save_task",
]
