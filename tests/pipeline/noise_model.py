"""Drawn facades with detections from a stated noise model, so that what is wrong is known.

Of the objects 90 % are found, each box off by 4 % of its sides; of the found ones 5 % are found twice, 4 % as the
other class of windows and doors, 5 % with a box that overlaps by .2 to .45. A tenth of all detections are of nothing.
Scores of objects are drawn from the beta distribution (12, 3), those of nothing from (2, 8).
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa

from pipeline.datasets.synthetic import draw_scene
from pipeline.stages.evaluate.data import EvaluationData
from ssd import DetectionArrays, GroundTruthArrays

CLASSES = ("building", "window", "door")
CLASS_SWAPS = {2: 3, 3: 2}
SIDES = (200, 150)
SCALE = 4  # drawn small, which is fast, and taken for large


@dataclass(frozen=True)
class Noise:
    """The shares of the model."""

    recall: float = 0.9
    jitter: float = 0.04
    duplicates: float = 0.05
    swaps: float = 0.04
    poor_boxes: float = 0.05
    false_positives: float = 0.1


@dataclass(frozen=True)
class NoisyEvaluation:
    """What was judged, and the kind that each detection was planted as (N,), with the truth that it is of, or -1."""

    data: EvaluationData
    outcomes: np.ndarray
    ground_truth_rows: np.ndarray


@lru_cache
def street_boxes(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images (G,), labels (G,) and boxes (G, 4) of drawn streets."""
    found = [(n, box) for n in range(count) for box in draw_scene(n, *SIDES).boxes]
    boxes = np.array([[box.xmin, box.ymin, box.xmax, box.ymax] for _, box in found], np.float64) * SCALE
    labels = np.array([1 + CLASSES.index(box.label) for _, box in found])
    return np.array([n for n, _ in found]), labels, boxes


def ious_with(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU (N,) of a box with others (N, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    both = np.maximum(sides, 0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return both / (areas - both)


def make_noisy_evaluation(
    count: int, seed: int, noise: Noise | None = None, splits: tuple[str, ...] = ("val", "test")
) -> NoisyEvaluation:
    """Return so many streets, dealt to the splits in turn, with detections."""
    noise, generator = noise or Noise(), np.random.default_rng(seed)
    images, labels, boxes = street_boxes(count)
    rows: list[tuple[int, int, float, np.ndarray, str, int]] = []

    def near(box: np.ndarray, others: np.ndarray, low: float, high: float, spread: float, most: float) -> np.ndarray:
        """Return a box that overlaps another one by this IoU, and others by less."""
        while True:
            sides = np.tile(box[2:] - box[:2], 2)
            moved = box + generator.normal(0, spread, 4) * sides
            fits = (moved[2:] - moved[:2] > 1).all() and low <= ious_with(moved, box[None])[0] <= high
            if fits and (not len(others) or ious_with(moved, others).max() < most):
                return moved

    for row, (image, label, box) in enumerate(zip(images, labels, boxes, strict=True)):
        if generator.random() > noise.recall:
            continue
        score, dice = generator.beta(12, 3), generator.random()
        same = boxes[(images == image) & (labels == label) & (np.arange(len(boxes)) != row)]
        if dice < noise.swaps and label in CLASS_SWAPS:
            of_other = boxes[(images == image) & (labels == CLASS_SWAPS[label])]
            moved = near(box, of_other, 0.6, 1, noise.jitter, 0.5)
            rows.append((image, CLASS_SWAPS[label], score, moved, "class", row))
        elif dice < noise.swaps + noise.poor_boxes:
            rows.append((image, label, score, near(box, same, 0.2, 0.45, 0.3, 0.15), "localisation", row))
        else:
            rows.append((image, label, score, near(box, same, 0.6, 1, noise.jitter, 0.5), "correct", row))
            if generator.random() < noise.duplicates:
                moved = near(box, same, 0.6, 1, noise.jitter, 0.5)
                rows.append((image, label, score * generator.uniform(0.3, 0.95), moved, "duplicate", row))
    wanted = round(noise.false_positives * len(rows) / (1 - noise.false_positives))
    while wanted:
        image, pattern = generator.integers(count), generator.integers(len(boxes))
        sides = (boxes[pattern, 2:] - boxes[pattern, :2]) * generator.uniform(0.8, 1.2)
        start = generator.uniform(0, 1, 2) * (np.array(SIDES) * SCALE - sides).clip(1)
        box = np.concatenate([start, start + sides])
        if not (images == image).any() or ious_with(box, boxes[images == image]).max() < 0.09:
            rows.append((image, labels[pattern], generator.beta(2, 8), box, "background", -1))
            wanted -= 1
    return NoisyEvaluation(
        make_evaluation_data(count, (images, labels, boxes), [row[:4] for row in rows], splits),
        np.array([row[4] for row in rows]),
        np.array([row[5] for row in rows]),
    )


def make_evaluation_data(
    count: int, ground_truths: tuple[np.ndarray, ...], detection_rows: list[tuple], splits: tuple[str, ...]
) -> EvaluationData:
    """Return truths and detections as if they were read from tables."""
    images, labels, boxes = ground_truths
    table = pa.table(
        {
            "image_id": [f"drawn/{n:05d}" for n in range(count)],
            "uri": [""] * count,
            "dataset": ["drawn"] * count,
            "split": [splits[n % len(splits)] for n in range(count)],
            "width": pa.array([SIDES[0] * SCALE] * count, pa.int32()),
            "height": pa.array([SIDES[1] * SCALE] * count, pa.int32()),
        }
    )
    detections = DetectionArrays(
        np.array([row[0] for row in detection_rows], np.int64),
        np.array([row[1] for row in detection_rows], np.int64),
        np.array([row[2] for row in detection_rows], np.float32),
        np.array([row[3] for row in detection_rows], np.float32).reshape(-1, 4),
    )
    return EvaluationData(
        table,
        CLASSES,
        detections,
        pa.array([f"d{n}" for n in range(len(detection_rows))]),
        GroundTruthArrays(images, labels, boxes.astype(np.float32), 1 + len(CLASSES), np.zeros(len(boxes), np.bool_)),
        pa.array([f"b{n}" for n in range(len(boxes))]),
    )


def delete_ground_truths(evaluation: NoisyEvaluation, deleted: np.ndarray) -> EvaluationData:
    """Return the judged streets with some truths deleted."""
    kept, truths = np.setdiff1d(np.arange(len(evaluation.data.ground_truths)), deleted), evaluation.data.ground_truths
    rows = GroundTruthArrays(
        truths.images[kept], truths.labels[kept], truths.boxes[kept], truths.classes, np.zeros(len(kept), np.bool_)
    )
    return replace(evaluation.data, ground_truths=rows, box_ids=evaluation.data.box_ids.take(pa.array(kept)))
