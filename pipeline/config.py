"""Settings: a TOML file with one table a stage, then `--set stage.key=value`, checked once, frozen after."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import UsageError

__all__ = [
    "RELATIVE_PATH",
    "Settings",
    "format_validation_error",
    "load_tables",
    "parse_toml",
    "renamed_hint",
    "resolve_relative",
    "resolve_settings",
]

RUN_KEYS = ("work", "datasets")
# Marks a setting that may name a file: in a settings file, its path is relative to that file.
RELATIVE_PATH = "relative path"
# Keys and tables of version 0.1, and what they are called now.
RENAMED = {
    "balance": ("class_balance",),
    "calibrate": ("priors",),
    "decay": ("lr_schedule",),
    "drawings": ("previews",),
    "everything": ("use_all_splits",),
    "keep": ("max_detections",),
    "labelled": ("labelled_classes",),
    "missing": ("on_missing",),
    "negatives": ("neg_pos_ratio",),
    "overlap": ("nms_iou",),
    "overlaps": ("min_crop_ious",),
    "patience": ("disk_retry_seconds", "early_stopping_epochs"),
    "readers": ("reader_threads",),
    "resamples": ("bootstrap_samples",),
    "scaled": ("downscale_on_read",),
    "score": ("min_score",),
    "select": ("threshold",),
    "side": ("max_side",),
    "smallest": ("min_side",),
    "start": ("init_weights",),
    "unions": ("merge_into",),
}


class Settings(BaseModel):
    """The parent of every settings class: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SettingsT = TypeVar("SettingsT", bound=BaseModel)


def load_tables(
    path: Path | None, assignments: Iterable[str], classes: Mapping[str, Callable[[], type[BaseModel]]]
) -> dict[str, dict[str, Any]]:
    """Read the settings of all stages: the file's, overridden by `stage.key=value` strings.

    A file may also be that of `facade run`, whose `work` and `datasets` are no stage's.

    Args:
        path: a TOML file.
        assignments: values of `--set`.
        classes: the tables that there may be, with what returns the settings class of each.

    Returns:
        The settings by table and key, checked.
    """
    tables = parse_toml(read_text(path), str(path)) if path else {}
    for key in RUN_KEYS:
        tables.pop(key, None)
    for name, table in tables.items():
        _check_table(name, f"{path}", classes)
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name!r} is a single value, expected a table; write [{name}] above its keys.")
    if path:
        for name, table in tables.items():
            _resolve_paths(table, path.parent, classes[name]())
    for text in assignments:
        stage, key, value = _parse_assignment(text)
        _check_table(stage, "--set", classes)
        tables.setdefault(stage, {})[key] = value
    for name in tables:
        resolve_settings(classes[name](), tables, name)  # a typo in another stage's table is a typo all the same
    return tables


def _resolve_paths(table: dict[str, Any], folder: Path, settings: type[BaseModel]) -> None:
    """Make the files that a settings file names relative to its folder."""
    for key, field in settings.model_fields.items():
        if RELATIVE_PATH in field.metadata and isinstance(table.get(key), str):
            table[key] = resolve_relative(folder, table[key])


def resolve_relative(folder: Path, name: str) -> str:
    """Return a path relative to a settings file, if there is something; else the name as it is: a card, an address."""
    return str(folder / name) if (folder / name).exists() else name


def resolve_settings(settings: type[SettingsT], tables: Mapping[str, Any], name: str) -> SettingsT:
    """Return the settings object of table `name`, with one sentence instead of pydantic's page on an error."""
    try:
        return settings.model_validate(tables.get(name, {}))
    except ValidationError as error:
        raise UsageError(format_validation_error(error, f"settings [{name}]", settings)) from None


def format_validation_error(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """Format a validation error as one sentence: where, what is wrong, and which keys are known."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"]) or "the whole"
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        known = sorted(model.model_fields)
        return f"{where}: unknown key {key!r}; {renamed_hint(key, known)}known are {', '.join(known)}."
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
        raise UsageError(f"{where} is not valid TOML: {error}; fix that line.") from None


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
    return stage, key, _parse_value(value.strip())


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # a bare word is a string: quoting it twice in a shell helps no one


def _check_table(name: str, where: str, known: Iterable[str]) -> None:
    if name not in known:
        raise UsageError(f"{where}: unknown stage {name!r}; {renamed_hint(name, known)}known are {', '.join(known)}.")


def renamed_hint(key: str, known: Iterable[str]) -> str:
    """Name the successor of a key of version 0.1, as a part of a sentence; empty if it has none."""
    names = [name for name in RENAMED.get(key, ()) if name in known]
    return f"it is called {names[0]!r} since version 0.2; " if names else ""
