"""`facade runs`: what MLflow has of evaluated models, in a list and side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pyarrow.parquet as pq

from pipeline.comparison.figures import RunCurves, draw_runs
from pipeline.comparison.significance import Comparison, Difference, compare
from pipeline.errors import FacadeError, UsageError
from pipeline.models.score_format import format_ap
from pipeline.stages.evaluate.record import TEST_SPLIT, EvaluationRecord
from pipeline.stages.evaluate.scores import ALL, HEADLINE
from pipeline.storage.schemas import NAME_KEY, check_schema, conform_to_schema
from pipeline.tracking.registry import MlflowStore, RunRecord

__all__ = ["ComparedRun", "compare_runs", "find_related_runs", "find_run", "list_runs", "load_evaluation_record"]

EVALUATION_TAG: Final = "evaluated"  # the tag with the digest of a run's last evaluation
TABLES: Final = ("evaluated_images", "detection_matches", "ground_truths")
SHARD_FILE: Final = re.compile(r"(.+-\d{5,}-[0-9a-f]{12})-[0-9a-f]{8}\.parquet")
HISTORY_METRICS: Final = ("val.loss", "val.map50")
BOUND_SUFFIXES: Final = (".low", ".high")

Log = Callable[[str], None]


# The list


def list_runs(store: MlflowStore, limit: int, all_runs: bool, log: Log) -> list[dict[str, Any]]:
    """Return the newest runs, those that were evaluated or all, and tell of them in a table."""
    records = list(islice(store.runs("" if all_runs else f"tags.{EVALUATION_TAG} LIKE '%'"), limit))
    trained = {
        record.tags["digest"]: record for record in records if record.stage == "train" and "digest" in record.tags
    }
    rows = [_row(record, trained.get(record.params.get("model", ""), record)) for record in records]
    if rows:
        cells = [[*_row_head(row), row["what"], format_ap(row["map"], row["low"], row["high"])] for row in rows]
        _log_table([["run", "name", "started (UTC)", "digest", "what", "mAP at IoU .5"], *cells], log)
    else:
        log(f"runs: MLflow has no run{'' if all_runs else ' that was evaluated; --all lists the others too'}")
    return rows


def _row(record: RunRecord, training_run: RunRecord) -> dict[str, Any]:
    """Make the line of a run; its settings are those of the run itself, or of the run that trained its model."""
    what = ", ".join(training_run.params[key] for key in ("train.preset", "priors.name") if key in training_run.params)
    split = next((one for one in (TEST_SPLIT, "val") if f"{one}.{HEADLINE}" in record.metrics), TEST_SPLIT)
    figures = {name: record.metrics.get(f"{split}.{HEADLINE}{end}") for name, end in SCORE_SUFFIXES.items()}
    digest, started = record.tags.get("digest", ""), _format_time(record.started)
    head = {"run_id": record.run_id, "name": record.name, "started": started, "digest": digest}
    return {**head, "what": what, "split": split, **figures}


SCORE_SUFFIXES: Final = {"map": "", "low": ".low", "high": ".high"}


def _row_head(row: Mapping[str, Any]) -> list[str]:
    return [row["run_id"][:8], row["name"], row["started"], row["digest"][:8]]


def _format_time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")


# Runs and what they left


@dataclass(frozen=True)
class ComparedRun:
    """A run that is compared, with the runs that trained and evaluated its model, where there are such."""

    record: RunRecord
    training_run: RunRecord | None
    evaluation_run: RunRecord | None

    @property
    def name(self) -> str:
        """The run as people know it."""
        return f"{self.record.short_id} ({self.record.name})"

    @property
    def params(self) -> dict[str, str]:
        """All settings that led to the figures, without digests that differ whenever models do."""
        runs = (self.evaluation_run, self.training_run, self.record)
        known = {key: value for run in runs if run is not None for key, value in run.params.items()}
        return {key: value for key, value in known.items() if key not in {"model", "detect"}}

    @property
    def versions(self) -> dict[str, str]:
        """Versions of packages, and the commit, of the run that trained."""
        tags = (self.training_run or self.record).tags
        known = {key: value for key, value in tags.items() if key.startswith("version.")}
        commit = tags.get("mlflow.source.git.commit")
        return known | ({"commit": commit} if commit else {})


def find_run(store: MlflowStore, name: str) -> RunRecord:
    """Return the run that an id, the beginning of one, or a name says, if only one can be meant."""
    if (found := store.run(name)) is not None:
        return found
    meant = [run for run in store.runs() if name and (run.run_id.startswith(name) or run.name == name)]
    if len(meant) == 1:
        return meant[0]
    if not meant:
        raise UsageError(f"no run {name!r} in MLflow; `facade runs list --all` lists all, with their ids.")
    some = ", ".join(run.short_id for run in meant[:5])
    raise UsageError(
        f"{name!r} may be any of {len(meant)} runs ({some}{', ...' if len(meant) > 5 else ''}); give more of an id."
    )


def find_related_runs(store: MlflowStore, record: RunRecord) -> ComparedRun:
    """Return a run with those that belong to it: the newest that trained its model and that evaluated it."""
    if record.stage == "train":
        return ComparedRun(
            record, record, _newest(store, "evaluate", EVALUATION_TAG, record.tags.get(EVALUATION_TAG, ""))
        )
    return ComparedRun(record, _newest(store, "train", "digest", record.params.get("model", "")), record)


def _newest(store: MlflowStore, stage: str, tag: str, digest: str) -> RunRecord | None:
    return next((run for run in _tagged(store, tag, digest) if run.stage == stage), None)


def _tagged(store: MlflowStore, tag: str, digest: str) -> Iterator[RunRecord]:
    """Yield the runs with a digest as a tag; none without a digest."""
    return store.runs(f"tags.{tag} = '{digest}'") if digest.isalnum() else iter(())


def load_evaluation_record(store: MlflowStore, digest: str, owner: str) -> EvaluationRecord:
    """Return the tables of the evaluation of a digest, from a run that has them, or say that those of `owner` are gone.

    A training run keeps the tables of all its evaluations; the run of `evaluate` has its own alone.
    """
    for record in _tagged(store, EVALUATION_TAG, digest):
        files = [path for path in store.files(record.run_id) if SHARD_FILE.fullmatch(path)]
        if len({SHARD_FILE.sub(r"\1", path) for path in files}) == 1:
            return _read_record(store, record, files, owner)
    raise FacadeError(
        f"{owner} has no evaluation in MLflow; run `facade detect` and `facade evaluate` with its model, with the same "
        "--tracking."
    )


def _read_record(store: MlflowStore, record: RunRecord, files: list[str], owner: str) -> EvaluationRecord:
    found = {}
    with TemporaryDirectory() as temporary:
        for path in files:
            table = pq.ParquetFile(store.fetch(record.run_id, path, Path(temporary))).read()
            name = (table.schema.metadata or {}).get(NAME_KEY, b"").decode()
            if name in TABLES:
                check_schema(table.schema, name, f"{path} of run {record.short_id}")
                found[name] = conform_to_schema(table, name)
    if missing := [name for name in TABLES if name not in found]:
        raise FacadeError(f"the evaluation of {owner} lacks {', '.join(missing)} in MLflow; evaluate its model again.")
    return EvaluationRecord(**found)


# Side by side


def compare_runs(store: MlflowStore, names: tuple[str, str], out: Path, log: Log) -> dict[str, Any]:
    """Compare the models of two runs: settings, scores, significance and a figure."""
    first, second = (find_related_runs(store, find_run(store, name)) for name in names)
    if first.record.run_id == second.record.run_id:
        raise UsageError(f"{names[0]!r} and {names[1]!r} are one run, {first.name}; name two.")
    log(f"runs: A is {first.name}, B is {second.name}")
    settings, versions = (
        _differing_values(first.params, second.params),
        _differing_values(first.versions, second.versions),
    )
    _log_table([["setting", "A", "B"], *([key, *pair] for key, pair in {**settings, **versions}.items())], log)
    records = [_load_record(store, side) for side in (first, second)]
    _log_table([["metric", "A", "B"], *_metric_rows(first.record, second.record, records[0].split)], log)
    comparison = compare(records[0], records[1])
    _log_comparison(comparison, first, second, log)
    figure = draw_runs(_load_curves(store, (first, second), records), out / f"{_pair_name(first, second)}.png")
    log(f"runs: the curves are in {figure}")
    ids = {"a": first.record.run_id, "b": second.record.run_id}
    differing = {"settings": settings, "versions": versions, "outputs": {"figure": str(figure)}}
    return {**ids, **_comparison_json(comparison), **differing}


def _load_record(store: MlflowStore, side: ComparedRun) -> EvaluationRecord:
    return load_evaluation_record(store, side.record.tags.get(EVALUATION_TAG, ""), f"run {side.name}")


def _pair_name(first: ComparedRun, second: ComparedRun) -> str:
    return f"{first.record.short_id}-{second.record.short_id}"


def _log_comparison(comparison: Comparison, first: ComparedRun, second: ComparedRun, log: Log) -> None:
    for one in comparison.differences:
        log(f"runs: {_comparison_line(one)}")
    log(f"runs: {comparison.summary(f'A, {first.name},', f'B, {second.name},')}")


def _load_curves(
    store: MlflowStore, sides: Sequence[ComparedRun], records: Sequence[EvaluationRecord]
) -> list[RunCurves]:
    return [
        RunCurves(f"{letter} {side.record.short_id}", record.pr_curves(), _validation_history(store, side))
        for letter, side, record in zip("AB", sides, records, strict=True)
    ]


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    labels = {label: one.to_json() for label, one in comparison.by_label().items() if label != ALL}
    about = {"split": comparison.split, "photos": comparison.photos, "test_digest": comparison.digest}
    protocols = {one.protocol: one.to_json() for one in comparison.differences if one.label == ALL}
    return {**comparison.mean.to_json(), "by_class": labels, "by_protocol": protocols, **about}


def _comparison_line(difference: Difference) -> str:
    label = difference.label or "mean"
    scores = f"A {100 * difference.first:.1f}, B {100 * difference.second:.1f}, {100 * difference.value:+.1f}"
    interval = f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}"
    return f"{difference.protocol} {label}: {scores} ({interval}): {difference.verdict}"


def _differing_values(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    pairs = {key: (first.get(key, "-"), second.get(key, "-")) for key in sorted({*first, *second})}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _metric_rows(first: RunRecord, second: RunRecord, split: str) -> Iterator[list[str]]:
    """Yield the figures of a split that either run has, with their intervals."""
    names = sorted({*first.metrics, *second.metrics})
    for name in names:
        if name.startswith(f"{split}.") and not name.endswith(BOUND_SUFFIXES):
            yield [
                name,
                *(
                    _format_metric(*(run.metrics.get(name + end) for end in SCORE_SUFFIXES.values()))
                    for run in (first, second)
                ),
            ]


def _format_metric(value: float | None, low: float | None, high: float | None) -> str:
    """Format any metric, not all of which are shares, with its interval."""
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else "")


def _validation_history(store: MlflowStore, side: ComparedRun) -> dict[str, list[tuple[int, float]]]:
    """Return the validation curves of a training."""
    known = [name for name in HISTORY_METRICS if side.training_run and name in side.training_run.metrics]
    return {name: store.metric_history(side.training_run.run_id, name) for name in known if side.training_run}


def _log_table(rows: list[list[str]], log: Log) -> None:
    """Tell rows below one another, unless there is no row but the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if len(rows) > 1 else ():
        log("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
