"""CMP, five random 70/30 splits by image: fitted priors compared with the paper's, evaluated on the 30 %.

python tests/bench/bench_priors.py SHARED_DATA
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipeline.datasets.card import resolve_card
from pipeline.execution.runner import Context
from pipeline.stages.extract import stage as extract
from pipeline.stages.index import stage as index
from pipeline.stages.priors.coverage import GroundTruthBoxes, coverage_score, prior_coverage
from pipeline.stages.priors.fitting import GRIDS, Grid, fit_greedy
from ssd import PriorSpec, preset

CLASSES = ("building", "window", "door")
STRIDE_4 = Grid(300, ((75, 4.0, 4), *GRIDS[300].maps))


def cmp_truths(root: Path, work: Path) -> GroundTruthBoxes:
    context, (card, text) = Context(work, tracking="off"), resolve_card("cmp")
    index.run(context, index.IndexConfig(), card, text, str(root / "cmp"))
    extract.run(context, extract.ExtractConfig(previews=0))
    images = {row["image_id"]: (n, row) for n, row in enumerate(context.folder("index").read("images").to_pylist())}
    boxes = context.folder("extract").read("boxes").to_pylist()
    sizes = [[images[b["image_id"]][1]["width"], images[b["image_id"]][1]["height"]] * 2 for b in boxes]
    xyxy = np.array([[b["xmin"], b["ymin"], b["xmax"], b["ymax"]] for b in boxes]) / sizes
    labels = np.array([CLASSES.index(b["label"]) for b in boxes])
    return GroundTruthBoxes(CLASSES, xyxy, labels, np.array([images[b["image_id"]][0] for b in boxes]))


def held_out(name: str, given: GroundTruthBoxes, make: Callable[[GroundTruthBoxes], PriorSpec]) -> None:
    figures, seconds, scores, count = [], 0.0, [], 0
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(given.images.max() + 1)
        train = np.isin(given.images, order[: int(0.7 * len(order))])
        start = time.perf_counter()
        spec = make(given.select(train))
        seconds, count = seconds + time.perf_counter() - start, spec.count
        rows = prior_coverage(spec, given.select(~train))
        scores.append(coverage_score(rows))
        figures.append([[row[key] for key in ("coverage_50", "positives", "share")] for row in rows])
    cells = [f"{covered:.3f}, {positives:.1f}, {share:.0%}" for covered, positives, share in np.mean(figures, axis=0)]
    print(f"| {name} ({count}) |", " | ".join(cells), f"| {np.mean(scores):.3f} | {seconds / 5:.1f} s |", flush=True)


def main(root: Path) -> None:
    with tempfile.TemporaryDirectory() as work:
        given = cmp_truths(root, Path(work))
    print("| priors (count) | " + " | ".join(CLASSES) + " | score | fit |")
    print("| --- | --- | --- | --- | --- | --- |")
    held_out("paper_coco", given, lambda _: preset("paper_coco"))
    held_out("greedy", given, lambda train: fit_greedy(GRIDS[300], train))
    held_out("greedy, stride-4 map", given, lambda train: fit_greedy(STRIDE_4, train))
    held_out("paper_512_coco", given, lambda _: preset("paper_512_coco"))
    held_out("greedy, SSD512 maps", given, lambda train: fit_greedy(GRIDS[512], train))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
