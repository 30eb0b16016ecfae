"""COCO JSON for tests: of the drawn set, and of one photo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NAMES = ["building", "window", "door"]
COCO_CARD = """\
name = "set"
title = ""
source = ""
licence = ""
kind = "coco"
images = "photos/{id}.jpg"
annotations = "all.json"
labelled_classes = ["building", "window", "door"]
[legend]
building = "building"
window = "window"
door = "door"
"""


class CocoFiles:
    """Writes COCO JSON, and the card of it."""

    file = "all.json"
    card = COCO_CARD

    def save(self, root: Path, content: object, file: str = file) -> None:
        """Write a file as it is given."""
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(json.dumps(content))

    def write(self, folder: Path, prefix: str = "") -> dict[str, Any]:
        """Write the drawn set's boxes, and return what was written."""
        lines = [json.loads(line) for line in (folder / "truth.jsonl").read_text().splitlines()]
        images, annotations = [], []
        for number, line in enumerate(lines, start=100):
            size = {"width": line["width"], "height": line["height"]}
            images.append({"id": number, "file_name": f"{prefix}{line['name']}.jpg", **size})
            for box in line["boxes"]:
                annotations.append({"id": len(annotations) + 1, "image_id": number, **self.to_annotation(box)})
        categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
        content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        self.save(folder, content)
        return content

    def to_annotation(self, box: dict[str, Any]) -> dict[str, Any]:
        """A drawn box as an annotation with a bbox and a polygon that say the same."""
        x, y, w, h = box["xmin"], box["ymin"], box["xmax"] - box["xmin"], box["ymax"] - box["ymin"]
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
        found = {"category_id": NAMES.index(box["label"]) + 1, "bbox": [x, y, w, h], "segmentation": [polygon]}
        return {**found, "area": w * h, "iscrowd": 0}

    def single_annotation(self, **annotation: Any) -> dict[str, Any]:
        """One image with one annotation."""
        return {
            "images": [{"id": 5, "file_name": "a.jpg", "width": 320, "height": 240}],
            "annotations": [{"id": 7, "image_id": 5, "category_id": 3, "bbox": [1, 2, 3, 4], **annotation}],
            "categories": [{"id": 3, "name": "window"}],
        }


@pytest.fixture(scope="session")
def coco() -> CocoFiles:
    """Writes COCO JSON."""
    return CocoFiles()
