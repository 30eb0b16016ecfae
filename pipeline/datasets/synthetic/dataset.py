"""A folder of drawings in the form in which an annotated dataset comes."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.datasets.synthetic.scene import Scene, draw_scene
from pipeline.errors import UsageError
from pipeline.storage.files import write_bytes

CLASSES: tuple[str, ...] = ("building", "window", "door")
SEED_STRIDE = 1_000_003  # image i of seed s is drawn from s * STRIDE + i, so that seeds do not share images
# fmt: off
PALETTE = (
    0, 0, 0, 160, 120, 90, 0, 80, 255, 255, 170, 0, 128, 0, 255, 170, 0, 0,
    110, 200, 255, 120, 120, 120, 0, 170, 0, 255, 255, 0, 255, 0, 170,
)
# fmt: on


# Applies a function to items, perhaps in other processes, and yields the results in any order.
Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


def write_dataset(
    folder: Path,
    count: int,
    seed: int = 0,
    width: int = 640,
    height: int = 480,
    progress: Callable[[int], None] = lambda _: None,
    mapper: Mapper = map,
) -> None:
    """Write photos, masks, boxes and truth of `count` drawings; what is already there is left alone.

    `progress` is called with the number of drawings that are complete, whenever it grows.
    """
    for part in ("photos", "masks", "boxes"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    _write(folder / "classes.txt", "".join(f"{name}\n" for name in CLASSES).encode())
    truth = _read_ground_truth(folder / "truth.jsonl")
    known = len(truth)
    missing: list[tuple[str, int]] = []
    for index in range(count):
        name, image_seed = f"facade_{index:05d}", seed * SEED_STRIDE + index
        _check(truth.get(name), folder, image_seed, width, height)
        if name not in truth or not all(path.exists() for path in _paths(folder, name)):
            missing.append((name, image_seed))
    complete = count - len(missing)
    if complete:
        progress(complete)
    try:
        for line in mapper(partial(_write_scene, folder, width, height), missing):
            truth[line["name"]] = line
            complete += 1
            progress(complete)
    finally:  # an interrupted call must not have to draw again what it wrote
        if len(truth) != known:
            _write_ground_truth(folder / "truth.jsonl", truth)


def yolo_lines(scene: Scene) -> str:
    """Return the boxes as YOLO text: class cx cy w h, shares of the image that give back each integer pixel."""
    height, width = scene.mask.shape
    lines = []
    for box in scene.boxes:
        across, down = (box.xmin + box.xmax) / 2 / width, (box.ymin + box.ymax) / 2 / height
        wide, tall = (box.xmax - box.xmin) / width, (box.ymax - box.ymin) / height
        lines.append(f"{CLASSES.index(box.label)} {across:.8f} {down:.8f} {wide:.8f} {tall:.8f}\n")
    return "".join(lines)


def _paths(folder: Path, name: str) -> tuple[Path, Path, Path]:
    return folder / f"photos/{name}.jpg", folder / f"masks/{name}.png", folder / f"boxes/{name}.txt"


def _check(line: dict[str, Any] | None, folder: Path, seed: int, width: int, height: int) -> None:
    if line is not None and (line["seed"], line["width"], line["height"]) != (seed, width, height):
        raise UsageError(
            f"{folder / 'truth.jsonl'}: {line['name']} was drawn from seed {line['seed']} at {line['width']}x"
            f"{line['height']}, not from seed {seed} at {width}x{height}; give another folder or the same numbers."
        )


def _write_scene(folder: Path, width: int, height: int, name_and_seed: tuple[str, int]) -> dict[str, Any]:
    name, seed = name_and_seed
    scene = draw_scene(seed, width, height)
    photo, mask, boxes = _paths(folder, name)
    _write(photo, _jpeg(scene))
    _write(mask, _png(scene))
    _write(boxes, yolo_lines(scene).encode())
    line = {"name": name, "seed": seed, "width": width, "height": height}
    return line | {
        "buildings": [asdict(building) for building in scene.buildings],
        "boxes": [asdict(box) for box in scene.boxes],
    }


def _jpeg(scene: Scene) -> bytes:
    file = BytesIO()
    Image.fromarray(scene.photo).save(file, "JPEG", quality=scene.jpeg_quality)
    return file.getvalue()


def _png(scene: Scene) -> bytes:
    file = BytesIO()
    picture = Image.fromarray(scene.mask)
    picture.putpalette(PALETTE)
    picture.save(file, "PNG", compress_level=2)
    return file.getvalue()


def _read_ground_truth(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["name"]: line for line in lines}


def _write_ground_truth(path: Path, ground_truth: dict[str, dict[str, Any]]) -> None:
    lines = [json.dumps(ground_truth[name]) + "\n" for name in sorted(ground_truth)]
    _write(path, "".join(lines).encode(), overwrite=True)


def _write(path: Path, data: bytes, overwrite: bool = False) -> None:
    """Write a file unless it is there."""
    if overwrite or not path.exists():
        write_bytes(path, data)
