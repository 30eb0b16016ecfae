"""What a work folder reports of itself: stages that are out of date, and commands that are still to run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.execution.runner import Context
from pipeline.stages.report.blocks import MissingStage, NextCommands
from pipeline.stages.report.work_folder import WorkFolder
from pipeline.storage.manifest import Manifest, Shard
from pipeline.storage.schemas import table_from_rows


def write_stage(context: Context, stage: str, settings: Mapping[str, Any], **rows: list[dict]) -> None:
    """Commit tables as if the stage had run."""
    folder = context.folder(stage)
    tables = {name: table_from_rows(name, table_rows) for name, table_rows in rows.items()}
    receipt = folder.write_shard(Shard("all", 0, "0" * 64), tables, 0)
    folder.commit(Manifest(stage, (receipt,), dict(settings)))


def test_stages_older_than_their_inputs_are_stale(workplace: Callable) -> None:
    context = workplace().context
    write_stage(context, "index", {}, warnings=[])
    write_stage(context, "extract", {"index": "another"})
    (stale,) = WorkFolder(context.work).stale_stages()
    assert (stale.stage, stale.source, stale.command) == ("extract", "index", f"facade extract --work {context.work}")
    write_stage(context, "extract", {"index": context.folder("index").manifest().digest})
    assert WorkFolder(context.work).stale_stages() == []


def test_missing_stages_come_with_their_commands(workplace: Callable) -> None:
    context = workplace("a b").context
    write_stage(context, "index", {}, warnings=[])
    work = WorkFolder(context.work)
    quoted = f"'{context.work}'"
    assert work.missing_stage_note("index") is None
    assert work.missing_stage_note("index", "extract") == MissingStage(f"facade extract --work {quoted}")
    assert work.missing_stage_note("extract", "priors", "detect") == MissingStage(
        f"facade detect {quoted}", ("extract", "priors")
    )
    commands = work.next_commands()
    assert commands is not None
    assert len(commands.commands) == 6
    assert commands.commands[0] == f"facade extract --work {quoted}"
    empty = WorkFolder(Path("/nowhere")).next_commands()
    assert isinstance(empty, NextCommands)
    assert empty.commands[0] == "facade index --card CARD --root FOLDER --work /nowhere"
