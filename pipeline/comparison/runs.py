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

from pipeline.comparison.figures import Curves, draw_runs
from pipeline.comparison.significance import Comparison, Difference, compare
from pipeline.errors import FacadeError, UsageError
from pipeline.stages.evaluate.record import TEST, Judgement
from pipeline.stages.evaluate.scores import ALL, HEADLINE
from pipeline.storage.schemas import NAME_KEY, check_schema, conform
from pipeline.tracking.registry import Record, Store

__all__ = ["Side", "compare_runs", "judgement_at", "list_runs", "run_named", "side_of"]

EVALUATED: Final = "evaluated"  # the tag with the digest of a run's last evaluation
TABLES: Final = ("judged", "verdicts", "truths")
SHARD: Final = re.compile(r"(.+-\d{5,}-[0-9a-f]{12})-[0-9a-f]{8}\.parquet")
SERIES: Final = ("val.loss", "val.map50")
BOUNDS: Final = (".low", ".high")

Say = Callable[[str], None]


# The list


def list_runs(store: Store, most: int, everything: bool, say: Say) -> list[dict[str, Any]]:
    """Return the newest runs, those that were evaluated or all, and tell of them in a table."""
    records = list(islice(store.runs("" if everything else f"tags.{EVALUATED} LIKE '%'"), most))
    trained = {
        record.tags["digest"]: record for record in records if record.stage == "train" and "digest" in record.tags
    }
    rows = [_row(record, trained.get(record.params.get("model", ""), record)) for record in records]
    if rows:
        cells = [[*_head(row), row["what"], _points(row["map"], row["low"], row["high"])] for row in rows]
        _say_table([["run", "name", "started (UTC)", "digest", "what", "mAP at IoU .5"], *cells], say)
    else:
        say(f"runs: MLflow has no run{'' if everything else ' that was evaluated; --all lists the others too'}")
    return rows


def _row(record: Record, trained: Record) -> dict[str, Any]:
    """Return what a run's line says; what was trained is known of the run itself, or of the one that made its model."""
    what = ", ".join(trained.params[key] for key in ("train.preset", "priors.name") if key in trained.params)
    split = next((one for one in (TEST, "val") if f"{one}.{HEADLINE}" in record.metrics), TEST)
    figures = {name: record.metrics.get(f"{split}.{HEADLINE}{end}") for name, end in FIGURES.items()}
    digest, started = record.tags.get("digest", ""), _time(record.started)
    head = {"run_id": record.run_id, "name": record.name, "started": started, "digest": digest}
    return {**head, "what": what, "split": split, **figures}


FIGURES: Final = {"map": "", "low": ".low", "high": ".high"}


def _head(row: Mapping[str, Any]) -> list[str]:
    return [row["run_id"][:8], row["name"], row["started"], row["digest"][:8]]


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")


# Runs and what they left


@dataclass(frozen=True)
class Side:
    """A run that is compared, with the run that trained its model and the one that judged it, where there are such."""

    record: Record
    trained: Record | None
    judged: Record | None

    @property
    def name(self) -> str:
        """The run as people know it."""
        return f"{self.record.short} ({self.record.name})"

    @property
    def params(self) -> dict[str, str]:
        """All settings that led to the figures, without digests that differ whenever models do."""
        runs = (self.judged, self.trained, self.record)
        known = {key: value for run in runs if run is not None for key, value in run.params.items()}
        return {key: value for key, value in known.items() if key not in {"model", "detect"}}

    @property
    def versions(self) -> dict[str, str]:
        """Versions of packages, and the commit, of the run that trained."""
        tags = (self.trained or self.record).tags
        known = {key: value for key, value in tags.items() if key.startswith("version.")}
        commit = tags.get("mlflow.source.git.commit")
        return known | ({"commit": commit} if commit else {})


def run_named(store: Store, name: str) -> Record:
    """Return the run that an id, the beginning of one, or a name says, if only one can be meant."""
    if (found := store.run(name)) is not None:
        return found
    meant = [run for run in store.runs() if name and (run.run_id.startswith(name) or run.name == name)]
    if len(meant) == 1:
        return meant[0]
    if not meant:
        raise UsageError(f"no run {name!r} in MLflow; `facade runs list --all` lists all, with their ids.")
    some = ", ".join(run.short for run in meant[:5])
    raise UsageError(
        f"{name!r} may be any of {len(meant)} runs ({some}{', ...' if len(meant) > 5 else ''}); give more of an id."
    )


def side_of(store: Store, record: Record) -> Side:
    """Return a run with those that belong to it: the newest that trained a model of its digest, that judged it."""
    if record.stage == "train":
        return Side(record, record, _newest(store, "evaluate", EVALUATED, record.tags.get(EVALUATED, "")))
    return Side(record, _newest(store, "train", "digest", record.params.get("model", "")), record)


def _newest(store: Store, stage: str, tag: str, digest: str) -> Record | None:
    return next((run for run in _tagged(store, tag, digest) if run.stage == stage), None)


def _tagged(store: Store, tag: str, digest: str) -> Iterator[Record]:
    """Yield the runs with a digest as a tag; none without a digest."""
    return store.runs(f"tags.{tag} = '{digest}'") if digest.isalnum() else iter(())


def judgement_at(store: Store, digest: str, whose: str) -> Judgement:
    """Return the tables of the evaluation of a digest, from a run that has them, or say that those of `whose` are gone.

    A training run keeps the tables of all its evaluations; the run of `evaluate` has its own alone.
    """
    for record in _tagged(store, EVALUATED, digest):
        files = [path for path in store.files(record.run_id) if SHARD.fullmatch(path)]
        if len({SHARD.sub(r"\1", path) for path in files}) == 1:
            return _read(store, record, files, whose)
    raise FacadeError(
        f"{whose} has no evaluation in MLflow; run `facade detect` and `facade evaluate` with its model, with the same "
        "--tracking."
    )


def _read(store: Store, record: Record, files: list[str], whose: str) -> Judgement:
    found = {}
    with TemporaryDirectory() as temporary:
        for path in files:
            table = pq.ParquetFile(store.fetch(record.run_id, path, Path(temporary))).read()
            name = (table.schema.metadata or {}).get(NAME_KEY, b"").decode()
            if name in TABLES:
                check_schema(table.schema, name, f"{path} of run {record.short}")
                found[name] = conform(table, name)
    if missing := [name for name in TABLES if name not in found]:
        raise FacadeError(f"the evaluation of {whose} lacks {', '.join(missing)} in MLflow; evaluate its model again.")
    return Judgement(**found)


# Side by side


def compare_runs(store: Store, names: tuple[str, str], out: Path, say: Say) -> dict[str, Any]:
    """Return how the second run's model differs from the first's, told with settings, figures and a picture."""
    first, second = (side_of(store, run_named(store, name)) for name in names)
    if first.record.run_id == second.record.run_id:
        raise UsageError(f"{names[0]!r} and {names[1]!r} are one run, {first.name}; name two.")
    say(f"runs: A is {first.name}, B is {second.name}")
    settings, versions = _unlike(first.params, second.params), _unlike(first.versions, second.versions)
    _say_table([["setting", "A", "B"], *([key, *pair] for key, pair in {**settings, **versions}.items())], say)
    judgements = [_judgement(store, side) for side in (first, second)]
    _say_table([["metric", "A", "B"], *_metric_rows(first.record, second.record, judgements[0].split)], say)
    comparison = compare(judgements[0], judgements[1])
    _say_comparison(comparison, first, second, say)
    figure = draw_runs(_curves(store, (first, second), judgements), out / f"{_joined(first, second)}.png")
    say(f"runs: the curves are in {figure}")
    ids = {"a": first.record.run_id, "b": second.record.run_id}
    differing = {"settings": settings, "versions": versions, "outputs": {"figure": str(figure)}}
    return {**ids, **_line(comparison), **differing}


def _judgement(store: Store, side: Side) -> Judgement:
    return judgement_at(store, side.record.tags.get(EVALUATED, ""), f"run {side.name}")


def _joined(first: Side, second: Side) -> str:
    return f"{first.record.short}-{second.record.short}"


def _say_comparison(comparison: Comparison, first: Side, second: Side, say: Say) -> None:
    for one in comparison.differences:
        say(f"runs: {_sentence(one)}")
    say(f"runs: {comparison.sentence(f'A, {first.name},', f'B, {second.name},')}")


def _curves(store: Store, sides: Sequence[Side], judgements: Sequence[Judgement]) -> list[Curves]:
    return [
        Curves(f"{letter} {side.record.short}", judged.lines(), _series(store, side))
        for letter, side, judged in zip("AB", sides, judgements, strict=True)
    ]


def _line(comparison: Comparison) -> dict[str, Any]:
    labels = {label: one.to_json() for label, one in comparison.of().items() if label != ALL}
    about = {"split": comparison.split, "photos": comparison.photos, "test_digest": comparison.digest}
    protocols = {one.protocol: one.to_json() for one in comparison.differences if one.label == ALL}
    return {**comparison.mean.to_json(), "by_class": labels, "by_protocol": protocols, **about}


def _sentence(one: Difference) -> str:
    title = f"{one.protocol} {one.label or 'mean'}: A {100 * one.first:.1f}, B {100 * one.second:.1f}"
    return f"{title}, {100 * one.value:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f}): {one.verdict}"


def _unlike(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    pairs = {key: (first.get(key, "-"), second.get(key, "-")) for key in sorted({*first, *second})}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _metric_rows(first: Record, second: Record, split: str) -> Iterator[list[str]]:
    """Yield the figures of a split that either run has, with their intervals."""
    names = sorted({*first.metrics, *second.metrics})
    for name in names:
        if name.startswith(f"{split}.") and not name.endswith(BOUNDS):
            yield [
                name,
                *(_points(*(run.metrics.get(name + end) for end in FIGURES.values())) for run in (first, second)),
            ]


def _points(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else "")


def _series(store: Store, side: Side) -> dict[str, list[tuple[int, float]]]:
    """Return the validation curves of a training."""
    known = [name for name in SERIES if side.trained and name in side.trained.metrics]
    return {name: store.series(side.trained.run_id, name) for name in known if side.trained}


def _say_table(rows: list[list[str]], say: Say) -> None:
    """Tell rows below one another, unless there is no row but the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if len(rows) > 1 else ():
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
