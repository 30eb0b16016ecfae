"""`facade demo`: draws streets, takes them through the pipeline, and says how well masks become boxes.

The drawn set is indexed twice: with its masks, which `extract` turns into boxes, and with its exact boxes, which are
the truth to compare with.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pipeline import calibrate, describe, detect, evaluate, extract, index, report, train
from pipeline.agreement import agreement, boxes_by_image
from pipeline.dataset import card_of
from pipeline.finding import DetectConfig
from pipeline.lock import locked
from pipeline.stage import Context, nested_line
from pipeline.synthetic import BUILDING_PARTS, NAMES, write_dataset
from pipeline.training_plan import TrainConfig

__all__ = ["run"]

# Photos below which no detector is trained.
ENOUGH = 100
CLASSES = ("building", "window", "door")
MASK_CARD = """\
name = "drawn"
title = "Drawn street facades, exact class masks"
source = "facade demo"
licence = "Apache-2.0"

kind = "index_mask"
images = "photos/{id}.jpg"
annotations = "masks/{id}.png"

labelled = ["building", "window", "door"]
occluders = ["vegetation", "car", "post"]

[legend]
%s

[unions]
building = [%s]

[minimum]
building = { pixels = 256, share = 0.005 }
"""
BOX_CARD = """\
name = "drawn_boxes"
title = "Drawn street facades, exact boxes"
source = "facade demo"
licence = "Apache-2.0"

kind = "yolo"
images = "photos/{id}.jpg"
annotations = "boxes/{id}.txt"

labelled = ["building", "window", "door"]

[legend]
0 = "building"
1 = "window"
2 = "door"
"""


def mask_card() -> str:
    """Return the card of the drawn masks."""
    names = {name: "building" if name == "wall" else name for name in NAMES}
    legend = "\n".join(f'{index} = "{names[name]}"' for index, name in enumerate(NAMES))
    parts = ", ".join(f'"{name}"' for name in BUILDING_PARTS if name != "wall")
    return MASK_CARD % (legend, parts)


def run(context: Context, out: Path, images: int, seed: int) -> dict[str, Any]:
    """Return the demo's line: its stages' outcomes, and where to look."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    drawn = out / "drawn" / f"seed{seed}_{images}"
    with locked(out):
        progress = context.progress("draw", images)
        write_dataset(drawn, images, seed, progress=lambda done: progress.advance(done - progress.done))
        stages = {}
        for text in (mask_card(), BOX_CARD):
            card = card_of(text, "of the demo")
            (drawn / f"{card.name}.toml").write_text(text, encoding="utf-8")
            stages[f"index {card.name}"] = index.run(context, index.IndexConfig(), card, text, str(drawn.absolute()))
        stages["extract"] = extract.run(context, extract.ExtractConfig(bridge=0.03))
        compare(context)
        stages["describe"] = describe.run(context, describe.DescribeConfig())
        # The exact boxes alone: every drawing is in the folder twice.
        stages["calibrate"] = calibrate.run(context, calibrate.CalibrateConfig(datasets=("drawn_boxes",)))
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
    context.say(f"figures in {out / 'work' / 'describe' / 'figures'}, and likewise of calibrate and train")
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
