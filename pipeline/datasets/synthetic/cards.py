"""Drawn streets as a dataset: photos, masks and exact boxes in a folder, with a card of each kind of label."""

from __future__ import annotations

from pathlib import Path

from pipeline.datasets.card import Card, parse_card
from pipeline.datasets.synthetic import BUILDING_PARTS, NAMES, write_dataset
from pipeline.execution.parallel import WorkerConfig
from pipeline.execution.runner import Context
from pipeline.storage.files import write_bytes

__all__ = ["BOX_CARD", "generate_dataset", "mask_card"]

MIN_IMAGES_FOR_WORKERS = 50
MASK_CARD = """\
name = "drawn"
title = "Drawn street facades, exact class masks"
source = "facade draw"
licence = "Apache-2.0"

kind = "index_mask"
images = "photos/{id}.jpg"
annotations = "masks/{id}.png"

labelled_classes = ["building", "window", "door"]
occluders = ["vegetation", "car", "post"]

[legend]
%s

[merge_into]
building = [%s]

[minimum]
building = { pixels = 256, share = 0.005 }
"""
BOX_CARD = """\
name = "drawn_boxes"
title = "Drawn street facades, exact boxes"
source = "facade draw"
licence = "Apache-2.0"

kind = "yolo"
images = "photos/{id}.jpg"
annotations = "boxes/{id}.txt"

labelled_classes = ["building", "window", "door"]

[legend]
0 = "building"
1 = "window"
2 = "door"
"""


def generate_dataset(context: Context, folder: Path, images: int, seed: int) -> list[tuple[Card, str]]:
    """Draw streets into a folder, with a card of their masks and one of their exact boxes; return the two cards."""
    progress = context.make_progress("draw", images)
    # Few drawings take less time than workers take to start.
    workers = context.workers if images >= MIN_IMAGES_FOR_WORKERS else WorkerConfig(count=0)
    write_dataset(
        folder,
        images,
        seed,
        progress=lambda done: progress.advance(done - progress.done),
        mapper=lambda function, items: context.pool.map_items(function, items, workers),
    )
    cards = []
    for text in (mask_card(), BOX_CARD):
        card = parse_card(text, "of drawings")
        write_bytes(folder / f"{card.name}.toml", text.encode(), context.disk_retry_seconds)
        cards.append((card, text))
    return cards


def mask_card() -> str:
    """Return the card of the drawn masks."""
    names = {name: "building" if name == "wall" else name for name in NAMES}
    legend = "\n".join(f'{index} = "{names[name]}"' for index, name in enumerate(NAMES))
    parts = ", ".join(f'"{name}"' for name in BUILDING_PARTS if name != "wall")
    return MASK_CARD % (legend, parts)
