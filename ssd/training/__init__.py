"""Training, from photos in memory to a bundle: what a run is made of, its loop, its judge, and how it survives.

`python -m ssd.training DIR OUT` runs a task that was written into a folder, where only this library is installed.
"""

from __future__ import annotations

from ssd.training.config import TRAININGS, TrainConfig
from ssd.training.dataset import Examples
from ssd.training.loop import Course, Finished, Watch, read_history
from ssd.training.task import Task, load_task, save_task
from ssd.training.trainer import DivergedError, Progress, Trainer
from ssd.training.validation import Judge, Scores

__all__ = [
    "TRAININGS",
    "Course",
    "DivergedError",
    "Examples",
    "Finished",
    "Judge",
    "Progress",
    "Scores",
    "Task",
    "TrainConfig",
    "Trainer",
    "Watch",
    "load_task",
    "read_history",
    "save_task",
]
