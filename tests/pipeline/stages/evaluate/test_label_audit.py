"""Doubtful labels: deleted ones are found, and little else."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.stages.evaluate.data import EvaluationData
from pipeline.stages.evaluate.error_analysis import OUTCOMES
from pipeline.stages.evaluate.label_audit import drop_suspicious, suspicious_labels
from pipeline.stages.evaluate.scores import headline_rows, score_rows
from pipeline.stages.evaluate.tables import Evaluation
from pipeline.storage.schemas import table_from_rows

from ...noise_model import CLASS_SWAPS, CLASSES, Noise, NoisyEvaluation, delete_ground_truths, make_noisy_evaluation


def rows_of(judged: EvaluationData) -> list[dict]:
    whole = Evaluation(judged, "model", 0)
    return suspicious_labels(judged, whole.error_analysis, whole.operating_point)


def shown(drawn: NoisyEvaluation) -> np.ndarray:
    return np.unique(drawn.ground_truth_rows[drawn.outcomes == "correct"])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_deleted_labels_are_found(seed: int) -> None:
    """A hundred labels of objects that are found are deleted: the others nobody could miss."""
    drawn = make_noisy_evaluation(200, 10 + seed)
    deleted = np.random.default_rng(seed).choice(shown(drawn), 100, replace=False)
    missing = [row for row in rows_of(delete_ground_truths(drawn, deleted)) if row["kind"] == "missing"]
    theirs = {f"d{number}" for number in np.flatnonzero(np.isin(drawn.ground_truth_rows, deleted))}
    right = [row for row in missing if row["detection_id"] in theirs]
    assert len(right) >= 90
    assert len(right) / len(missing) >= 0.9


def test_boxes_that_nothing_finds_are_told() -> None:
    drawn = make_noisy_evaluation(
        100, 4, Noise(recall=1, jitter=0.03, duplicates=0, swaps=0, poor_boxes=0, false_positives=0)
    )
    gone = np.random.default_rng(0).choice(len(drawn.data.ground_truths), 20, replace=False)
    kept = ~np.isin(drawn.ground_truth_rows, gone)
    found = drawn.data.detections
    judged = EvaluationData(
        drawn.data.images,
        CLASSES,
        type(found)(found.images[kept], found.labels[kept], found.scores[kept], found.boxes[kept]),
        drawn.data.detection_ids.filter(pa.array(kept)),
        drawn.data.ground_truths,
        drawn.data.box_ids,
    )
    unfound = {row["box_id"] for row in rows_of(judged) if row["kind"] == "undetected"}
    assert unfound <= {f"b{row}" for row in gone}
    assert len(unfound) >= 18


def test_labels_of_another_class_are_told() -> None:
    drawn = make_noisy_evaluation(100, 5, Noise(recall=1, swaps=0, poor_boxes=0, duplicates=0))
    labels = drawn.data.ground_truths.labels
    changed = np.random.default_rng(0).choice(np.flatnonzero(labels == 2), 30, replace=False)
    labels = labels.copy()
    labels[changed] = CLASS_SWAPS[2]
    truths = drawn.data.ground_truths
    judged = EvaluationData(
        drawn.data.images,
        CLASSES,
        drawn.data.detections,
        drawn.data.detection_ids,
        type(truths)(truths.images, labels, truths.boxes, truths.classes, truths.ignore),
        drawn.data.box_ids,
    )
    told = [row for row in rows_of(judged) if row["kind"] == "class"]
    assert {(row["label"], row["detected_label"]) for row in told} == {("door", "window")}
    assert len({row["box_id"] for row in told} & {f"b{row}" for row in changed}) >= 27
    assert len(told) <= 33


def test_ranks_run_and_rows_are_the_table_s() -> None:
    rows = rows_of(make_noisy_evaluation(40, 6).data)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["confidence"] for row in rows] == sorted((row["confidence"] for row in rows), reverse=True)
    assert len(table_from_rows("suspicious_labels", rows)) == len(rows)


def test_scores_without_the_suspects_are_better() -> None:
    drawn = make_noisy_evaluation(100, 7)
    judged = delete_ground_truths(drawn, np.random.default_rng(0).choice(shown(drawn), 200, replace=False))
    plain = headline_rows(score_rows(judged, 0), "test")
    clean = headline_rows(score_rows(drop_suspicious(judged, rows_of(judged)), 0), "test")
    assert clean["window"]["value"] > plain["window"]["value"]


def test_nothing_found_doubts_nothing() -> None:
    drawn = make_noisy_evaluation(10, 8, Noise(recall=0, false_positives=0))
    assert rows_of(drawn.data) == []


def test_a_label_of_a_doubted_class_counts_for_neither() -> None:
    drawn = make_noisy_evaluation(100, 9)
    rows = [row for row in rows_of(drawn.data) if row["kind"] == "class"]
    assert len(rows) > 20
    verdicts = Evaluation(drop_suspicious(drawn.data, rows), "model", 0).error_analysis
    doubted = {row["detection_id"] for row in rows}
    kinds = {
        OUTCOMES[kind]
        for kind, name in zip(verdicts.outcomes, drawn.data.detection_ids.to_pylist(), strict=True)
        if name in doubted
    }
    assert kinds == {"ignored"}
