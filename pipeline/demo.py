"""`facade demo`: draws streets, takes them through the pipeline, and says how well masks become boxes.

The drawn set is indexed twice: with its masks, which `extract` turns into boxes, and with its exact boxes, which are
the truth to compare with.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pipeline.datasets.synthetic.cards import draw
from pipeline.execution.runner import Context, nested_line
from pipeline.stages.describe import stage as describe
from pipeline.stages.detect import stage as detect
from pipeline.stages.detect.config import DetectConfig
from pipeline.stages.evaluate import stage as evaluate
from pipeline.stages.extract import stage as extract
from pipeline.stages.extract.box_agreement import agreement, boxes_by_image
from pipeline.stages.index import stage as index
from pipeline.stages.priors import stage as priors
from pipeline.stages.report import stage as report
from pipeline.stages.train import stage as train
from pipeline.stages.train.config import TrainConfig
from pipeline.storage.lock import locked

__all__ = ["run"]

# Photos below which no detector is trained.
ENOUGH = 100
CLASSES = ("building", "window", "door")


def run(context: Context, out: Path, images: int, seed: int) -> dict[str, Any]:
    """Return the demo's line: its stages' outcomes, and where to look."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    drawn = out / "drawn" / f"seed{seed}_{images}"
    with locked(out):
        stages = {}
        for card, text in draw(context, drawn, images, seed):
            stages[f"index {card.name}"] = index.run(context, index.IndexConfig(), card, text, str(drawn.absolute()))
        stages["extract"] = extract.run(context, extract.ExtractConfig(bridge=0.03))
        compare(context)
        stages["describe"] = describe.run(context, describe.DescribeConfig())
        # The exact boxes alone: every drawing is in the folder twice.
        stages["priors"] = priors.run(context, priors.PriorsConfig(datasets=("drawn_boxes",)))
        if images >= ENOUGH:
            stages["train"] = train.run(context, TrainConfig(preset="demo", datasets=("drawn_boxes",)))
            stages["detect"] = detect.run(context, DetectConfig(datasets=("drawn_boxes",)))
            stages["evaluate"] = evaluate.run(context, evaluate.EvaluateConfig())
        else:
            context.say(f"train: {images} photos are too few to learn from; draw {ENOUGH} or more")
        stages["report"] = report.run(context, report.ReportConfig())
    context.say(f"open       {out / 'work' / 'report' / 'index.html'} in a browser: all of it on one page")
    context.say(f"look at    {out / 'work' / 'extract' / 'drawings' / 'drawn.jpg'}")
    if "detect" in stages:
        context.say(
            f"and at     {out / 'work' / 'detect' / 'drawings'}, what the detector finds on streets it never saw"
        )
        context.say(f"what goes wrong is in {out / 'work' / 'evaluate' / 'drawings'}")
    context.say(f"figures in {out / 'work' / 'describe' / 'figures'}, and likewise of priors and train")
    context.say(f"tables in  {out / 'work'}, for example pandas.read_parquet('{out / 'work' / 'extract' / 'boxes'}')")
    return nested_line("demo", stages, time.monotonic() - started)


def compare(context: Context) -> None:
    """Say how the boxes made from masks agree with the exact ones."""
    folder = context.folder("extract")
    found, true = folder.read("boxes", "drawn"), folder.read("boxes", "drawn_boxes")
    context.say(
        "boxes from masks beside the exact ones, at IoU .5 (where they differ, a tree or a post stands in front):"
    )
    for label in CLASSES:
        result = agreement(boxes_by_image(found, label), boxes_by_image(true, label))
        context.say(
            f"  {label:9s} {result.true:5d} drawn, {result.found:5d} found, "
            f"recall {result.recall(0.5):.3f}, precision {result.precision(0.5):.3f}"
        )
