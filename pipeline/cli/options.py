"""The options that commands share, and the context that they make."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from pipeline.cli.output import echo

if TYPE_CHECKING:
    from pipeline.execution.runner import Context

__all__ = ["CommonOptions", "DebugOption", "TrackingOption", "WorkOption", "WorkersOption", "with_common_options"]

WorkOption = Annotated[Path, typer.Option("--work", help="The work folder: all tables of all stages live in it.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings: a TOML file with one table a stage.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="One setting; may be repeated.")
]
SchedulerOption = Annotated[
    str | None, typer.Option(help="A Dask scheduler's address; default: workers on this machine.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=0, help="Worker processes; default: one a core. 0: this process, to debug."),
]
TrackingOption = Annotated[
    str | None, typer.Option(help="MLflow's address, or 'off'; default: MLFLOW_TRACKING_URI, else mlflow.db here.")
]
MaxRejectedOption = Annotated[float, typer.Option(min=0, max=1, help="Fail above this share of rejected images.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(frozen=True)
class CommonOptions:
    """The options of all commands that run stages; `with_common_options` adds them to a command."""

    config: ConfigOption = None
    sets: SettingsOption = None
    scheduler: SchedulerOption = None
    workers: WorkersOption = None
    tracking: TrackingOption = None
    max_rejected: MaxRejectedOption = 0.05
    debug: DebugOption = False

    def tables(self, file: Path | None = None) -> dict[str, dict[str, Any]]:
        """Read the settings of all stages from `--config`, or from `file`, and `--set`."""
        from pipeline.config import load_tables
        from pipeline.stages import SETTINGS

        return load_tables(file or self.config, self.sets or (), SETTINGS)

    @contextmanager
    def open_context(self, work: Path, tables: dict[str, Any]) -> Iterator[Context]:
        """Make the context of a command; its worker processes stop when this ends."""
        from pipeline.config import resolve_settings
        from pipeline.execution.parallel import WorkerConfig, WorkerPool
        from pipeline.execution.runner import Context
        from pipeline.storage.stage_folder import StoreConfig

        with WorkerPool() as pool:
            yield Context(
                work=work.absolute(),
                workers=WorkerConfig(self.scheduler, self.workers),
                pool=pool,
                tracking=self.tracking,
                max_rejected=self.max_rejected,
                disk_retry_seconds=resolve_settings(StoreConfig, tables, "store").disk_retry_seconds,
                log=echo,
            )


def with_common_options(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put the common options, but for some, on the command line of a command whose first parameter takes them.

    Args:
        without: fields of `CommonOptions` that the command does not have; they keep their defaults.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        names = [field.name for field in fields(CommonOptions) if field.name not in without]
        hints = get_type_hints(CommonOptions, include_extras=True)
        common = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=getattr(CommonOptions, name), annotation=hints[name]
            )
            for name in names
        ]
        _, *own = inspect.signature(command, eval_str=True).parameters.values()

        @wraps(command)
        def run(**values: Any) -> None:
            options = CommonOptions(**{name: values.pop(name) for name in names})
            command(options, **values)

        parameters = [*(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own), *common]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate
