"""Judged photos become the tables of `evaluate`: arrays and tables in, tables out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipeline.models.operating_point import OperatingPoint
from pipeline.stages.evaluate.bootstrap import drawings, interval
from pipeline.stages.evaluate.data import Judged
from pipeline.stages.evaluate.error_analysis import ERRORS, KINDS, Verdicts, costs, judge
from pipeline.stages.evaluate.label_audit import SURE, suspects, without_suspects
from pipeline.stages.evaluate.scores import ALL, PARTS, parts_of, score_rows
from pipeline.stages.evaluate.threshold_fitting import counting_errors, fit
from pipeline.storage.schemas import COORDINATES, SCHEMAS, table_from_rows
from ssd import curves

__all__ = ["FIT", "Evaluation", "evaluate_images", "read_all"]

FIT: Final = "val"
POINTS: Final = 200  # of a curve
CHOSEN_KINDS: Final = tuple(kind for kind in KINDS if kind != "ignored")


@dataclass(frozen=True)
class Evaluation:
    """Everything that is counted from some judged photos; each part once, when it is asked for."""

    judged: Judged
    model: str
    resamples: int

    @cached_property
    def verdicts(self) -> Verdicts:
        """What each detection is."""
        return judge(self.judged.detections, self.judged.truths)

    @cached_property
    def splits(self) -> list[str]:
        """The splits that the photos are of."""
        return sorted(set(self.judged.column("split").tolist()))

    @cached_property
    def parts(self) -> dict[str, Evaluation]:
        """The photos of each split alone."""
        return {split: replace(self, judged=self.judged.of_split(split)) for split in self.splits}

    @property
    def fitted_on(self) -> str:
        """The split to fit on: val, or what there is."""
        return FIT if FIT in self.splits else self.splits[0]

    @cached_property
    def point(self) -> OperatingPoint:
        """The operating point."""
        part = self.parts[self.fitted_on]
        return fit(part.judged, part.verdicts, self.model, self.fitted_on)

    @cached_property
    def choice(self) -> tuple[Any, Any]:
        """What each detection is worth (N,), and whether it is chosen (N,)."""
        return read_all(self.judged, self.point)

    @cached_property
    def suspects(self) -> list[dict[str, Any]]:
        """The likely wrong labels."""
        return suspects(self.judged, self.verdicts, self.point)


def evaluate_images(judged: Judged, model: str, resamples: int) -> dict[str, pa.Table]:
    """Return all tables of the stage."""
    whole = Evaluation(judged, model, resamples)
    plain = score_rows(judged, resamples)
    sure = [row for row in whole.suspects if row["sure"] >= SURE]
    clean = score_rows(without_suspects(judged, sure), 0) if sure else []
    kept = [{**row, "part": "without suspects"} for row in clean if row["part"] == ALL and row["dataset"] == ALL]
    rows = {
        "scores": [*plain, *kept, *_counting_rows(whole)],
        "curves": _curve_rows(whole),
        "diagnosis": _diagnosis_rows(whole),
        "suspects": whole.suspects,
    }
    tables = {name: table_from_rows(name, own) for name, own in rows.items()}
    return {
        "judged": _judged_table(whole),
        "verdicts": _verdicts_table(whole),
        "truths": _truths_table(whole),
        **tables,
    }


def read_all(judged: Judged, point: OperatingPoint) -> tuple[Any, Any]:
    """Return what the detections of the photos are worth (N,), and which are chosen (N,)."""
    found = judged.detections
    return point.read(np.array(["", *judged.classes])[found.labels], found.images, found.scores)


def _judged_table(whole: Evaluation) -> pa.Table:
    judged, (_, chosen), count = whole.judged, whole.choice, len(whole.judged.images)
    columns: dict[str, Any] = {
        name: judged.images[name].combine_chunks() for name in ("image_id", "uri", "dataset", "split")
    }
    images, kinds = judged.detections.images[chosen].astype(np.int64), whole.verdicts.kinds[chosen]
    numbers = {
        "truths": judged.truths.images[_counted(judged)],
        "chosen": images[kinds != KINDS.index("ignored")],
        **{kind: images[kinds == KINDS.index(kind)] for kind in CHOSEN_KINDS},
        "missed": judged.truths.images[whole.verdicts.missed(chosen)],
    }
    columns |= {
        name: np.bincount(own.astype(np.int64), minlength=count).astype(np.int32) for name, own in numbers.items()
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["judged"])


def _verdicts_table(whole: Evaluation) -> pa.Table:
    judged, verdicts, (worth, chosen) = whole.judged, whole.verdicts, whole.choice
    found, on, names = judged.detections, verdicts.truth >= 0, pa.array(["", *judged.classes])
    truth = pa.array(verdicts.truth, mask=~on)
    columns: dict[str, Any] = {
        "detection_id": judged.detection_ids,
        "image_id": judged.images["image_id"].combine_chunks().take(pa.array(found.images)),
        "label": names.take(pa.array(found.labels)),
        "score": found.scores,
        "kind": pa.array(KINDS).take(pa.array(verdicts.kinds)),
        "chosen": chosen,
        "overlap": verdicts.overlap.astype(np.float32),
        "probability": pa.array(worth.astype(np.float32), mask=np.isnan(worth)),
        "box_id": judged.box_ids.take(truth),
        "true_label": names.take(pa.array(judged.truths.labels.astype(np.int64))).take(truth),
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["verdicts"])


def _truths_table(whole: Evaluation) -> pa.Table:
    judged, verdicts = whole.judged, whole.verdicts
    parts = parts_of(judged)
    columns: dict[str, Any] = {
        "box_id": judged.box_ids,
        "image_id": judged.images["image_id"].combine_chunks().take(pa.array(judged.truths.images)),
        "label": pa.array(["", *judged.classes]).take(pa.array(judged.truths.labels)),
        "ignore": ~_counted(judged),
        "found": verdicts.found,
        "chosen": _counted(judged) & ~verdicts.missed(whole.choice[1]),
        **{kind: pa.array(["", *names]).take(pa.array(1 + parts[kind])) for kind, names in PARTS.items()},
        **{name: judged.truths.boxes[:, axis].astype(np.float32) for axis, name in enumerate(COORDINATES)},
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["truths"])


def _curve_rows(whole: Evaluation) -> list[dict[str, Any]]:
    rows = []
    for split, part in whole.parts.items():
        found = curves(part.verdicts.matches, 0.5)
        for label, curve in zip(part.judged.classes, found[1:], strict=True):
            if curve.positives and len(curve.hits):
                places = np.unique(np.linspace(0, len(curve.hits) - 1, POINTS).round().astype(int))
                precision, recall = curve.precision[places], curve.recall[places]
                f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
                columns = zip(curve.scores[places].tolist(), precision, recall, f1, strict=True)
                rows += [
                    {"split": split, "label": label, "score": score, "precision": p, "recall": r, "f1": f}
                    for score, p, r, f in columns
                ]
    return rows


def _diagnosis_rows(whole: Evaluation) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for split, part in whole.parts.items():
        verdicts = part.verdicts
        _, chosen = read_all(part.judged, whole.point)
        counts, price, positives = verdicts.counts(chosen), costs(verdicts), part.judged.truths.positives()
        missed = np.bincount(
            part.judged.truths.labels[verdicts.missed(chosen)].astype(np.int64), minlength=len(positives)
        )
        for number, label in enumerate(part.judged.classes, start=1):
            shown = sum(int(counts[kind][number]) for kind in CHOSEN_KINDS)
            for kind in (*CHOSEN_KINDS, "missed"):
                count = int(missed[number] if kind == "missed" else counts[kind][number])
                of = int(positives[number]) if kind == "missed" else shown
                cost = float(price[kind][number]) if kind in ERRORS else None
                cost = None if cost is None or np.isnan(cost) else cost
                own = {"count": count, "share": count / max(of, 1), "cost": cost}
                rows.append({"split": split, "label": label, "kind": kind, **own})
    return rows


def _counting_rows(whole: Evaluation) -> list[dict[str, Any]]:
    """Return how far numbers of objects are off in a photo: chosen by photo, by one threshold, and the difference."""
    rows: list[dict[str, Any]] = []
    for split, part in whole.parts.items():
        judged, errors = part.judged, counting_errors(part.judged, part.verdicts, whole.point)
        for label, (ours, theirs) in errors.items():
            head = {"split": split, "dataset": ALL, "label": label, "part": ALL}
            figures = {"count_error_chosen": ours, "count_error_threshold": theirs, "count_error_gain": theirs - ours}
            positives = judged.truths.positives()
            number = int(positives[1 + judged.classes.index(label)] if label else positives.sum())
            for protocol, every in figures.items():
                values = every[~np.isnan(every)]
                if not len(values):
                    continue
                low, high = _mean_interval(values, whole.resamples)
                row = {"protocol": protocol, "value": float(values.mean()), "low": low, "high": high}
                rows.append({**head, **row, "positives": number, "images": len(values)})
    return rows


def _mean_interval(values: Any, resamples: int) -> tuple[float | None, float | None]:
    if not resamples or not len(values):
        return None, None
    return interval(drawings(len(values), resamples).astype(np.float64) @ values / len(values))


def _counted(judged: Judged) -> Any:
    ignore = judged.truths.ignore
    return np.ones(len(judged.truths), np.bool_) if ignore is None else ~ignore
