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

from pipeline.assets import shipped_folder
from pipeline.config import Settings, one_sentence, parse_toml, read_text, settings_of
from pipeline.errors import UsageError
from pipeline.execution.runner import Context, Outcome, nested_line
from pipeline.stages.train import stage as train
from pipeline.stages.train.config import TrainConfig
from pipeline.stages.train.data import Photos
from pipeline.storage.files import json_digest, write_bytes
from pipeline.tracking.run_logger import open_run
from ssd import read_history

__all__ = ["Sweep", "run_sweep", "sweep_named"]

SEED = "seed"


class Sweep(Settings):
    """A grid: lists of settings of [train] whose combinations are the runs, and settings that hold for all of them."""

    grid: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    train: dict[str, Any] = {}

    def combinations(self) -> list[dict[str, Any]]:
        """Return the settings of each run, the last list of the grid turning fastest."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


@dataclass(frozen=True)
class Result:
    """A run of a sweep: what it was given, what became of it, and its scores, of test where there are such photos."""

    given: Mapping[str, Any]
    outcome: Outcome
    scores: Mapping[str, float]

    @property
    def name(self) -> str:
        """The run among the others: all that it was given but the seed."""
        return ", ".join(f"{key} {_short(value)}" for key, value in self.given.items() if key != SEED) or "all alike"


def sweep_named(name: str) -> Sweep:
    """Return a sweep that comes along, or that of a file."""
    known = {path.stem: path for path in sorted((shipped_folder() / "sweeps").glob("*.toml"))}
    path = known.get(name, Path(name))
    if name not in known and not path.is_file():
        raise UsageError(f"no sweep {name!r}: give a TOML file, or one of {', '.join(known)}.")
    try:
        return Sweep.model_validate(parse_toml(read_text(path), str(path)))
    except ValidationError as error:
        raise UsageError(one_sentence(error, f"sweep {path}", Sweep)) from None


def run_sweep(context: Context, config: TrainConfig, name: str) -> dict[str, Any]:
    """Return the line of a sweep: every run's outcome; a run that is done is skipped."""
    started, sweep = time.monotonic(), sweep_named(name)
    configs = [(given, _with(config, {**sweep.train, **given})) for given in sweep.combinations()]
    photos = {one.side: Photos(one.side) for _, one in configs}
    results: list[Result] = []
    with open_run("sweep", context.tracking, context.parent()) as tracked:
        tracked.log_settings({"sweep": {"name": Path(name).stem, "grid": sweep.grid, "runs": len(configs)}})
        inner = replace(context, parent=lambda: tracked.run_id)
        for number, (given, one) in enumerate(configs, start=1):
            shown = ", ".join(f"{key} {_short(value)}" for key, value in given.items())
            context.say(f"sweep: run {number} of {len(configs)}: {shown}")
            outcome = train.run(inner, one, photos=photos[one.side])
            results.append(Result(given, outcome, _scores(outcome)))
        table = _table(results)
        for line in table:
            context.say(line)
        path = context.folder(train.NAME).path / f"sweep-{Path(name).stem}-{_digest(results)}.json"
        write_bytes(path, json.dumps([_row(result) for result in results], indent=1).encode(), context.patience)
        tracked.log_files([path])
    stages = {f"train {number}": result.outcome for number, result in enumerate(results, start=1)}
    return {**nested_line("sweep", stages, time.monotonic() - started), "outputs": {"table": str(path)}}


def _with(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of one run; those of the command line hold where the grid says nothing."""
    given = config.model_dump(exclude_unset=True)
    try:
        return TrainConfig.model_validate({**given, **changes})
    except ValidationError as error:
        raise UsageError(one_sentence(error, "sweep", settings_of(train.NAME))) from None


def _scores(outcome: Outcome) -> dict[str, float]:
    finished = read_history(Path(outcome.outputs["bundle"]).parent)
    assert finished is not None, "a run that has an outcome has a history"
    scores = finished.test or finished.val
    return {key: value for key, value in scores.items() if key.startswith(("map", "ap"))}


def _table(results: Sequence[Result]) -> list[str]:
    """Return a line for each setting, the mean over its seeds and half of their range, of a hundred."""
    names = list(dict.fromkeys(result.name for result in results))
    keys = list(dict.fromkeys(key for result in results for key in result.scores))
    width = max(map(len, [*names, "settings"]))
    lines = ["sweep: mean over seeds (and half of their range)", _cells("settings", keys, width)]
    for name in names:
        own = [result.scores for result in results if result.name == name]
        cells = [_cell([scores[key] for scores in own if key in scores]) for key in keys]
        lines.append(_cells(name, cells, width))
    return lines


def _cells(name: str, cells: Sequence[str], width: int) -> str:
    return f"  {name:{width}s}" + "".join(f"  {cell:>15s}" for cell in cells)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ({50 * (max(values) - min(values)):.1f})" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


def _row(result: Result) -> dict[str, Any]:
    return {"given": dict(result.given), "scores": dict(result.scores), "bundle": result.outcome.outputs["bundle"]}


def _digest(results: Sequence[Result]) -> str:
    return json_digest([result.outcome.digest for result in results])[:8]


def _short(value: Any) -> str:
    return Path(value).stem if isinstance(value, str) and value.endswith(".json") else str(value)
