"""`train --sweep`: a small grid of training runs under one MLflow run, and what differs between them."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from pipeline.assets import assets_folder
from pipeline.config import Settings, format_validation_error, parse_toml, read_text
from pipeline.errors import UsageError
from pipeline.execution.runner import Context, Outcome, combined_outcome_json
from pipeline.stages.train import stage as train
from pipeline.stages.train.config import TrainConfig
from pipeline.stages.train.data import PhotoCache
from pipeline.storage.files import json_digest, write_bytes
from pipeline.tracking.run_logger import open_run
from ssd import read_history

__all__ = ["Sweep", "load_sweep", "run_sweep"]

SEED = "seed"


class Sweep(Settings):
    """A grid: lists of settings of [train] whose combinations are the runs, and settings that hold for all of them."""

    grid: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    train: dict[str, Any] = {}

    def combinations(self) -> list[dict[str, Any]]:
        """Return the settings of each run, the last list of the grid turning fastest."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


@dataclass(frozen=True)
class SweepResult:
    """A run of a sweep: its settings, its outcome, and its scores, on test where there are such photos."""

    settings: Mapping[str, Any]
    outcome: Outcome
    scores: Mapping[str, float]

    @property
    def name(self) -> str:
        """The run among the others: all that it was given but the seed."""
        return (
            ", ".join(f"{key} {_format_value(value)}" for key, value in self.settings.items() if key != SEED)
            or "all alike"
        )


def load_sweep(name: str) -> Sweep:
    """Load a packaged sweep, or that of a file."""
    known = {path.stem: path for path in sorted((assets_folder() / "sweeps").glob("*.toml"))}
    path = known.get(name, Path(name))
    if name not in known and not path.is_file():
        raise UsageError(f"no sweep {name!r}: give a TOML file, or one of {', '.join(known)}.")
    try:
        return Sweep.model_validate(parse_toml(read_text(path), str(path)))
    except ValidationError as error:
        raise UsageError(format_validation_error(error, f"sweep {path}", Sweep)) from None


def run_sweep(context: Context, config: TrainConfig, name: str) -> dict[str, Any]:
    """Return the line of a sweep: every run's outcome; a run that is done is skipped."""
    started, sweep = time.monotonic(), load_sweep(name)
    configs = [(given, _apply_changes(config, {**sweep.train, **given})) for given in sweep.combinations()]
    photos = {one.max_side: PhotoCache(one.max_side) for _, one in configs}
    results: list[SweepResult] = []
    with open_run("sweep", context.tracking, context.parent_run()) as tracked:
        tracked.log_settings({"sweep": {"name": Path(name).stem, "grid": sweep.grid, "runs": len(configs)}})
        inner = replace(context, parent_run=lambda: tracked.run_id)
        for number, (given, one) in enumerate(configs, start=1):
            shown = ", ".join(f"{key} {_format_value(value)}" for key, value in given.items())
            context.log(f"sweep: run {number} of {len(configs)}: {shown}")
            outcome = train.run(inner, one, photo_cache=photos[one.max_side])
            results.append(SweepResult(given, outcome, _scores(outcome)))
        table = _table_lines(results)
        for line in table:
            context.log(line)
        path = context.folder(train.NAME).path / f"sweep-{Path(name).stem}-{_digest(results)}.json"
        write_bytes(
            path, json.dumps([_row(result) for result in results], indent=1).encode(), context.disk_retry_seconds
        )
        tracked.log_files([path])
    stages = {f"train {number}": result.outcome for number, result in enumerate(results, start=1)}
    return {**combined_outcome_json("sweep", stages, time.monotonic() - started), "outputs": {"table": str(path)}}


def _apply_changes(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of one run; those of the command line hold where the grid says nothing."""
    given = config.model_dump(exclude_unset=True)
    try:
        changed: TrainConfig = TrainConfig.model_validate({**given, **changes})
    except ValidationError as error:
        raise UsageError(format_validation_error(error, "sweep", TrainConfig)) from None
    return changed


def _scores(outcome: Outcome) -> dict[str, float]:
    finished = read_history(Path(outcome.outputs["bundle"]).parent)
    assert finished is not None, "a run that has an outcome has a history"
    scores = finished.test or finished.val
    return {key: value for key, value in scores.items() if key.startswith(("map", "ap"))}


def _table_lines(results: Sequence[SweepResult]) -> list[str]:
    """Return a line for each setting, the mean over its seeds and half of their range, of a hundred."""
    names = list(dict.fromkeys(result.name for result in results))
    keys = list(dict.fromkeys(key for result in results for key in result.scores))
    width = max(map(len, [*names, "settings"]))
    lines = ["sweep: mean over seeds (and half of their range)", _format_cells("settings", keys, width)]
    for name in names:
        own = [result.scores for result in results if result.name == name]
        cells = [_format_cell([scores[key] for scores in own if key in scores]) for key in keys]
        lines.append(_format_cells(name, cells, width))
    return lines


def _format_cells(name: str, cells: Sequence[str], width: int) -> str:
    return f"  {name:{width}s}" + "".join(f"  {cell:>15s}" for cell in cells)


def _format_cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ({50 * (max(values) - min(values)):.1f})" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


def _row(result: SweepResult) -> dict[str, Any]:
    return {"given": dict(result.settings), "scores": dict(result.scores), "bundle": result.outcome.outputs["bundle"]}


def _digest(results: Sequence[SweepResult]) -> str:
    return json_digest([result.outcome.digest for result in results])[:8]


def _format_value(value: Any) -> str:
    return Path(value).stem if isinstance(value, str) and value.endswith(".json") else str(value)
