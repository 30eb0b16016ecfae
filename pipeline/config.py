"""Settings: a TOML file with one table a stage, then `--set stage.key=value`, checked once, frozen after."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import UsageError

__all__ = ["Settings", "beside", "load_tables", "one_sentence", "parse_toml", "resolve", "settings_of"]

RUN_KEYS = ("work", "datasets")
# Tables a settings file may hold, and the settings class of each.
TABLES = {
    "store": "pipeline.storage.stage_folder:StoreConfig",
    "index": "pipeline.stages.index.stage:IndexConfig",
    "extract": "pipeline.stages.extract.stage:ExtractConfig",
    "describe": "pipeline.stages.describe.stage:DescribeConfig",
    "priors": "pipeline.stages.priors.stage:PriorsConfig",
    "train": "pipeline.stages.train.config:TrainConfig",
    "detect": "pipeline.stages.detect.config:DetectConfig",
    "evaluate": "pipeline.stages.evaluate.stage:EvaluateConfig",
    "report": "pipeline.stages.report.stage:ReportConfig",
}
# Settings that may name a file.
FILES = {"train": ("start", "priors"), "evaluate": ("detections",)}


class Settings(BaseModel):
    """The parent of every settings class: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SettingsT = TypeVar("SettingsT", bound=BaseModel)


def load_tables(path: Path | None, assignments: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the settings of all stages by table name: the file's, overridden by `stage.key=value` strings.

    A file may also be that of `facade run`, whose `work` and `datasets` are no stage's.
    """
    tables = _tables_of(path) if path else {}
    for key in RUN_KEYS:
        tables.pop(key, None)
    for name, table in tables.items():
        _check_table(name, f"{path}")
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name!r} is a single value, expected a table; write [{name}] above its keys.")
    for text in assignments:
        stage, key, value = _parse_assignment(text)
        tables.setdefault(stage, {})[key] = value
    for name in tables:
        resolve(settings_of(name), tables, name)  # a typo in another stage's table is a typo all the same
    return tables


def _tables_of(path: Path) -> dict[str, Any]:
    """Return the tables of a file; files that they name are looked for beside it."""
    tables = parse_toml(read_text(path), str(path))
    for stage, keys in FILES.items():
        table: Any = tables.get(stage)
        for key in keys if isinstance(table, dict) else ():
            if isinstance(table.get(key), str):
                table[key] = beside(path.parent, table[key])
    return tables


def beside(folder: Path, name: str) -> str:
    """Return a path relative to a settings file, if there is something; else the name as it is: a card, an address."""
    return str(folder / name) if (folder / name).exists() else name


def resolve(settings: type[SettingsT], tables: Mapping[str, Any], name: str) -> SettingsT:
    """Return the settings object of table `name`, with one sentence instead of pydantic's page on an error."""
    try:
        return settings.model_validate(tables.get(name, {}))
    except ValidationError as error:
        raise UsageError(one_sentence(error, f"settings [{name}]", settings)) from None


def one_sentence(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """Return what is wrong, where, and which keys there are, as one sentence."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"]) or "the whole"
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        return f"{where}: unknown key {key!r}; known are {', '.join(sorted(model.model_fields))}."
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key {key!r}; a top-level key must stand above the first [table]."
    if problem["type"] == "missing" and not isinstance(problem["loc"][-1], int):
        return f"{where}: the key {key!r} is missing; add it."
    if not problem["loc"]:
        return f"{where}: {problem['msg'].removeprefix('Value error, ')}."
    return f"{where}: {key}: {problem['msg'].removeprefix('Value error, ')}, got {str(problem['input'])[:80]!r}."


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return the parsed TOML, or say in one sentence where it breaks."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{where} is not valid TOML: {error}; mend that line.") from None


def read_text(path: Path) -> str:
    """Return a small text file that the user named."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"cannot read {path}: it is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; check the path.") from None


def _parse_assignment(text: str) -> tuple[str, str, Any]:
    target, equals, value = text.partition("=")
    stage, dot, key = target.strip().partition(".")
    if not (equals and dot and stage and key):
        raise UsageError(f"--set {text!r} is not of the form stage.key=value, for example extract.recipe=epfl.")
    _check_table(stage, "--set")
    return stage, key, _parse_value(value.strip())


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string: quoting it twice in a shell helps no one


def settings_of(name: str) -> type[BaseModel]:
    """Return the settings class of a table."""
    module, _, settings = TABLES[name].partition(":")
    found: type[BaseModel] = getattr(import_module(module), settings)
    return found


def _check_table(name: str, where: str) -> None:
    if name not in TABLES:
        raise UsageError(f"{where}: unknown stage {name!r}; known are {', '.join(TABLES)}.")
