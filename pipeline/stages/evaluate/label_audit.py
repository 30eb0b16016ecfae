"""Which labels are likely wrong: sure detections where nothing is labelled, boxes that nothing finds, other classes.

A row of `suspicious_labels` is a box to look at, the most certain first. A person who agrees leaves it in the file
`suspicious_labels.csv`, deletes the others, and gives it to `extract` as `corrections.csv`: such boxes are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.imaging.boxes import pairwise_iou
from pipeline.models.operating_point import OperatingPoint
from pipeline.stages.evaluate.data import EvaluationData
from pipeline.stages.evaluate.error_analysis import BACKGROUND, CLASS, CORRECT, ErrorAnalysis
from pipeline.stages.evaluate.scores import part_indices
from pipeline.storage.schemas import COORDINATES
from ssd import DetectionArrays, GroundTruthArrays, match_arrays

__all__ = ["MIN_CONFIDENCE", "MISSING", "UNDETECTED", "WRONG_CLASS", "drop_suspicious", "suspicious_labels"]

MISSING, UNDETECTED, WRONG_CLASS = "missing", "undetected", "class"
MIN_CONFIDENCE: Final = 0.5  # minimum probability of a detection that doubts the class of a label
MIN_MISSING_LIKELIHOOD: Final = 0.6  # that a detection on nothing is of an object whose label is missing
MIN_CLASS_RECALL: Final = 0.9  # share that is found of a class and size, for one that is not found to be doubted
MIN_SAMPLES, EM_ITERATIONS = 20, 60  # fewer detections tell nothing of how scores are spread
MAX_UNMATCHED_IOU: Final = 0.1  # of a box that nothing finds, the most overlap with anything found in its class
DUPLICATE_IOU: Final = 0.5  # two detections that overlap more are of one object

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _SuspectLabel:
    """A row: its image, box and label, how sure it is, and which detection or truth it is."""

    kind: str
    confidence: float
    detection: int = -1
    ground_truth: int = -1


def suspicious_labels(data: EvaluationData, analysis: ErrorAnalysis, point: OperatingPoint) -> list[dict[str, Any]]:
    """Return the rows of `suspects`, the surest first."""
    probabilities = _calibrated_probabilities(data, point)
    found = [
        *_missing_labels(data, analysis, probabilities),
        *_undetected(data, analysis),
        *_wrong_class(analysis, probabilities),
    ]
    found.sort(key=lambda one: (-one.confidence, one.kind, one.detection, one.ground_truth))
    return [{"rank": rank, **_row(data, one)} for rank, one in enumerate(found, start=1)]


def drop_suspicious(data: EvaluationData, rows: Sequence[Mapping[str, Any]]) -> EvaluationData:
    """Return the same photos where suspects count neither for nor against: their boxes are ignored."""
    boxes = {row["box_id"] for row in rows if row["box_id"]}
    ids = np.array([name in boxes for name in data.box_ids.to_pylist()], np.bool_)
    plain = np.zeros(len(ids), np.bool_) if data.ground_truths.ignore is None else data.ground_truths.ignore
    places = {name: number for number, name in enumerate(data.column("image_id").tolist())}
    extra = [
        row if row["kind"] == MISSING else {**row, "label": row["detected_label"]}
        for row in rows
        if row["detection_id"]
    ]
    more = _UnmatchedDetections(
        np.array([places[row["image_id"]] for row in extra], np.int64),
        np.array([1 + data.classes.index(row["label"]) for row in extra], np.int64),
        np.array([[row[name] for name in COORDINATES] for row in extra], np.float32).reshape(-1, 4),
    )
    truths = GroundTruthArrays(
        np.concatenate([data.ground_truths.images, more.images]),
        np.concatenate([data.ground_truths.labels, more.labels]),
        np.concatenate([data.ground_truths.boxes, more.boxes]),
        data.ground_truths.classes,
        np.concatenate([plain | ids, np.ones(len(extra), np.bool_)]),
        data.ground_truths.labelled,
    )
    names = pa.array([row["detection_id"] for row in extra], pa.string())  # a box that has none yet
    return replace(data, ground_truths=truths, box_ids=pa.concat_arrays([data.box_ids, names]))


@dataclass(frozen=True)
class _UnmatchedDetections:
    images: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]


def _calibrated_probabilities(data: EvaluationData, point: OperatingPoint) -> Floats:
    """Return the calibrated probability of each detection (N,)."""
    probabilities = np.zeros(len(data.detections))
    for number, name in enumerate(data.classes, start=1):
        rows = data.detections.labels == number
        if (own := point.classes.get(name)) is not None:
            probabilities[rows] = own.probability(data.detections.scores[rows])
    return probabilities


def _missing_labels(data: EvaluationData, analysis: ErrorAnalysis, probabilities: Floats) -> Iterator[_SuspectLabel]:
    """Yield detections on nothing that are likely of an object without a label, the best of each place.

    The likelihood says which; the confidence is at most the calibrated probability of such a score.
    """
    likely = np.where(analysis.outcomes == BACKGROUND, probabilities, 0.0)
    for label in range(1, data.ground_truths.classes):
        own = data.detections.labels == label
        on_nothing = np.flatnonzero(own & (analysis.outcomes == BACKGROUND))
        right = data.detections.scores[own & (analysis.outcomes == CORRECT)]
        if min(len(on_nothing), len(right)) >= MIN_SAMPLES:
            likely[on_nothing] = missing_label_likelihood(data.detections.scores[on_nothing], right)
    rows = np.flatnonzero(likely >= MIN_MISSING_LIKELIHOOD)
    rows = rows[np.argsort(-likely[rows], kind="stable")]
    for _, own in _by_image(data.detections.images, rows):
        boxes = data.detections.boxes
        kept: list[int] = []
        for row in own:
            if (pairwise_iou(boxes[[row]], boxes[kept]) < DUPLICATE_IOU).all():
                kept.append(row)
                yield _SuspectLabel(MISSING, float(likely[row] * probabilities[row]), detection=row)


def missing_label_likelihood(scores: npt.NDArray[Any], correct_scores: npt.NDArray[Any]) -> Floats:
    """Estimate for each unmatched detection (N,) the probability that it shows an object whose label is missing.

    Their scores are a mixture of those of real objects, which are spread as those that are right, and of those of
    nothing; each is a beta distribution, and how much of which there is is found by expectation and maximisation. What
    share of all sure detections is wrong says little: where many labels are missing, they are those.
    """
    from scipy.special import betaln

    def density(first: float, second: float) -> Floats:
        logarithm = (first - 1) * np.log(values) + (second - 1) * np.log1p(-values) - betaln(first, second)
        found: Floats = np.exp(logarithm)
        return found

    values, known = (np.clip(each.astype(np.float64), 1e-3, 1 - 1e-3) for each in (scores, correct_scores))
    of_objects = density(*_fit_beta(known, np.ones(len(known))))
    likely = (values > np.median(known)).astype(np.float64)
    for _ in range(EM_ITERATIONS):
        of_nothing = density(*_fit_beta(values, 1 - likely))
        share = likely.mean()
        likely = share * of_objects / (share * of_objects + (1 - share) * of_nothing + 1e-300)
    order = np.argsort(values, kind="stable")
    likely[order] = np.maximum.accumulate(likely[order])  # a higher score is never less likely
    return likely


def _fit_beta(values: Floats, weights: Floats) -> tuple[float, float]:
    """Return the beta distribution that has the values' mean and variance."""
    weights = weights + 1e-9
    mean = float(np.average(values, weights=weights))
    spread = max(float(np.average((values - mean) ** 2, weights=weights)), 1e-5)
    both = max(mean * (1 - mean) / spread - 1, 1e-2)
    return mean * both, (1 - mean) * both


def _undetected(data: EvaluationData, analysis: ErrorAnalysis) -> Iterator[_SuspectLabel]:
    """Yield truths that no detection of their class comes near; the more of their size are found, the surer."""
    found, truths = data.detections, data.ground_truths
    scores = np.zeros(len(truths), np.float32)
    turned = DetectionArrays(truths.images, truths.labels, scores, truths.boxes)  # each truth with what was found
    near = match_arrays(turned, GroundTruthArrays(found.images, found.labels, found.boxes, truths.classes)).iou
    missed, sizes = analysis.missed(), part_indices(data)["size"]
    groups = truths.labels.astype(np.int64) * 8 + np.maximum(sizes, 0)
    counted = np.ones(len(truths), np.bool_) if truths.ignore is None else ~truths.ignore
    asked, hits = (np.bincount(groups[which], minlength=8 * truths.classes) for which in (counted, counted & ~missed))
    share = hits / np.maximum(asked, 1)
    for row in np.flatnonzero(missed & (near < MAX_UNMATCHED_IOU) & (share[groups] >= MIN_CLASS_RECALL)):
        yield _SuspectLabel(UNDETECTED, float(share[groups[row]]), ground_truth=int(row))


def _wrong_class(analysis: ErrorAnalysis, probabilities: Floats) -> Iterator[_SuspectLabel]:
    """Yield sure detections that lie well on an object of another class that nothing finds as what it is labelled."""
    missed, best = analysis.missed(), dict[int, int]()
    for row in np.flatnonzero((analysis.outcomes == CLASS) & (probabilities >= MIN_CONFIDENCE)).tolist():
        truth = int(analysis.ground_truth[row])
        if missed[truth] and (truth not in best or probabilities[row] > probabilities[best[truth]]):
            best[truth] = row
    for truth, row in best.items():
        yield _SuspectLabel(WRONG_CLASS, float(probabilities[row]), row, truth)


def _row(data: EvaluationData, suspect: _SuspectLabel) -> dict[str, Any]:
    rows = data.ground_truths if suspect.ground_truth >= 0 else data.detections
    place = suspect.ground_truth if suspect.ground_truth >= 0 else suspect.detection
    image = int(rows.images[place])
    seen = data.classes[data.detections.labels[suspect.detection] - 1] if suspect.detection >= 0 else None
    return {
        "kind": suspect.kind,
        "image_id": data.images["image_id"][image].as_py(),
        "dataset": data.images["dataset"][image].as_py(),
        "split": data.images["split"][image].as_py(),
        "label": data.classes[rows.labels[place] - 1],
        "detected_label": seen,
        "confidence": suspect.confidence,
        **dict(zip(COORDINATES, rows.boxes[place].tolist(), strict=True)),
        "box_id": data.box_ids[suspect.ground_truth].as_py() if suspect.ground_truth >= 0 else None,
        "detection_id": data.detection_ids[suspect.detection].as_py() if suspect.detection >= 0 else None,
    }


def _by_image(images: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
    groups: dict[int, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(int(images[row]), []).append(row)
    yield from groups.items()
