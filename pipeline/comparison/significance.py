"""Whether one detector is better than another on the same photos, or whether the difference may be chance.

Both are counted from the same drawings of the photos, so that a hard photo that is drawn twice is hard for both: what
is left in the differences is how the detectors differ. Tables of an evaluation go in, differences come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from pipeline.errors import FacadeError
from pipeline.stages.evaluate.bootstrap import (
    BOOTSTRAP_SAMPLES,
    ClassRanking,
    bootstrap_aps,
    bootstrap_counts,
    percentile_interval,
)
from pipeline.stages.evaluate.record import EvaluationRecord, Floats
from pipeline.stages.evaluate.scores import ALL, HEADLINE
from ssd import Points

__all__ = ["BETTER", "SAME", "WORSE", "Comparison", "Difference", "compare"]

Verdict = Literal["better", "worse", "no difference"]
BETTER: Final = "better"
WORSE: Final = "worse"
SAME: Final = "no difference"
# The protocols whose IoU is the one of the verdicts, .5, with their points; the headline first.
PROTOCOLS: Final[Mapping[str, Points]] = {HEADLINE: 11, "voc_50": "all"}
# Of 5 photos that all speak for the same side, chance makes 2 * .5^5 = 6 %; of 6 it makes 3 %.
MIN_PHOTOS: Final = 6


@dataclass(frozen=True)
class Difference:
    """One figure of two models, and by how much the second's is above the first's.

    Attributes:
        protocol: as in the table `scores`.
        label: a class, or "" for the mean over classes.
        first: the first model's figure.
        second: the second model's.
        low: from here 95 of 100 drawings of the photos have the difference,
        high: to here.
        photos: how many have something to find.
    """

    protocol: str
    label: str
    first: float
    second: float
    low: float
    high: float
    photos: int

    @property
    def value(self) -> float:
        """By how much the second is above the first."""
        return self.second - self.first

    @property
    def verdict(self) -> Verdict:
        """Whether the second is better or worse than the first; with few photos nothing can be said."""
        if self.photos < MIN_PHOTOS:
            return SAME
        return BETTER if self.low > 0 else WORSE if self.high < 0 else SAME

    def to_json(self) -> dict[str, Any]:
        """Return the difference as what `json.dumps` takes."""
        figures = {"first": self.first, "second": self.second, "difference": self.value}
        figures |= {"low": self.low, "high": self.high}
        return {"verdict": self.verdict, **{name: round(value, 6) for name, value in figures.items()}}


@dataclass(frozen=True)
class Comparison:
    """How two models differ on the same photos."""

    split: str
    digest: str
    photos: int
    differences: tuple[Difference, ...]

    def by_label(self, protocol: str = HEADLINE) -> dict[str, Difference]:
        """Return the differences of a protocol by label, the mean first."""
        return {one.label: one for one in self.differences if one.protocol == protocol}

    @property
    def mean(self) -> Difference:
        """The difference that decides: of the mean over classes, of the headline's protocol."""
        return self.by_label()[ALL]

    def summary(self, first: str = "the first", second: str = "the second") -> str:
        """Summarise the comparison in one line, without a full stop."""
        one, where = self.mean, f"on {self.photos:,} photos of {self.split}"
        spread = f"{100 * one.value:+.1f} points of mAP, {100 * one.low:+.1f} to {100 * one.high:+.1f}"
        if one.photos < MIN_PHOTOS:
            return f"whether {second} is better than {first} cannot be decided on so few photos: {spread}, {where}"
        if one.verdict == SAME:
            return f"no difference beyond noise between {second} and {first}: {spread}, {where}"
        return f"{second} is {one.verdict} than {first} beyond noise: {spread}, {where}"


def compare(
    first: EvaluationRecord, second: EvaluationRecord, bootstrap_samples: int = BOOTSTRAP_SAMPLES, seed: int = 0
) -> Comparison:
    """Compare two models that were evaluated on the same photos with the same ground truth."""
    if first.digest != second.digest:
        raise FacadeError(_mismatch_message(first, second))
    if not first.labels:
        raise FacadeError(
            f"the photos of {first.split} have no ground-truth boxes, so that models cannot be compared; detect and "
            "evaluate on photos with labels."
        )
    drawn = bootstrap_counts(len(first.images), bootstrap_samples, seed)
    weights = np.concatenate([np.ones((1, len(first.images)), drawn.dtype), drawn])  # row 0: each photo once
    pairs = {label: (first.class_ranking(label), second.class_ranking(label)) for label in first.labels}
    differences: list[Difference] = []
    for protocol, points in PROTOCOLS.items():
        aps = [np.stack([bootstrap_aps(pair[side], weights, points) for pair in pairs.values()]) for side in (0, 1)]
        differences += _compute_differences(protocol, pairs, aps[0], aps[1])
    return Comparison(first.split, first.digest, len(first.images), tuple(differences))


def _compute_differences(
    protocol: str, pairs: Mapping[str, tuple[ClassRanking, ClassRanking]], first: Floats, second: Floats
) -> list[Difference]:
    """Return the differences of the mean and of each class, from figures (C, R) whose first column is all photos'."""
    found = [one.positives > 0 for one, _ in pairs.values()]
    rows = {ALL: (_class_mean(first), _class_mean(second), np.any(found, axis=0))}
    rows |= dict(zip(pairs, zip(first, second, found, strict=True), strict=True))
    return [
        Difference(
            protocol,
            label,
            float(one[0]),
            float(other[0]),
            *percentile_interval(other[1:] - one[1:]),
            photos=int(own.sum()),
        )
        for label, (one, other, own) in rows.items()
    ]


def _class_mean(values: Floats) -> Floats:
    """Return (R,) the mean over the classes that have something to find in a drawing; NaN where none has."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _mismatch_message(first: EvaluationRecord, second: EvaluationRecord) -> str:
    """Return the sentence on two evaluations that were of other photos or other boxes."""
    sides = [f"{len(one.images):,} photos of {one.split} with {len(one.positives):,} boxes" for one in (first, second)]
    classes = [", ".join(one.labels) or "no class" for one in (first, second)]
    descriptions = [f"{side} ({own})" for side, own in zip(sides, classes, strict=True)]
    return (
        f"the two were evaluated on different ground truth, {descriptions[0]} and {descriptions[1]}: run "
        "`facade detect` and `facade evaluate` with both models on the same work folder, then compare those."
    )
