"""`facade run`: the stages in order, from one file, under one MLflow run; each skips what is done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from pipeline.config import (
    RUN_KEYS,
    Settings,
    format_validation_error,
    parse_toml,
    read_text,
    renamed_hint,
    resolve_relative,
    resolve_settings,
)
from pipeline.datasets.card import resolve_card
from pipeline.errors import UsageError
from pipeline.execution.runner import Context, Outcome, combined_outcome_json
from pipeline.stages import STAGES, load_stage, settings_class
from pipeline.tracking.run_logger import open_run

__all__ = ["RunDataset", "load_run", "run", "run_stages"]


class RunDataset(Settings):
    """One dataset of a run: its card, and its folder."""

    card: str
    root: str


class RunConfig(Settings):
    """The settings of `facade run` outside of the stages' tables; paths are relative to the file."""

    work: str
    datasets: Annotated[list[RunDataset], Field(min_length=1)]


def load_run(path: Path) -> tuple[Path, list[RunDataset]]:
    """Return the work folder and the datasets that a run's file names."""
    table = parse_toml(read_text(path), str(path))
    try:
        settings = RunConfig.model_validate({key: table[key] for key in RUN_KEYS if key in table})
    except ValidationError as error:
        raise UsageError(format_validation_error(error, str(path), RunConfig)) from None
    here = path.parent
    datasets = [
        RunDataset(card=resolve_relative(here, entry.card), root=resolve_relative(here, entry.root))
        for entry in settings.datasets
    ]
    return here / settings.work, datasets


def run(
    context: Context, tables: Mapping[str, Any], datasets: Sequence[RunDataset], first: str, last: str
) -> dict[str, Any]:
    """Run the stages from `first` to `last` under one MLflow run; return the command's line of JSON."""
    for name in (first, last):
        if name not in STAGES:
            raise UsageError(f"unknown stage {name!r}; {renamed_hint(name, STAGES)}known are {', '.join(STAGES)}.")
    started = time.monotonic()
    stages = STAGES[STAGES.index(first) : STAGES.index(last) + 1]
    with ExitStack() as stack:
        if len(stages) > 1:  # a scheduler that asks for one stage at a time wants no parent above each
            context = replace(context, parent_run=_ParentRun(stack, context.tracking))
        outcomes = run_stages(context, tables, datasets, stages)
    return combined_outcome_json("run", outcomes, time.monotonic() - started) | {"work": str(context.work)}


def run_stages(
    context: Context, tables: Mapping[str, Any], datasets: Sequence[RunDataset], stages: Sequence[str]
) -> dict[str, Outcome]:
    """Run stages in order, `index` once a dataset; each skips what is done."""
    outcomes: dict[str, Outcome] = {}
    for name in stages:
        stage = load_stage(name)
        settings = resolve_settings(settings_class(name), tables, name)
        if name == "index":
            for dataset in datasets:
                card, text = resolve_card(dataset.card)
                outcomes[f"index {card.name}"] = stage.run(context, settings, card, text, dataset.root)
        else:
            outcomes[name] = stage.run(context, settings)
    return outcomes


@dataclass
class _ParentRun:
    """Opens the run above the stages' when the first stage with work to do asks for it."""

    stack: ExitStack
    tracking: str | None
    run_ids: list[str | None] = field(default_factory=list)

    def __call__(self) -> str | None:
        if not self.run_ids:
            self.run_ids.append(self.stack.enter_context(open_run("run", self.tracking)).run_id)
        return self.run_ids[0]
