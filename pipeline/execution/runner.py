"""What every stage does around its own work: plan, skip, map, check, commit, and say what changed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import BadInputError, FacadeError
from pipeline.execution.isolation import RowsFunction, work_alone
from pipeline.execution.parallel import Heard, Workers, map_shards
from pipeline.execution.progress import Progress
from pipeline.execution.sharding import rejected_row
from pipeline.storage.manifest import Manifest, Receipt, Shard
from pipeline.storage.schemas import VOLATILE, table_from_rows
from pipeline.storage.stage_folder import STAGED, StageFolder
from pipeline.tracking.run_logger import Run, open_run

__all__ = ["Context", "Outcome", "Plan", "Stage", "nested_line", "run_stage", "work_shards"]


GivenUp = Callable[[dict[str, Any], dict[str, Any]], Mapping[str, pa.Table]]


def _only_rejected(_: dict[str, Any], rejected: dict[str, Any]) -> dict[str, pa.Table]:
    return {"rejected": table_from_rows("rejected", [rejected])}


@dataclass(frozen=True)
class Stage:
    """What is true of a stage whatever its settings.

    Attributes:
        name: the stage's one word.
        algorithm: raised whenever the same inputs would give other rows.
        rows_out: how many input rows a shard's tables account for, besides the rejected ones.
        primary: the table whose rows are counted as added, removed and modified, if it has a key.
        long: people are told where they can watch the workers.
        given_up: the tables of an input row that no process survives, of it and of its `rejected` row.
    """

    name: str
    algorithm: int
    rows_out: Callable[[Mapping[str, pa.Table]], int]
    primary: str | None
    long: bool = False
    given_up: GivenUp = _only_rejected


@dataclass(frozen=True)
class Context:
    """What every command brings along, whatever its stage."""

    work: Path
    workers: Workers = field(default_factory=Workers)
    tracking: str | None = None
    parent: Callable[[], str | None] = lambda: None  # the MLflow run above this command's, opened when first asked for
    max_rejected: float = 0.05
    patience: float = 600.0
    say: Callable[[str], None] = lambda _: None
    progress: Callable[[str, int | None], Progress] = Progress

    def folder(self, stage: str) -> StageFolder:
        """Return the folder of a stage in this work folder."""
        return StageFolder(self.work, stage, self.patience)


@dataclass(frozen=True)
class Plan:
    """Everything that a stage decided before the first shard starts.

    Attributes:
        shards: all shards of the tables as they shall be, finished or not.
        function: rows in, tables out; runs in a worker.
        settings: logged to MLflow and kept in the manifest.
        kept: receipts of datasets that this command leaves alone.
        closing: a last shard, made from the receipts of the others.
        draw: pictures, made from all receipts; returns their paths.
        folder: where the tables go, if not into the work folder.
        again: keys of finished shards that are done once more.
    """

    shards: Sequence[Shard]
    function: RowsFunction
    settings: Mapping[str, Any]
    kept: Sequence[Receipt] = ()
    closing: tuple[Shard, Callable[[Sequence[Receipt]], Mapping[str, pa.Table]]] | None = None
    draw: Callable[[Sequence[Receipt]], Sequence[Path]] | None = None
    folder: StageFolder | None = None
    again: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Outcome:
    """What a command prints as its one line of JSON."""

    stage: str
    changed: bool
    rows_in: int
    rows_out: int
    rejected: int
    seconds: float
    per_second: float
    outputs: dict[str, Any]
    digest: str
    added: int
    removed: int
    modified: int
    run_id: str | None


def run_stage(stage: Stage, context: Context, plan: Plan) -> Outcome:
    """Return what became of a plan; the caller holds the lock of the stage's folder."""
    return _StageRun(stage, context, plan).run()


def work_shards(stage: Stage, context: Context, plan: Plan) -> Outcome:
    """Return what became of some of a stage's shards, which `run_stage` then finds finished."""
    return _StageRun(stage, context, plan).work()


@dataclass(frozen=True)
class _Task:
    """The stage's function with the folder it writes to: what travels to the workers."""

    folder: StageFolder
    function: RowsFunction
    stage: Stage

    def __call__(self, shard: Shard) -> Receipt:
        return self._write(shard, self.function(shard.rows))

    def alone(self, shard: Shard, memory: int) -> Receipt:
        return self._write(shard, work_alone(self.function, shard.rows, self._reject, memory))

    def _write(self, shard: Shard, tables: Mapping[str, pa.Table]) -> Receipt:
        return self.folder.write_shard(shard, tables, self.stage.rows_out(tables))

    def _reject(self, row: dict[str, Any], message: str) -> Mapping[str, pa.Table]:
        return self.stage.given_up(row, rejected_row(row, self.folder.stage, BadInputError(message)))


@dataclass(frozen=True)
class _StageRun:
    stage: Stage
    context: Context
    plan: Plan
    started: float = field(default_factory=time.monotonic)

    @cached_property
    def folder(self) -> StageFolder:
        return self.plan.folder or self.context.folder(self.stage.name)

    @cached_property
    def before(self) -> Manifest | None:
        return self.folder.manifest()

    def run(self) -> Outcome:
        finished = self._finished()
        if self._nothing_to_do(finished) and self.before is not None:
            self.folder.sweep(self.before)
            return self._outcome(self.before, 0, (0, 0, 0))
        with open_run(self.stage.name, self.context.tracking, self.context.parent()) as run:
            run.log_settings(self.plan.settings)
            receipts = self._work(finished)
            self._check_rejected(receipts)
            return self._complete(run, receipts, sum(r.rows_in for r in receipts if r.key not in finished))

    def work(self) -> Outcome:
        """Return what became of the shards alone: they are kept, and the command for all of them takes them in."""
        finished = self._finished()
        receipts = self._work(finished)
        self._check_rejected(receipts)
        done = sum(receipt.rows_in for receipt in receipts if receipt.key not in finished)
        manifest = Manifest(self.stage.name, tuple(receipts), dict(self.plan.settings))
        return replace(self._outcome(manifest, done, (0, 0, 0)), changed=done > 0)

    def _finished(self) -> dict[str, Receipt]:
        return {key: receipt for key, receipt in self.folder.finished().items() if key not in self.plan.again}

    def _planned_keys(self) -> set[str]:
        closing = {self.plan.closing[0].key} if self.plan.closing else set()
        return {shard.key for shard in self.plan.shards} | {receipt.key for receipt in self.plan.kept} | closing

    def _nothing_to_do(self, finished: Mapping[str, Receipt]) -> bool:
        in_force = {receipt.key: receipt for receipt in self.before.receipts} if self.before else None
        planned = self._planned_keys()
        return in_force == {key: finished[key] for key in planned if key in finished} and in_force.keys() == planned

    def _work(self, finished: Mapping[str, Receipt]) -> list[Receipt]:
        todo = [shard for shard in self.plan.shards if shard.key not in finished]
        skipped = len(self.plan.shards) - len(todo)
        if skipped:
            self.context.say(f"{self.stage.name}: {skipped} of {len(self.plan.shards)} shards were finished before")
        receipts = [finished[shard.key] for shard in self.plan.shards if shard.key in finished]
        progress = self.context.progress(self.stage.name, sum(len(shard.rows) for shard in todo))
        task = _Task(self.folder, self.plan.function, self.stage)
        heard = Heard(progress.get_through, self._tell_dashboard)
        for receipt in map_shards(task, todo, self.context.workers, heard) if todo else ():
            receipts.append(receipt)
            progress.advance(receipt.rows_in, receipt.rejected)
        return sorted(receipts, key=lambda receipt: (receipt.dataset, receipt.ordinal))

    def _tell_dashboard(self, address: str) -> None:
        if self.stage.long:
            self.context.say(f"{self.stage.name}: Dask's dashboard is at {address}")

    def _check_rejected(self, receipts: Sequence[Receipt]) -> None:
        """Stop above the allowed share; the receipts stay, so that the same command with a higher limit is instant."""
        rejected, rows_in = sum(r.rejected for r in receipts), sum(r.rows_in for r in receipts)
        if rejected > self.context.max_rejected * rows_in:
            share = f"{rejected / rows_in:.1%}, allowed are {self.context.max_rejected:.1%}"
            raise FacadeError(
                f"{self.stage.name}: {rejected} of {rows_in} images were rejected ({share}): "
                f"{self._reasons(receipts)}; mend them or raise --max-rejected "
                f"(each is a row in {self.folder.path / STAGED / 'rejected'})."
            )

    def _reasons(self, receipts: Sequence[Receipt], most: int = 3) -> str:
        """Return the commonest reasons, each with its count and an example."""
        entries = [receipt.tables["rejected"] for receipt in receipts if "rejected" in receipt.tables]
        rows = self.folder.read_files("rejected", entries).to_pylist()
        examples = {row["message"]: row["image_id"] for row in reversed(rows)}
        common = Counter(row["message"] for row in rows).most_common(most)
        return "; ".join(f"{count} x {message} (as {examples[message]})" for message, count in common)

    def _complete(self, run: Run, receipts: list[Receipt], done: int) -> Outcome:
        everything = [*self.plan.kept, *receipts]
        if self.plan.closing:
            shard, function = self.plan.closing
            everything.append(self.folder.write_shard(shard, function(receipts), 0))
        everything.sort(key=lambda receipt: (receipt.dataset, receipt.ordinal))
        pictures = self.plan.draw(everything) if self.plan.draw else ()
        manifest = Manifest(self.stage.name, tuple(everything), dict(self.plan.settings), run.run_id)
        changes = self._changes(manifest)
        self.folder.commit(manifest)
        outcome = self._outcome(manifest, done, changes)
        self._log(run, outcome, pictures)
        return outcome

    def _log(self, run: Run, outcome: Outcome, pictures: Sequence[Path]) -> None:
        counts = ("rows_in", "rows_out", "rejected", "seconds", "per_second", "added", "removed", "modified")
        figures = {name: float(getattr(outcome, name)) for name in counts}
        tags = {"digest": outcome.digest, "changed": str(outcome.changed).lower()}
        run.log(figures | {f"rows.{name}": float(rows) for name, rows in outcome.outputs.items()}, tags)
        run.log_files(pictures)

    def _changes(self, manifest: Manifest) -> tuple[int, int, int]:
        """Return how many primary rows were added, removed and modified, reading only shards that differ."""
        if (name := self.stage.primary) is None:
            return 0, 0, 0
        before = {entry.content: entry for entry in (self.before.files(name) if self.before else ())}
        after = {entry.content: entry for entry in manifest.files(name)}
        old = self._rows_by_key(name, [entry for content, entry in before.items() if content not in after])
        new = self._rows_by_key(name, [entry for content, entry in after.items() if content not in before])
        modified = sum(1 for key in old.keys() & new.keys() if old[key] != new[key])
        return len(new.keys() - old.keys()), len(old.keys() - new.keys()), modified

    def _rows_by_key(self, name: str, entries: list[Any]) -> dict[str, tuple[Any, ...]]:
        rows: dict[str, tuple[Any, ...]] = {}
        with suppress(FacadeError):  # a damaged old shard is being replaced: its rows count as gone
            table = self.folder.read_files(name, entries)
            kept = table.drop_columns([column for column in VOLATILE if column in table.column_names])
            rows = {values[0]: values for values in zip(*(column.to_pylist() for column in kept), strict=True)}
        return rows

    def _outcome(self, manifest: Manifest, done: int, changes: tuple[int, int, int]) -> Outcome:
        planned = self._planned_keys() - {receipt.key for receipt in self.plan.kept}
        ours = Manifest(self.stage.name, tuple(r for r in manifest.receipts if r.key in planned))
        seconds = time.monotonic() - self.started
        outputs = Counter[str]()
        for receipt in ours.receipts:
            outputs.update({name: entry.rows for name, entry in receipt.tables.items()})
        return Outcome(
            stage=self.stage.name,
            changed=self.before is None or self.before.digest != manifest.digest,
            rows_in=ours.total("rows_in"),
            rows_out=ours.total("rows_out"),
            rejected=ours.total("rejected"),
            seconds=round(seconds, 3),
            per_second=round(done / max(seconds, 1e-9), 1),
            outputs=dict(sorted(outputs.items())),
            digest=manifest.digest,
            added=changes[0],
            removed=changes[1],
            modified=changes[2],
            run_id=manifest.run_id,
        )


def nested_line(name: str, stages: Mapping[str, Outcome], seconds: float) -> dict[str, Any]:
    """Return the line of a command that runs several stages."""
    outcomes = list(stages.values())
    totals = {
        count: sum(getattr(outcome, count) for outcome in outcomes) for count in ("rows_in", "rows_out", "rejected")
    }
    changed = any(outcome.changed for outcome in outcomes)
    nested = {stage: asdict(outcome) for stage, outcome in stages.items()}
    return {"stage": name, "changed": changed, **totals, "seconds": round(seconds, 3), "stages": nested}
