"""At which score to believe a detector: thresholds of each class, and scores that say how many objects there are.

Scores are calibrated so that their sum over a photo is the number of objects to expect in it. From that follows the
choice for each photo: the sum, rounded, of its best detections of a class. Both are fitted on val (`operating_fit`) and
are in `operating.json` in the bundle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.errors import FacadeError

__all__ = [
    "DEFAULT_THRESHOLD",
    "OPERATING_POINT_FILE",
    "ClassPoint",
    "OperatingPoint",
    "load_operating_point",
    "round_half_up",
]

OPERATING_POINT_FILE: Final = "operating.json"
FORMAT: Final = 2
DEFAULT_THRESHOLD: Final = 0.5  # score from which on a class that was not fitted is chosen

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ClassPoint:
    """Threshold and calibration of one class.

    Attributes:
        threshold: the score with the best F1, with precision, recall and f1 there.
        count_threshold: the score above which the number of detections is nearest to that of objects, photo by photo.
        use_count_calibration: whether each photo's selection follows from its calibrated probabilities, or is all above
            `count_threshold`: whichever counted better on photos that neither was fitted to.
        scores: rising scores, and in `probabilities` the calibrated probability of each.
    """

    threshold: float
    precision: float
    recall: float
    f1: float
    count_threshold: float
    use_count_calibration: bool
    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def probability(self, scores: npt.NDArray[Any]) -> Floats:
        """Return the calibrated probabilities of scores."""
        probabilities: Floats = np.interp(scores, self.scores, self.probabilities)
        return probabilities


@dataclass(frozen=True)
class OperatingPoint:
    """How to read a model's scores.

    Attributes:
        model: the bundle's digest.
        photos: how many it was fitted on.
        split: theirs.
        classes: by name.
    """

    model: str
    photos: int
    split: str
    classes: Mapping[str, ClassPoint]

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        return (json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n").encode()

    @property
    def digest(self) -> str:
        """What it says, in short."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def apply(
        self, names: npt.NDArray[Any], images: npt.NDArray[Any], scores: npt.NDArray[Any]
    ) -> tuple[Floats, Bools]:
        """Return the probabilities of detections, and which are selected: of each class as many as a photo should have.

        A class that was not fitted has no probability (NaN), and what scores half is chosen.
        """
        labels, probabilities = names, np.full(len(scores), np.nan)
        chosen = np.asarray(scores) >= DEFAULT_THRESHOLD
        for name, point in self.classes.items():
            rows = np.flatnonzero(labels == name)
            rows = rows[np.lexsort((-scores[rows], images[rows]))]
            probabilities[rows] = point.probability(scores[rows])
            _, first, own = np.unique(images[rows], return_index=True, return_inverse=True)
            numbers = round_half_up(np.bincount(own, probabilities[rows]))
            best = np.arange(len(rows)) - first[own] < numbers[own]
            chosen[rows] = best if point.use_count_calibration else scores[rows] >= point.count_threshold
        return probabilities, chosen


def load_operating_point(folder: Path, model: str) -> OperatingPoint | None:
    """Load the operating point of a bundle, None if there is none; that of another model is refused."""
    path = folder / OPERATING_POINT_FILE
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_bytes())
        if data["format"] > FORMAT:
            raise FacadeError(f"{path} was written by a newer facade-ssd; update this one.")
        if data["format"] < FORMAT:
            raise FacadeError(f"{path} was written by facade-ssd 0.1; remove it, or run `facade evaluate` again.")
        classes = {name: ClassPoint(**_parse_class_point(point)) for name, point in data["classes"].items()}
        found = OperatingPoint(data["model"], int(data["photos"]), data["split"], classes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FacadeError(f"{path} is corrupt ({error}); remove it, or run `facade evaluate` again.") from None
    if found.model != model:
        raise FacadeError(f"{path} was fitted to another model; remove it, or run `facade evaluate` again.")
    return found


def _parse_class_point(point: Mapping[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {key: float(value) for key, value in point.items() if not isinstance(value, list)}
    own["use_count_calibration"] = bool(own["use_count_calibration"])
    own |= {key: tuple(map(float, value)) for key, value in point.items() if isinstance(value, list)}
    if len(own["scores"]) != len(own["probabilities"]) or not own["scores"]:
        raise ValueError("scores and probabilities are of different lengths")
    return own


def round_half_up(number: Any) -> Any:
    """Return the nearest whole number, of a half the larger."""
    return np.floor(np.asarray(number) + 0.5).astype(np.int64)
