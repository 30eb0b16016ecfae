"""`facade demo`: generate synthetic streets, run all stages on them, and compare boxes from masks with the exact ones.

The synthetic dataset is indexed twice: with its masks, which `extract` turns into boxes, and with its exact boxes, the
ground truth.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from pipeline.datasets.synthetic.cards import generate_dataset
from pipeline.execution.runner import Context, combined_outcome_json
from pipeline.stages import STAGES
from pipeline.stages.extract.box_agreement import boxes_by_image, measure_agreement
from pipeline.storage.lock import locked
from pipeline.workflow import RunDataset, run_stages

__all__ = ["run"]

MIN_TRAINING_IMAGES: Final = 100
# Stages that need a trained model.
MODEL_STAGES: Final = ("train", "detect", "evaluate")
CLASSES = ("building", "window", "door")
EXACT = ("drawn_boxes",)  # of the two datasets, whose photos are the same
SETTINGS: Final = {
    "extract": {"bridge": 0.03},
    "priors": {"datasets": EXACT},
    "train": {"preset": "demo", "datasets": EXACT},
    "detect": {"datasets": EXACT},
}


def run(context: Context, out: Path, images: int, seed: int) -> dict[str, Any]:
    """Run the demo; return the command's line of JSON."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    streets = out / "drawn" / f"seed{seed}_{images}"
    with locked(out):
        cards = generate_dataset(context, streets, images, seed)
        datasets = [
            RunDataset(card=str(streets / f"{card.name}.toml"), root=str(streets.absolute())) for card, _ in cards
        ]
        trains = images >= MIN_TRAINING_IMAGES
        stages = [name for name in STAGES if trains or name not in MODEL_STAGES]
        outcomes = run_stages(context, SETTINGS, datasets, stages)
        log_agreement(context)
        if not trains:
            context.log(f"train: {images} photos are too few to train on; generate {MIN_TRAINING_IMAGES} or more")
    _log_results(context, out / "work", trains)
    return combined_outcome_json("demo", outcomes, time.monotonic() - started)


def log_agreement(context: Context) -> None:
    """Log how well the boxes made from masks agree with the exact ones."""
    folder = context.folder("extract")
    detected = folder.read("boxes", "drawn")
    exact = folder.read("boxes", "drawn_boxes")
    context.log("boxes from masks compared with the exact ones, at IoU .5 (they differ behind trees and posts):")
    for label in CLASSES:
        result = measure_agreement(boxes_by_image(detected, label), boxes_by_image(exact, label))
        context.log(
            f"  {label:9s} {result.num_ground_truths:5d} exact, {result.num_detections:5d} from masks, "
            f"recall {result.recall(0.5):.3f}, precision {result.precision(0.5):.3f}"
        )


def _log_results(context: Context, work: Path, trained: bool) -> None:
    context.log(f"open       {work / 'report' / 'index.html'} in a browser: all results on one page")
    context.log(f"look at    {work / 'extract' / 'previews' / 'drawn.jpg'}")
    if trained:
        context.log(f"and at     {work / 'detect' / 'previews'}: detections on streets that were not used in training")
        context.log(f"errors in  {work / 'evaluate' / 'previews'}")
    context.log(f"figures in {work / 'describe' / 'figures'}, and in those of priors and train")
    context.log(f"tables in  {work}, for example pandas.read_parquet('{work / 'extract' / 'boxes'}')")
