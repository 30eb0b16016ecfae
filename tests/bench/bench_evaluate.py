"""All that `evaluate` counts, of 2,000,000 detections of 100,000 images, and the drawings that intervals come from.

python tests/bench/bench_evaluate.py [IMAGES]
"""

import sys

import numpy as np
import pyarrow as pa
from bench_metrics import PLAIN, draw, plain, pycocotools, timed

from pipeline.evaluation import evaluate_images
from pipeline.judged import Judged
from pipeline.resampled import drawings, ranked, resampled_aps
from pipeline.scoring import score_rows
from ssd import match_rows

CLASSES = ("building", "window", "door")
DRAWN = 20


def judged_of(images: int) -> Judged:
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
    return Judged(table, CLASSES, detections, ids[0], truths, ids[1])


def main(images: int) -> None:
    print("| what | seconds | peak so far |")
    print("| --- | --- | --- |")
    judged, _ = timed("drawing the rows", lambda: judged_of(images))
    _, seconds = timed("all protocols, sizes and shapes", lambda: score_rows(judged, 0))
    timed("all tables of `evaluate`, without intervals", lambda: evaluate_images(judged, "model", 0))
    classes = ranked(match_rows(judged.detections, judged.truths), 0.5, images)
    weights = drawings(images, DRAWN)
    timed(f"{DRAWN} drawings of AP at .5", lambda: [resampled_aps(one, weights) for one in classes])
    each, loop, theirs = seconds / images, plain(PLAIN), pycocotools(2000)
    print(
        f"\n{1e6 * each:.0f} us an image; the plain loop at one IoU {1e6 * loop:.0f}, {loop / each:.0f} times; ", end=""
    )
    print(f"pycocotools {1e6 * theirs:.0f}, {theirs / each:.1f} times.")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
