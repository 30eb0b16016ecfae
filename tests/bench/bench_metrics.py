"""Average precision of 2,000,000 detections in 100,000 images, VOC's and COCO's.

VOC's is compared with a plain loop over the detections of 500 images, COCO's with pycocotools on 2,000 images.

python tests/bench/bench_metrics.py
"""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from ssd import COCO_IOUS, DetectionArrays, GroundTruthArrays, coco_ap, match_arrays, voc_ap

IMAGES, FOUND, TRUE, CLASSES = 100_000, 20, 10, 4
PLAIN, PYCOCOTOOLS = 500, 2000
MOST = (100, 500)
ROOT = Path(__file__).resolve().parents[2]
Result = TypeVar("Result")


def draw(images: int, seed: int = 0) -> tuple[DetectionArrays, GroundTruthArrays]:
    """Three of four detections lie near a truth of their class, one anywhere; rows stand image by image."""
    rng = np.random.default_rng(seed)
    boxes = rng.random((images * TRUE, 4), dtype=np.float32)
    boxes[:, :2] *= 400
    boxes[:, 2:] = boxes[:, :2] + 16 + boxes[:, 2:] * 96
    labels, at = rng.integers(1, CLASSES, images * TRUE), np.repeat(np.arange(images), TRUE)
    truths = GroundTruthArrays(at, labels, boxes, CLASSES, rng.random(len(at)) < 0.1)
    found = np.repeat(np.arange(images), FOUND)
    near = found * TRUE + rng.integers(0, TRUE, len(found))
    far = np.flatnonzero(rng.random(len(found)) < 0.25)
    shifted = boxes[near]
    shifted += 6 * rng.standard_normal(shifted.shape, dtype=np.float32)
    shifted[far] = boxes[rng.integers(0, len(boxes), len(far))]
    return DetectionArrays(found, labels[near], rng.random(len(found), dtype=np.float32), shifted), truths


def timed(name: str, work: Callable[[], Result]) -> tuple[Result, float]:
    start = time.perf_counter()
    result = work()
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"| {name} | {seconds:.2f} s | {peak:.2f} GB |", flush=True)
    return result, seconds


def plain(images: int) -> float:
    """Return the seconds an image of the loop that the tests compare with."""
    sys.path.insert(0, str(ROOT))
    from tests.ssd.metrics.test_voc import plain_voc

    detections, truths = draw(images)
    start = time.perf_counter()
    plain_voc(detections, truths, 0.5)
    return (time.perf_counter() - start) / images


def pycocotools(images: int) -> float:
    """Return the seconds an image of pycocotools, with the dicts that it is given."""
    sys.path.insert(0, str(ROOT))
    from tests.ssd.metrics.test_coco import pycocotools_aps

    detections, truths = draw(images)
    start = time.perf_counter()
    pycocotools_aps(detections, truths, MOST)
    return (time.perf_counter() - start) / images


def main() -> None:
    print("| what | seconds | peak so far |")
    print("| --- | --- | --- |")
    (detections, truths), _ = timed("drawing the rows", lambda: draw(IMAGES))
    matches, seconds = timed("matching", lambda: match_arrays(detections, truths))
    _, more = timed("AP at .5, 11 points", lambda: voc_ap(matches, 0.5, 11))
    timed("AP at .5, all points", lambda: voc_ap(matches, 0.5))
    timed("AP at .5:.95, all points", lambda: [voc_ap(matches, iou) for iou in COCO_IOUS])
    _, coco = timed("COCO's AP, AP50 and AP75, of 100 and of 500 detections", lambda: coco_ap(detections, truths, MOST))
    order, names = np.random.default_rng(1).permutation(len(detections)), ("images", "labels", "scores", "boxes")
    mixed = DetectionArrays(*(getattr(detections, name)[order] for name in names))
    timed("matching, detections in any order", lambda: match_arrays(mixed, truths))
    each, loop = (seconds + more) / IMAGES * 1e6, plain(PLAIN) * 1e6
    print(f"\nAP at .5: {each:.0f} us an image; the plain loop {loop:.0f} us an image, {loop / each:.0f} times.")
    each, loop = coco / IMAGES * 1e6, pycocotools(PYCOCOTOOLS) * 1e6
    print(f"COCO's: {each:.0f} us an image; pycocotools {loop:.0f} us an image, {loop / each:.0f} times.")


if __name__ == "__main__":
    main()
