"""CMP: boxes made from masks compared with the boxes that people drew, by recipe, on all images.

python tests/bench/bench_masks_to_boxes.py SHARED_DATA
"""

import sys
import tempfile
from pathlib import Path

from pipeline.datasets.card import resolve_card
from pipeline.execution.runner import Context
from pipeline.stages.extract import stage as extract
from pipeline.stages.extract.box_agreement import Agreement, boxes_by_image, measure_agreement
from pipeline.stages.index import stage as index


def measure(root: Path, work: Path, recipe: str) -> dict[str, Agreement]:
    context = Context(work, tracking="off")
    for name in ("cmp", "cmp_xml"):
        card, text = resolve_card(name)
        index.run(context, index.IndexConfig(), card, text, str(root / "cmp"))
    extract.run(context, extract.ExtractConfig(recipe=recipe, previews=0))
    folder = context.folder("extract")
    found, true = folder.read("boxes", "cmp"), folder.read("boxes", "cmp_xml")
    return {
        label: measure_agreement(boxes_by_image(found, label), boxes_by_image(true, label))
        for label in ("window", "door", "building")
    }


def main(root: Path) -> None:
    print("| recipe | class | true | found | recall .5 | recall .75 | precision .5 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as work:
        for recipe in ("components", "epfl"):
            for label, result in measure(root, Path(work), recipe).items():
                figures = [f"{value:.4f}" for value in (result.recall(0.5), result.recall(0.75), result.precision(0.5))]
                print(
                    "|",
                    " | ".join([recipe, label, str(result.num_ground_truths), str(result.num_detections), *figures]),
                    "|",
                )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
