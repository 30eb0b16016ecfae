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
from pipeline.execution.isolation import RowsFunction, run_isolated
from pipeline.execution.parallel import ProgressCallbacks, WorkerConfig, WorkerPool
from pipeline.execution.progress import Progress
from pipeline.execution.retry import retry_rejected
from pipeline.execution.sharding import rejected_row
from pipeline.storage.manifest import Manifest, Receipt, Shard
from pipeline.storage.schemas import VOLATILE_COLUMNS, table_from_rows
from pipeline.storage.stage_folder import STAGED_FOLDER, StageFolder
from pipeline.tracking.run_logger import RunLogger, open_run

__all__ = ["Context", "Outcome", "ReduceTask", "Stage", "StagePlan", "combined_outcome_json", "run_shards", "run_stage"]


# An input row, the stage's name and the error, to the tables of the row.
LostRowTables = Callable[[dict[str, Any], str, Exception], Mapping[str, pa.Table]]


def _rejected_table_only(row: dict[str, Any], stage: str, error: Exception) -> dict[str, pa.Table]:
    return {"rejected": table_from_rows("rejected", [rejected_row(row, stage, error)])}


@dataclass(frozen=True)
class Stage:
    """What is true of a stage whatever its settings.

    Attributes:
        name: the stage's one word.
        algorithm: raised whenever the same inputs would give other rows.
        rows_out: how many input rows a shard's tables account for, besides the rejected ones.
        primary: the table whose rows are counted as added, removed and modified, if it has a key.
        long: the address of the Dask dashboard is logged.
        tables_for_lost_row: makes the tables of an input row that crashes its process.
    """

    name: str
    algorithm: int
    rows_out: Callable[[Mapping[str, pa.Table]], int]
    primary: str | None
    long: bool = False
    tables_for_lost_row: LostRowTables = _rejected_table_only


@dataclass(frozen=True)
class Context:
    """What every command hands to the stages that it runs.

    Attributes:
        work: the work folder.
        workers: where shards are worked on.
        tracking: MLflow's address, or "off".
        parent_run: returns the MLflow run above this stage's; opens it when first called.
        max_rejected: the stage fails above this share of rejected rows.
        disk_retry_seconds: how long to wait for a full disk or a store that is away.
        log: writes one line for people.
        make_progress: makes the progress bar of a stage with this many rows.
        pool: the worker processes, shared by all stages of the command.
    """

    work: Path
    workers: WorkerConfig = field(default_factory=WorkerConfig)
    tracking: str | None = None
    parent_run: Callable[[], str | None] = lambda: None
    max_rejected: float = 0.05
    disk_retry_seconds: float = 600.0
    log: Callable[[str], None] = lambda _: None
    make_progress: Callable[[str, int | None], Progress] = Progress
    pool: WorkerPool = field(default_factory=WorkerPool)

    def folder(self, stage: str) -> StageFolder:
        """Return the folder of a stage in this work folder."""
        return StageFolder(self.work, stage, self.disk_retry_seconds)


@dataclass(frozen=True)
class ReduceTask:
    """The step after all shards, in the command's own process.

    Attributes:
        shard: names its files; it has no rows.
        function: the receipts of all shards in, tables out.
        rows: input rows that it accounts for, where no shard does.
    """

    shard: Shard
    function: Callable[[Sequence[Receipt]], Mapping[str, pa.Table]]
    rows: int = 0


@dataclass(frozen=True)
class StagePlan:
    """Everything that a stage decided before the first shard starts.

    Attributes:
        shards: all shards of the tables to be made, finished or not.
        function: rows in, tables out; runs in a worker.
        settings: logged to MLflow and kept in the manifest.
        unchanged: receipts of datasets that this command leaves alone.
        reduce: the step after all shards, if there is one.
        draw_pictures: pictures, made from all receipts; returns their paths.
        folder: where the tables go, if not into the work folder.
    """

    shards: Sequence[Shard]
    function: RowsFunction | None
    settings: Mapping[str, Any]
    unchanged: Sequence[Receipt] = ()
    reduce: ReduceTask | None = None
    draw_pictures: Callable[[Sequence[Receipt]], Sequence[Path]] | None = None
    folder: StageFolder | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage prints as its line of JSON; a stage without tables leaves out the counts of changed rows."""

    stage: str
    changed: bool = False
    rows_in: int
    rows_out: int
    rejected: int = 0
    seconds: float
    per_second: float = 0.0
    outputs: dict[str, Any]
    digest: str
    added: int = 0
    removed: int = 0
    modified: int = 0
    run_id: str | None = None


def run_stage(stage: Stage, context: Context, plan: StagePlan) -> Outcome:
    """Run a stage by its plan; the caller holds the lock of the stage's folder."""
    return _StageRun(stage, context, plan).run()


def run_shards(stage: Stage, context: Context, plan: StagePlan) -> Outcome:
    """Run some of a stage's shards, which `run_stage` then finds finished."""
    return _StageRun(stage, context, plan).run_shards()


@dataclass(frozen=True)
class _Task:
    """The stage's function with the folder it writes to: what travels to the workers."""

    folder: StageFolder
    function: RowsFunction
    stage: Stage

    def __call__(self, shard: Shard) -> Receipt:
        if shard.retry_of is None:
            return self._write(shard, self.function(shard.rows))
        files = shard.retry_of.tables.items()
        previous = {name: self.folder.read_files(name, [entry]) for name, entry in files}
        return self._write(shard, retry_rejected(list(shard.rows), previous, self.function))

    def run_isolated(self, shard: Shard, memory: int) -> Receipt:
        return self._write(shard, run_isolated(self.function, shard.rows, self._reject, memory))

    def _write(self, shard: Shard, tables: Mapping[str, pa.Table]) -> Receipt:
        return self.folder.write_shard(shard, tables, self.stage.rows_out(tables))

    def _reject(self, row: dict[str, Any], message: str) -> Mapping[str, pa.Table]:
        return self.stage.tables_for_lost_row(row, self.folder.stage, BadInputError(message))


@dataclass(frozen=True)
class _StageRun:
    stage: Stage
    context: Context
    plan: StagePlan
    started: float = field(default_factory=time.monotonic)

    @cached_property
    def folder(self) -> StageFolder:
        return self.plan.folder or self.context.folder(self.stage.name)

    @cached_property
    def previous_manifest(self) -> Manifest | None:
        return self.folder.manifest()

    def run(self) -> Outcome:
        finished = self._finished_receipts()
        if self.previous_manifest is not None and self._is_up_to_date(finished):
            self.folder.delete_stale(self.previous_manifest)
            return self._outcome(self.previous_manifest, 0, (0, 0, 0))
        with open_run(self.stage.name, self.context.tracking, self.context.parent_run()) as run:
            run.log_settings(self.plan.settings)
            receipts = self._run_pending(finished)
            self._check_rejected(receipts)
            return self._commit(run, receipts, sum(r.rows_in for r in receipts if r.key not in finished))

    def run_shards(self) -> Outcome:
        """Run the shards alone, without a commit: `run` finds them finished."""
        finished = self._finished_receipts()
        receipts = self._run_pending(finished)
        self._check_rejected(receipts)
        done = sum(receipt.rows_in for receipt in receipts if receipt.key not in finished)
        manifest = Manifest(self.stage.name, tuple(receipts), dict(self.plan.settings))
        return replace(self._outcome(manifest, done, (0, 0, 0)), changed=done > 0)

    def _finished_receipts(self) -> dict[str, Receipt]:
        retried = {shard.key for shard in self.plan.shards if shard.retry_of is not None}
        return {key: receipt for key, receipt in self.folder.finished_receipts().items() if key not in retried}

    def _planned_keys(self) -> set[str]:
        reduced = {self.plan.reduce.shard.key} if self.plan.reduce else set()
        return {shard.key for shard in self.plan.shards} | {receipt.key for receipt in self.plan.unchanged} | reduced

    def _is_up_to_date(self, finished_receipts: Mapping[str, Receipt]) -> bool:
        if self.previous_manifest is None:
            return False
        committed = {receipt.key: receipt for receipt in self.previous_manifest.receipts}
        planned = self._planned_keys()
        return committed.keys() == planned and all(finished_receipts.get(key) == committed[key] for key in planned)

    def _run_pending(self, finished_receipts: Mapping[str, Receipt]) -> list[Receipt]:
        todo = [shard for shard in self.plan.shards if shard.key not in finished_receipts]
        skipped = len(self.plan.shards) - len(todo)
        if skipped:
            self.context.log(f"{self.stage.name}: {skipped} of {len(self.plan.shards)} shards were finished before")
        receipts = [finished_receipts[shard.key] for shard in self.plan.shards if shard.key in finished_receipts]
        if todo and self.plan.function:
            progress = self.context.make_progress(self.stage.name, sum(len(shard.rows) for shard in todo))
            task = _Task(self.folder, self.plan.function, self.stage)
            callbacks = ProgressCallbacks(progress.advance_in_flight, self._log_dashboard)
            for receipt in self.context.pool.map_shards(task, todo, self.context.workers, callbacks):
                receipts.append(receipt)
                progress.advance(receipt.rows_in, receipt.rejected)
        return sorted(receipts, key=lambda receipt: (receipt.dataset, receipt.ordinal))

    def _log_dashboard(self, address: str) -> None:
        if self.stage.long:
            self.context.log(f"{self.stage.name}: Dask's dashboard is at {address}")

    def _check_rejected(self, receipts: Sequence[Receipt]) -> None:
        """Stop above the allowed share; the receipts stay, so that the same command with a higher limit is instant."""
        rejected, rows_in = sum(r.rejected for r in receipts), sum(r.rows_in for r in receipts)
        if rejected > self.context.max_rejected * rows_in:
            share = f"{rejected / rows_in:.1%}, allowed are {self.context.max_rejected:.1%}"
            raise FacadeError(
                f"{self.stage.name}: {rejected} of {rows_in} images were rejected ({share}): "
                f"{self._rejection_reasons(receipts)}; fix them or raise --max-rejected "
                f"(each is a row in {self.folder.path / STAGED_FOLDER / 'rejected'})."
            )

    def _rejection_reasons(self, receipts: Sequence[Receipt], limit: int = 3) -> str:
        """Return the commonest reasons, each with its count and an example."""
        entries = [receipt.tables["rejected"] for receipt in receipts if "rejected" in receipt.tables]
        rows = self.folder.read_files("rejected", entries).to_pylist()
        examples = {row["message"]: row["image_id"] for row in reversed(rows)}
        common = Counter(row["message"] for row in rows).most_common(limit)
        return "; ".join(f"{count} x {message} (as {examples[message]})" for message, count in common)

    def _commit(self, run: RunLogger, receipts: list[Receipt], done: int) -> Outcome:
        everything = [*self.plan.unchanged, *receipts]
        if reduce := self.plan.reduce:
            tables = reduce.function(receipts)
            everything.append(self.folder.write_shard(reduce.shard, tables, reduce.rows, rows_in=reduce.rows))
            done += reduce.rows
        everything.sort(key=lambda receipt: (receipt.dataset, receipt.ordinal))
        pictures = self.plan.draw_pictures(everything) if self.plan.draw_pictures else ()
        manifest = Manifest(self.stage.name, tuple(everything), dict(self.plan.settings), run.run_id)
        changes = self._changes(manifest)
        self.folder.commit(manifest)
        outcome = self._outcome(manifest, done, changes)
        self._log(run, outcome, pictures)
        return outcome

    def _log(self, run: RunLogger, outcome: Outcome, pictures: Sequence[Path]) -> None:
        counts = ("rows_in", "rows_out", "rejected", "seconds", "per_second", "added", "removed", "modified")
        figures = {name: float(getattr(outcome, name)) for name in counts}
        tags = {"digest": outcome.digest, "changed": str(outcome.changed).lower()}
        run.log(figures | {f"rows.{name}": float(rows) for name, rows in outcome.outputs.items()}, tags)
        run.log_files(pictures)

    def _changes(self, manifest: Manifest) -> tuple[int, int, int]:
        """Count the primary rows that were added, removed and modified, reading only shards that differ."""
        if (name := self.stage.primary) is None:
            return 0, 0, 0
        before = {
            entry.content: entry for entry in (self.previous_manifest.files(name) if self.previous_manifest else ())
        }
        after = {entry.content: entry for entry in manifest.files(name)}
        old = self._rows_by_key(name, [entry for content, entry in before.items() if content not in after])
        new = self._rows_by_key(name, [entry for content, entry in after.items() if content not in before])
        modified = sum(1 for key in old.keys() & new.keys() if old[key] != new[key])
        return len(new.keys() - old.keys()), len(old.keys() - new.keys()), modified

    def _rows_by_key(self, name: str, entries: list[Any]) -> dict[str, tuple[Any, ...]]:
        rows: dict[str, tuple[Any, ...]] = {}
        with suppress(FacadeError):  # a damaged old shard is being replaced: its rows count as gone
            table = self.folder.read_files(name, entries)
            kept = table.drop_columns([column for column in VOLATILE_COLUMNS if column in table.column_names])
            rows = {values[0]: values for values in zip(*(column.to_pylist() for column in kept), strict=True)}
        return rows

    def _outcome(self, manifest: Manifest, done: int, changes: tuple[int, int, int]) -> Outcome:
        planned = self._planned_keys() - {receipt.key for receipt in self.plan.unchanged}
        ours = Manifest(self.stage.name, tuple(r for r in manifest.receipts if r.key in planned))
        seconds = time.monotonic() - self.started
        outputs = Counter[str]()
        for receipt in ours.receipts:
            outputs.update({name: entry.rows for name, entry in receipt.tables.items()})
        return Outcome(
            stage=self.stage.name,
            changed=self.previous_manifest is None or self.previous_manifest.digest != manifest.digest,
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


def combined_outcome_json(name: str, stages: Mapping[str, Outcome], seconds: float) -> dict[str, Any]:
    """Return the line of a command that runs several stages."""
    outcomes = list(stages.values())
    totals = {
        count: sum(getattr(outcome, count) for outcome in outcomes) for count in ("rows_in", "rows_out", "rejected")
    }
    changed = any(outcome.changed for outcome in outcomes)
    nested = {stage: asdict(outcome) for stage, outcome in stages.items()}
    return {"stage": name, "changed": changed, **totals, "seconds": round(seconds, 3), "stages": nested}
