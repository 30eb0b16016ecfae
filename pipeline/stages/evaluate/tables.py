"""Compute the evaluate stage's tables from its joined arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipeline.models.operating_point import OperatingPoint
from pipeline.stages.evaluate.bootstrap import bootstrap_counts, percentile_interval
from pipeline.stages.evaluate.data import EvaluationData
from pipeline.stages.evaluate.error_analysis import (
    ERROR_KINDS,
    OUTCOMES,
    ErrorAnalysis,
    analyse_errors,
    ap_gain_if_fixed,
)
from pipeline.stages.evaluate.label_audit import MIN_CONFIDENCE, drop_suspicious, suspicious_labels
from pipeline.stages.evaluate.scores import ALL, CLEAN_PART, PARTS, part_indices, score_rows
from pipeline.stages.evaluate.threshold_fitting import count_errors, fit_operating_point
from pipeline.storage.schemas import COORDINATES, SCHEMAS, table_from_rows
from ssd import pr_curves

__all__ = ["FIT_SPLIT", "Evaluation", "apply_operating_point", "evaluate_images"]

FIT_SPLIT: Final = "val"
MAX_CURVE_POINTS: Final = 200  # of a curve
COUNTED_OUTCOMES: Final = tuple(kind for kind in OUTCOMES if kind != "ignored")


@dataclass(frozen=True)
class Evaluation:
    """Everything that is computed from evaluated photos; each part once, when it is first used."""

    data: EvaluationData
    model: str
    bootstrap_samples: int

    @cached_property
    def error_analysis(self) -> ErrorAnalysis:
        """What each detection is."""
        return analyse_errors(self.data.detections, self.data.ground_truths)

    @cached_property
    def splits(self) -> list[str]:
        """The splits that the photos are of."""
        return sorted(set(self.data.column("split").tolist()))

    @cached_property
    def by_split(self) -> dict[str, Evaluation]:
        """The photos of each split alone."""
        return {split: replace(self, data=self.data.select_split(split)) for split in self.splits}

    @property
    def fit_split(self) -> str:
        """The split to fit on: val, or what there is."""
        return FIT_SPLIT if FIT_SPLIT in self.splits else self.splits[0]

    @cached_property
    def operating_point(self) -> OperatingPoint:
        """The operating point."""
        part = self.by_split[self.fit_split]
        return fit_operating_point(part.data, part.error_analysis, self.model, self.fit_split)

    @cached_property
    def selection(self) -> tuple[Any, Any]:
        """The calibrated probability of each detection (N,), and whether it is selected (N,)."""
        return apply_operating_point(self.data, self.operating_point)

    @cached_property
    def suspicious_labels(self) -> list[dict[str, Any]]:
        """The likely wrong labels."""
        return suspicious_labels(self.data, self.error_analysis, self.operating_point)


def evaluate_images(data: EvaluationData, model: str, bootstrap_samples: int) -> dict[str, pa.Table]:
    """Return all tables of the stage."""
    whole = Evaluation(data, model, bootstrap_samples)
    plain = score_rows(data, bootstrap_samples)
    sure = [row for row in whole.suspicious_labels if row["confidence"] >= MIN_CONFIDENCE]
    clean = score_rows(drop_suspicious(data, sure), 0) if sure else []
    kept = [{**row, "part": CLEAN_PART} for row in clean if row["part"] == ALL and row["dataset"] == ALL]
    rows = {
        "scores": [*plain, *kept, *_count_error_rows(whole)],
        "curves": _curve_rows(whole),
        "error_breakdown": _error_breakdown_rows(whole),
        "suspicious_labels": whole.suspicious_labels,
    }
    tables = {name: table_from_rows(name, own) for name, own in rows.items()}
    return {
        "evaluated_images": _evaluated_images_table(whole),
        "detection_matches": _detection_matches_table(whole),
        "ground_truths": _ground_truths_table(whole),
        **tables,
    }


def apply_operating_point(data: EvaluationData, point: OperatingPoint) -> tuple[Any, Any]:
    """Apply the operating point: probabilities (N,) of the detections, and which of them are selected (N,)."""
    found = data.detections
    return point.apply(np.array(["", *data.classes])[found.labels], found.images, found.scores)


def _evaluated_images_table(evaluation: Evaluation) -> pa.Table:
    data, (_, selected), count = evaluation.data, evaluation.selection, len(evaluation.data.images)
    columns: dict[str, Any] = {
        name: data.images[name].combine_chunks() for name in ("image_id", "uri", "dataset", "split")
    }
    images, kinds = data.detections.images[selected].astype(np.int64), evaluation.error_analysis.outcomes[selected]
    numbers = {
        "ground_truths": data.ground_truths.images[_counted_mask(data)],
        "selected": images[kinds != OUTCOMES.index("ignored")],
        **{kind: images[kinds == OUTCOMES.index(kind)] for kind in COUNTED_OUTCOMES},
        "missed": data.ground_truths.images[evaluation.error_analysis.missed(selected)],
    }
    columns |= {
        name: np.bincount(own.astype(np.int64), minlength=count).astype(np.int32) for name, own in numbers.items()
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["evaluated_images"])


def _detection_matches_table(evaluation: Evaluation) -> pa.Table:
    data, analysis, (probabilities, selected) = evaluation.data, evaluation.error_analysis, evaluation.selection
    found, on, names = data.detections, analysis.ground_truth >= 0, pa.array(["", *data.classes])
    truth = pa.array(analysis.ground_truth, mask=~on)
    columns: dict[str, Any] = {
        "detection_id": data.detection_ids,
        "image_id": data.images["image_id"].combine_chunks().take(pa.array(found.images)),
        "label": names.take(pa.array(found.labels)),
        "score": found.scores,
        "outcome": pa.array(OUTCOMES).take(pa.array(analysis.outcomes)),
        "selected": selected,
        "iou": analysis.iou.astype(np.float32),
        "probability": pa.array(probabilities.astype(np.float32), mask=np.isnan(probabilities)),
        "box_id": data.box_ids.take(truth),
        "ground_truth_label": names.take(pa.array(data.ground_truths.labels.astype(np.int64))).take(truth),
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["detection_matches"])


def _ground_truths_table(evaluation: Evaluation) -> pa.Table:
    data, analysis = evaluation.data, evaluation.error_analysis
    parts = part_indices(data)
    columns: dict[str, Any] = {
        "box_id": data.box_ids,
        "image_id": data.images["image_id"].combine_chunks().take(pa.array(data.ground_truths.images)),
        "label": pa.array(["", *data.classes]).take(pa.array(data.ground_truths.labels)),
        "ignore": ~_counted_mask(data),
        "detected": analysis.detected,
        "selected": _counted_mask(data) & ~analysis.missed(evaluation.selection[1]),
        **{kind: pa.array(["", *names]).take(pa.array(1 + parts[kind])) for kind, names in PARTS.items()},
        **{name: data.ground_truths.boxes[:, axis].astype(np.float32) for axis, name in enumerate(COORDINATES)},
    }
    return pa.Table.from_pydict(columns, schema=SCHEMAS["ground_truths"])


def _curve_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows = []
    for split, part in evaluation.by_split.items():
        found = pr_curves(part.error_analysis.matches, 0.5)
        for label, curve in zip(part.data.classes, found[1:], strict=True):
            if curve.positives and len(curve.hits):
                places = np.unique(np.linspace(0, len(curve.hits) - 1, MAX_CURVE_POINTS).round().astype(int))
                precision, recall = curve.precision[places], curve.recall[places]
                f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
                columns = zip(curve.scores[places].tolist(), precision, recall, f1, strict=True)
                rows += [
                    {"split": split, "label": label, "score": score, "precision": p, "recall": r, "f1": f}
                    for score, p, r, f in columns
                ]
    return rows


def _error_breakdown_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for split, part in evaluation.by_split.items():
        analysis = part.error_analysis
        _, selected = apply_operating_point(part.data, evaluation.operating_point)
        counts, price, positives = (
            analysis.counts(selected),
            ap_gain_if_fixed(analysis),
            part.data.ground_truths.positives(),
        )
        missed = np.bincount(
            part.data.ground_truths.labels[analysis.missed(selected)].astype(np.int64), minlength=len(positives)
        )
        for number, label in enumerate(part.data.classes, start=1):
            shown = sum(int(counts[kind][number]) for kind in COUNTED_OUTCOMES)
            for kind in (*COUNTED_OUTCOMES, "missed"):
                count = int(missed[number] if kind == "missed" else counts[kind][number])
                of = int(positives[number]) if kind == "missed" else shown
                cost = float(price[kind][number]) if kind in ERROR_KINDS else None
                cost = None if cost is None or np.isnan(cost) else cost
                own = {"count": count, "share": count / max(of, 1), "ap_gain": cost}
                rows.append({"split": split, "label": label, "kind": kind, **own})
    return rows


def _count_error_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Compute the mean count error per photo: as selected, by one threshold, and the difference."""
    rows: list[dict[str, Any]] = []
    for split, part in evaluation.by_split.items():
        data, errors = part.data, count_errors(part.data, part.error_analysis, evaluation.operating_point)
        for label, (ours, theirs) in errors.items():
            head = {"split": split, "dataset": ALL, "label": label, "part": ALL}
            figures = {"count_error_selected": ours, "count_error_threshold": theirs, "count_error_gain": theirs - ours}
            positives = data.ground_truths.positives()
            number = int(positives[1 + data.classes.index(label)] if label else positives.sum())
            for protocol, every in figures.items():
                values = every[~np.isnan(every)]
                if not len(values):
                    continue
                low, high = _mean_interval(values, evaluation.bootstrap_samples)
                row = {"protocol": protocol, "value": float(values.mean()), "low": low, "high": high}
                rows.append({**head, **row, "positives": number, "images": len(values)})
    return rows


def _mean_interval(values: Any, bootstrap_samples: int) -> tuple[float | None, float | None]:
    if not bootstrap_samples or not len(values):
        return None, None
    return percentile_interval(
        bootstrap_counts(len(values), bootstrap_samples).astype(np.float64) @ values / len(values)
    )


def _counted_mask(data: EvaluationData) -> Any:
    ignore = data.ground_truths.ignore
    return np.ones(len(data.ground_truths), np.bool_) if ignore is None else ~ignore
