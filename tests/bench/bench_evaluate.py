"""All that `evaluate` counts, of 2,000,000 detections of 100,000 images, and the drawings that intervals come from.

Beside two loops for AP at one IoU: the tests', and the report's, which walks over the detections with PyTorch.

python tests/bench/bench_evaluate.py [IMAGES]
"""

import sys
import time

import numpy as np
import pyarrow as pa
import torch
from bench_metrics import PLAIN, draw, plain, pycocotools, timed
from torchvision.ops import box_iou

from pipeline.stages.evaluate.bootstrap import bootstrap_aps, bootstrap_counts, rank_classes
from pipeline.stages.evaluate.data import EvaluationData
from pipeline.stages.evaluate.scores import score_rows
from pipeline.stages.evaluate.tables import evaluate_images
from ssd import DetectionArrays, GroundTruthArrays, match_arrays, voc_ap

CLASSES = ("building", "window", "door")
DRAWN = 20
REPORTED = 418  # the report's photos: its loop looks through all truths for each detection, so that more take longer


def judged_of(images: int) -> EvaluationData:
    """Return drawn rows as if they were read from tables."""
    detections, truths = draw(images)
    table = pa.table(
        {
            "image_id": [f"drawn/{n:06d}" for n in range(images)],
            "uri": [""] * images,
            "dataset": ["drawn"] * images,
            "split": ["test" if n % 2 else "val" for n in range(images)],
            "width": pa.array(np.full(images, 640, np.int32)),
            "height": pa.array(np.full(images, 480, np.int32)),
        }
    )
    ids = [pa.array([f"{kind}{n}" for n in range(len(rows))]) for kind, rows in (("d", detections), ("b", truths))]
    return EvaluationData(table, CLASSES, detections, ids[0], truths, ids[1])


def report_ap(detections: DetectionArrays, truths: GroundTruthArrays, label: int) -> float:
    """Return a class's AP at .5 in 11 points, detection by detection with tensors, as the report counted it."""
    ours = torch.from_numpy(truths.labels == label)
    images, boxes = torch.from_numpy(truths.images)[ours], torch.from_numpy(truths.boxes)[ours]
    difficult, seen = torch.from_numpy(truths.ignore)[ours], torch.zeros(len(boxes), dtype=torch.bool)
    theirs = torch.from_numpy(detections.labels == label)
    order = torch.from_numpy(detections.scores)[theirs].sort(descending=True, stable=True).indices
    places, found = (
        torch.from_numpy(detections.images)[theirs][order],
        torch.from_numpy(detections.boxes)[theirs][order],
    )
    right, wrong = torch.zeros(len(found)), torch.zeros(len(found))
    for one in range(len(found)):
        here = images == places[one]
        if not here.any():
            wrong[one] = 1
            continue
        overlap, best = box_iou(found[one : one + 1], boxes[here])[0].max(dim=0)
        truth = torch.arange(len(boxes))[here][best]
        if overlap.item() < 0.5:
            wrong[one] = 1
        elif not difficult[truth]:
            (wrong if seen[truth] else right)[one] = 1
            seen[truth] = True
    right, wrong = right.cumsum(0), wrong.cumsum(0)
    precision, recall = right / (right + wrong + 1e-10), right / (~difficult).sum()
    best_at = [
        precision[recall >= point].max().item() if (recall >= point).any() else 0.0
        for point in torch.arange(0, 1.1, 0.1)
    ]
    return sum(best_at) / len(best_at)


def reported(images: int) -> float:
    """Return the seconds an image of the report's loop, whose figures must be ours."""
    detections, truths = draw(images)
    start = time.perf_counter()
    aps = [report_ap(detections, truths, label) for label in range(1, truths.classes)]
    seconds = time.perf_counter() - start
    np.testing.assert_allclose(aps, voc_ap(match_arrays(detections, truths), 0.5, 11).by_label[1:], atol=0.001)
    return seconds / images


def main(images: int) -> None:
    print("| what | seconds | peak so far |")
    print("| --- | --- | --- |")
    judged, _ = timed("drawing the rows", lambda: judged_of(images))
    _, seconds = timed("all protocols, sizes and shapes", lambda: score_rows(judged, 0))
    timed("all tables of `evaluate`, without intervals", lambda: evaluate_images(judged, "model", 0))
    classes = rank_classes(match_arrays(judged.detections, judged.truths), 0.5, images)
    weights = bootstrap_counts(images, DRAWN)
    timed(f"{DRAWN} drawings of AP at .5", lambda: [bootstrap_aps(one, weights) for one in classes])
    each = seconds / images
    print(f"\nAll protocols {1e6 * each:.0f} us an image")
    loops = {"the report's loop, one IoU": reported(REPORTED), "the tests' loop, one IoU": plain(PLAIN)}
    for name, loop in (loops | {"pycocotools": pycocotools(2000)}).items():
        print(f"{name}: {1e6 * loop:.0f} us an image, {loop / each:.1f} times")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
