"""The stages, one folder each, in the order in which they run.

`pipeline/stages/NAME/stage.py` holds the stage's settings class (`NameConfig`), its `STAGE`, and `run`; the docstring
of `NAME/__init__.py` is the help of its command. A stage imports support layers and earlier stages only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["SETTINGS", "STAGES", "load_stage", "settings_class"]

STAGES: Final = ("index", "extract", "describe", "priors", "train", "detect", "evaluate", "report")


def load_stage(name: str) -> Any:
    """Import the module of a stage."""
    return import_module(f"pipeline.stages.{name}.stage")


def settings_class(name: str) -> type[BaseModel]:
    """Import the settings class of a table: `store`, or a stage."""
    if name == "store":
        from pipeline.storage.stage_folder import StoreConfig

        return StoreConfig
    found: type[BaseModel] = getattr(load_stage(name), f"{name.capitalize()}Config")
    return found


# The tables that a settings file may hold, with the settings class of each, imported when it is asked for.
SETTINGS: Final[Mapping[str, Callable[[], type[BaseModel]]]] = {
    name: partial(settings_class, name) for name in ("store", *STAGES)
}
