"""Which labels are likely wrong: sure detections where nothing is labelled, boxes that nothing finds, other classes.

A row of `suspects` is a box and a place to look at, the surest first. A person who agrees leaves it in the file
`suspects.csv`, takes the others out, and gives it to `extract` as `corrections`: such boxes are ignored from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.models.operating_point import OperatingPoint
from pipeline.stages.evaluate.data import Judged
from pipeline.stages.evaluate.error_analysis import BACKGROUND, CLASS, CORRECT, Verdicts
from pipeline.stages.evaluate.scores import parts_of
from pipeline.storage.schemas import COORDINATES
from ssd import DetectionRows, TruthRows, match_rows

__all__ = ["MISSING", "OTHER_CLASS", "SURE", "UNFOUND", "suspects", "without_suspects"]

MISSING, UNFOUND, OTHER_CLASS = "missing", "unfound", "class"
SURE: Final = 0.5  # what a detection must be worth to doubt the class of a label
LIKELY: Final = 0.6  # that a detection on nothing is of an object whose label is missing
FINDABLE: Final = 0.9  # share that is found of a class and size, for one that is not found to be doubted
FEW, ROUNDS = 20, 60  # fewer detections tell nothing of how scores are spread
FAR: Final = 0.1  # of a box that nothing finds, the most overlap with anything found in its class
TWICE: Final = 0.5  # two detections that overlap more are of one object

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Suspect:
    """A row: its image, box and label, how sure it is, and which detection or truth it is."""

    kind: str
    sure: float
    detection: int = -1
    truth: int = -1


def suspects(judged: Judged, verdicts: Verdicts, point: OperatingPoint) -> list[dict[str, Any]]:
    """Return the rows of `suspects`, the surest first."""
    worth = _worth(judged, point)
    found = [*_missing(judged, verdicts, worth), *_unfound(judged, verdicts), *_other_class(verdicts, worth)]
    found.sort(key=lambda one: (-one.sure, one.kind, one.detection, one.truth))
    return [{"rank": rank, **_row(judged, one)} for rank, one in enumerate(found, start=1)]


def without_suspects(judged: Judged, rows: Sequence[Mapping[str, Any]]) -> Judged:
    """Return the same photos where suspects count neither for nor against: their boxes are ignored."""
    boxes = {row["box_id"] for row in rows if row["box_id"]}
    ids = np.array([name in boxes for name in judged.box_ids.to_pylist()], np.bool_)
    plain = np.zeros(len(ids), np.bool_) if judged.truths.ignore is None else judged.truths.ignore
    places = {name: number for number, name in enumerate(judged.column("image_id").tolist())}
    extra = [
        row if row["kind"] == MISSING else {**row, "label": row["found_label"]} for row in rows if row["detection_id"]
    ]
    more = _Extra(
        np.array([places[row["image_id"]] for row in extra], np.int64),
        np.array([1 + judged.classes.index(row["label"]) for row in extra], np.int64),
        np.array([[row[name] for name in COORDINATES] for row in extra], np.float32).reshape(-1, 4),
    )
    truths = TruthRows(
        np.concatenate([judged.truths.images, more.images]),
        np.concatenate([judged.truths.labels, more.labels]),
        np.concatenate([judged.truths.boxes, more.boxes]),
        judged.truths.classes,
        np.concatenate([plain | ids, np.ones(len(extra), np.bool_)]),
        judged.truths.labelled,
    )
    names = pa.array([row["detection_id"] for row in extra], pa.string())  # a box that has none yet
    return replace(judged, truths=truths, box_ids=pa.concat_arrays([judged.box_ids, names]))


@dataclass(frozen=True)
class _Extra:
    images: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]


def _worth(judged: Judged, point: OperatingPoint) -> Floats:
    """Return (N,) what the score of each detection is worth."""
    worth = np.zeros(len(judged.detections))
    for number, name in enumerate(judged.classes, start=1):
        rows = judged.detections.labels == number
        if (own := point.classes.get(name)) is not None:
            worth[rows] = own.probability(judged.detections.scores[rows])
    return worth


def _missing(judged: Judged, verdicts: Verdicts, worth: Floats) -> Iterator[_Suspect]:
    """Yield detections on nothing that are likely of an object without a label, the best of each place.

    The likelihood says which; how sure one is cannot be more than what such a score is worth anywhere.
    """
    likely = np.where(verdicts.kinds == BACKGROUND, worth, 0.0)
    for label in range(1, judged.truths.classes):
        own = judged.detections.labels == label
        on_nothing = np.flatnonzero(own & (verdicts.kinds == BACKGROUND))
        right = judged.detections.scores[own & (verdicts.kinds == CORRECT)]
        if min(len(on_nothing), len(right)) >= FEW:
            likely[on_nothing] = real(judged.detections.scores[on_nothing], right)
    rows = np.flatnonzero(likely >= LIKELY)
    rows = rows[np.argsort(-likely[rows], kind="stable")]
    for _, own in _by_image(judged.detections.images, rows):
        kept: list[int] = []
        for row in own:
            if all(_iou(judged.detections.boxes[row], judged.detections.boxes[other]) < TWICE for other in kept):
                kept.append(row)
                yield _Suspect(MISSING, float(likely[row] * worth[row]), detection=row)


def real(scores: npt.NDArray[Any], right: npt.NDArray[Any]) -> Floats:
    """Return how likely each of the detections on nothing (N,) is of an object, whose label is missing then.

    Their scores are a mixture of those of real objects, which are spread as those that are right, and of those of
    nothing; each is a beta distribution, and how much of which there is is found by expectation and maximisation. What
    share of all sure detections is wrong says little: where many labels are missing, they are those.
    """
    from scipy.special import betaln

    def density(first: float, second: float) -> Floats:
        logarithm = (first - 1) * np.log(values) + (second - 1) * np.log1p(-values) - betaln(first, second)
        found: Floats = np.exp(logarithm)
        return found

    values, known = (np.clip(each.astype(np.float64), 1e-3, 1 - 1e-3) for each in (scores, right))
    of_objects = density(*_beta(known, np.ones(len(known))))
    likely = (values > np.median(known)).astype(np.float64)
    for _ in range(ROUNDS):
        of_nothing = density(*_beta(values, 1 - likely))
        share = likely.mean()
        likely = share * of_objects / (share * of_objects + (1 - share) * of_nothing + 1e-300)
    order = np.argsort(values, kind="stable")
    likely[order] = np.maximum.accumulate(likely[order])  # a higher score is never less likely
    return likely


def _beta(values: Floats, weights: Floats) -> tuple[float, float]:
    """Return the beta distribution that has the values' mean and variance."""
    weights = weights + 1e-9
    mean = float(np.average(values, weights=weights))
    spread = max(float(np.average((values - mean) ** 2, weights=weights)), 1e-5)
    both = max(mean * (1 - mean) / spread - 1, 1e-2)
    return mean * both, (1 - mean) * both


def _unfound(judged: Judged, verdicts: Verdicts) -> Iterator[_Suspect]:
    """Yield truths that no detection of their class comes near; the more of their size are found, the surer."""
    found, truths = judged.detections, judged.truths
    scores = np.zeros(len(truths), np.float32)
    turned = DetectionRows(truths.images, truths.labels, scores, truths.boxes)  # each truth with what was found
    near = match_rows(turned, TruthRows(found.images, found.labels, found.boxes, truths.classes)).iou
    missed, sizes = verdicts.missed(), parts_of(judged)["size"]
    groups = truths.labels.astype(np.int64) * 8 + np.maximum(sizes, 0)
    counted = np.ones(len(truths), np.bool_) if truths.ignore is None else ~truths.ignore
    asked, hits = (np.bincount(groups[which], minlength=8 * truths.classes) for which in (counted, counted & ~missed))
    share = hits / np.maximum(asked, 1)
    for row in np.flatnonzero(missed & (near < FAR) & (share[groups] >= FINDABLE)):
        yield _Suspect(UNFOUND, float(share[groups[row]]), truth=int(row))


def _other_class(verdicts: Verdicts, worth: Floats) -> Iterator[_Suspect]:
    """Yield sure detections that lie well on an object of another class that nothing finds as what it is labelled."""
    missed, best = verdicts.missed(), dict[int, int]()
    for row in np.flatnonzero((verdicts.kinds == CLASS) & (worth >= SURE)).tolist():
        truth = int(verdicts.truth[row])
        if missed[truth] and (truth not in best or worth[row] > worth[best[truth]]):
            best[truth] = row
    for truth, row in best.items():
        yield _Suspect(OTHER_CLASS, float(worth[row]), row, truth)


def _row(judged: Judged, one: _Suspect) -> dict[str, Any]:
    rows = judged.truths if one.truth >= 0 else judged.detections
    place = one.truth if one.truth >= 0 else one.detection
    image = int(rows.images[place])
    seen = judged.classes[judged.detections.labels[one.detection] - 1] if one.detection >= 0 else None
    return {
        "kind": one.kind,
        "image_id": judged.images["image_id"][image].as_py(),
        "dataset": judged.images["dataset"][image].as_py(),
        "split": judged.images["split"][image].as_py(),
        "label": judged.classes[rows.labels[place] - 1],
        "found_label": seen,
        "sure": one.sure,
        **dict(zip(COORDINATES, rows.boxes[place].tolist(), strict=True)),
        "box_id": judged.box_ids[one.truth].as_py() if one.truth >= 0 else None,
        "detection_id": judged.detection_ids[one.detection].as_py() if one.detection >= 0 else None,
    }


def _by_image(images: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
    groups: dict[int, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(int(images[row]), []).append(row)
    yield from groups.items()


def _iou(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    both = float(np.prod(np.maximum(sides, 0)))
    return both / max(float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - both, 1e-9)
