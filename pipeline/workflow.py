"""`facade run`: the stages in order, from one file, under one MLflow run; each skips what is done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from pipeline.config import RUN_KEYS, Settings, beside, one_sentence, parse_toml, read_text, resolve, settings_of
from pipeline.datasets.card import card_named
from pipeline.errors import UsageError
from pipeline.execution.runner import Context, Outcome, nested_line
from pipeline.stages import STAGES
from pipeline.tracking.run_logger import open_run

__all__ = ["Dataset", "load_run", "run"]


class Dataset(Settings):
    """One dataset of a run: its card, and its folder."""

    card: str
    root: str


class RunConfig(Settings):
    """What `facade run` needs beside the stages' own tables; paths are relative to the file."""

    work: str
    datasets: Annotated[list[Dataset], Field(min_length=1)]


def load_run(path: Path) -> tuple[Path, list[Dataset]]:
    """Return the work folder and the datasets that a run's file names."""
    table = parse_toml(read_text(path), str(path))
    try:
        settings = RunConfig.model_validate({key: table[key] for key in RUN_KEYS if key in table})
    except ValidationError as error:
        raise UsageError(one_sentence(error, str(path), RunConfig)) from None
    here = path.parent
    datasets = [Dataset(card=beside(here, entry.card), root=beside(here, entry.root)) for entry in settings.datasets]
    return here / settings.work, datasets


def run(
    context: Context, tables: Mapping[str, Any], datasets: Sequence[Dataset], first: str, last: str
) -> dict[str, Any]:
    """Return the line of the run: every stage's outcome from `first` to `last`, and the work folder."""
    for name in (first, last):
        if name not in STAGES:
            raise UsageError(f"unknown stage {name!r}; known are {', '.join(STAGES)}.")
    started, chosen = time.monotonic(), STAGES[STAGES.index(first) : STAGES.index(last) + 1]
    with ExitStack() as stack:
        several = first != last  # a scheduler that asks for one stage at a time wants no parent above each
        inner = replace(context, parent=_Parent(stack, context.tracking)) if several else context
        stages: dict[str, Outcome] = {}
        for name in chosen:
            module = import_module(f"pipeline.stages.{name}.stage")
            settings = resolve(settings_of(name), tables, name)
            if name == "index":
                for entry in datasets:
                    card, text = card_named(entry.card)
                    stages[f"index {card.name}"] = module.run(inner, settings, card, text, entry.root)
            else:
                stages[name] = module.run(inner, settings)
    return nested_line("run", stages, time.monotonic() - started) | {"work": str(context.work)}


@dataclass
class _Parent:
    """Opens the run above the stages' when the first stage with work to do asks for it."""

    stack: ExitStack
    tracking: str | None
    opened: list[str | None] = field(default_factory=list)

    def __call__(self) -> str | None:
        if not self.opened:
            self.opened.append(self.stack.enter_context(open_run("run", self.tracking)).run_id)
        return self.opened[0]
