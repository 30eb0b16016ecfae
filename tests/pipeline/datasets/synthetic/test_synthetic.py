"""The drawn street: the same bytes everywhere, and a truth that the mask proves."""

import hashlib
import json
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.datasets.synthetic import BUILDING_PARTS, NAMES, Scene, SyntheticBox, draw_scene, write_dataset

# Drawn with numpy 2.4.6, Pillow 13.0.0 and scipy 1.17.1 on x86-64. If only the photos' digest changes, the look
# changed and the truth still stands.
TRUTH_DIGEST = "e510b43158506fd0e79c79b95cc234f958bc4e7acac819228bd12e65e2d48394"
PHOTO_DIGEST = "4f2ded2da66887ac0717a4a05ef8f109f84fd684dab016194790af43f9998820"

PARTS = {"window": ("window",), "door": ("door",), "building": BUILDING_PARTS}
Edges = tuple[int, int, int, int]


@lru_cache(maxsize=256)
def small(seed: int, occluders: bool = True) -> Scene:
    """Return a drawing at 320x240, drawn once for all tests."""
    return draw_scene(seed, 320, 240, occluders=occluders)


def edges(box: SyntheticBox) -> Edges:
    """Return the box's xyxy pixels."""
    return box.xmin, box.ymin, box.xmax, box.ymax


def region(mask: NDArray[np.uint8], label: str) -> NDArray[np.bool_]:
    """Return where the mask shows anything of that label."""
    return np.isin(mask, [NAMES.index(name) for name in PARTS[label]])


def components(mask: NDArray[np.uint8], label: str) -> list[Edges]:
    """Return the bounds of the 8-connected components of a label."""
    numbered, _ = ndimage.label(region(mask, label), np.ones((3, 3)))
    found = ndimage.find_objects(numbered)
    return sorted((x.start, y.start, x.stop, y.stop) for y, x in found)


def assert_components_are_boxes(drawing: Scene) -> None:
    """Fail unless the 8-connected components of each label are exactly its boxes."""
    for label in PARTS:
        assert components(drawing.mask, label) == sorted(edges(b) for b in drawing.boxes if b.label == label)


def test_the_bytes_are_frozen() -> None:
    truth, photo = hashlib.sha256(), hashlib.sha256()
    for seed in range(8):
        drawing = small(seed)
        truth.update(drawing.mask.tobytes())
        truth.update(repr([(box.label, *edges(box), box.storey, box.column) for box in drawing.boxes]).encode())
        photo.update(drawing.photo.tobytes())
    assert truth.hexdigest() == TRUTH_DIGEST
    assert photo.hexdigest() == PHOTO_DIGEST


def test_a_seed_decides_everything() -> None:
    again, other = draw_scene(3, 320, 240), small(4)
    assert np.array_equal(again.photo, small(3).photo)
    assert np.array_equal(again.mask, small(3).mask)
    assert again.boxes == small(3).boxes
    assert not np.array_equal(again.photo, other.photo)


def test_occluders_change_nothing_behind_them() -> None:
    bare = small(3, occluders=False)
    same = bare.mask == small(3).mask
    front = np.isin(small(3).mask, [NAMES.index(name) for name in ("vegetation", "car", "post", "wall")])
    assert np.all(same | front)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (16, 16), (480, 640), (333, 517), (900, 100)])
def test_any_size(width: int, height: int) -> None:
    for seed in range(4):
        drawing = draw_scene(seed, width, height)
        assert drawing.photo.shape == (height, width, 3)
        assert drawing.mask.shape == (height, width)
        assert drawing.photo.dtype == drawing.mask.dtype == np.uint8
        assert drawing.mask.max() < len(NAMES)
        assert all(inside(box, width, height) for box in drawing.boxes)


@pytest.mark.parametrize(("seed", "width", "height"), [(-1, 64, 48), (0, 15, 48), (0, 64, 0)])
def test_impossible_requests_are_refused(seed: int, width: int, height: int) -> None:
    with pytest.raises(ValueError, match="cannot draw seed"):
        draw_scene(seed, width, height)


def inside(box: SyntheticBox, width: int, height: int) -> bool:
    """Return whether the box has an area and lies within the image."""
    return 0 <= box.xmin < box.xmax <= width and 0 <= box.ymin < box.ymax <= height


@pytest.mark.parametrize("seed", range(40))
def test_components_are_the_boxes_where_nothing_stands_in_front(seed: int) -> None:
    assert_components_are_boxes(small(seed, occluders=False))


def test_components_are_the_boxes_at_other_sizes() -> None:
    for seed, width, height in ((101, 640, 480), (102, 480, 640), (103, 256, 256), (104, 800, 300)):
        assert_components_are_boxes(draw_scene(seed, width, height, occluders=False))


def test_most_components_are_boxes_behind_occluders() -> None:
    agree = total = 0
    for seed in range(40):
        drawing = small(seed)
        for label in ("window", "door"):
            boxes = Counter(edges(b) for b in drawing.boxes if b.label == label)
            agree += sum((boxes & Counter(components(drawing.mask, label))).values())
            total += sum(boxes.values())
    assert agree > 0.85 * total


def test_every_labelled_pixel_is_in_a_box() -> None:
    for seed in range(20):
        drawing = small(seed)
        for label in PARTS:
            covered = np.zeros(drawing.mask.shape, bool)
            for box in drawing.boxes:
                if box.label == label:
                    covered[box.ymin : box.ymax, box.xmin : box.xmax] = True
            assert not np.any(region(drawing.mask, label) & ~covered)


def test_boxes_lie_within_the_image_and_say_whether_it_cuts_them() -> None:
    for seed in range(40):
        for box in small(seed).boxes:
            assert inside(box, 320, 240)
            assert box.truncated == (box.xmin == 0 or box.ymin == 0 or box.xmax == 320 or box.ymax == 240)
            assert 0 < box.visible <= 1
            assert box.label == "building" or box.visible >= 0.15


def test_windows_lie_in_the_grid_of_their_building() -> None:
    for seed in range(40):
        drawing = small(seed)
        slots = [(b.building, b.storey, b.column) for b in drawing.boxes if b.label != "building"]
        assert len(set(slots)) == len(slots)
        for building, storey, column in slots:
            grid = drawing.buildings[building]
            assert storey in range(grid.storeys)
            assert column in range(grid.columns)


def test_storeys_rise_and_columns_run_to_the_right() -> None:
    for seed in range(20):
        whole = [b for b in small(seed, occluders=False).boxes if b.label == "window" and b.visible > 0.9]
        at = {(b.building, b.storey, b.column): b for b in whole if b.storey is not None and b.column is not None}
        for (building, storey, column), box in at.items():
            right, above = at.get((building, storey, (column or 0) + 1)), at.get((building, (storey or 0) + 1, column))
            assert right is None or box.xmax < right.xmin
            assert above is None or box.ymin > above.ymax


def test_a_whole_building_shows_its_whole_grid() -> None:
    seen = 0
    for seed in range(40):
        drawing = small(seed, occluders=False)
        for index, grid in enumerate(drawing.buildings):
            whole = [b for b in drawing.boxes if b.building == index and b.label == "building" and not b.truncated]
            slots = {(b.storey, b.column) for b in drawing.boxes if b.building == index and b.label != "building"}
            if whole and all(b.visible > 0.9 for b in whole):
                seen += 1
                assert {storey for storey, _ in slots} >= set(range(1, grid.storeys))
                assert grid.storeys == 1 or {column for _, column in slots} == set(range(grid.columns))
    assert seen > 10


def test_the_photo_lies_on_the_mask() -> None:
    """Colours jump where a window begins, and less so four pixels from it."""
    for seed in range(12):
        drawing = small(seed, occluders=False)
        jumps = np.abs(np.diff(drawing.photo.astype(int).sum(axis=2), axis=1))
        border = np.diff(region(drawing.mask, "window").astype(int), axis=1) != 0
        shifted = np.roll(border, 4, axis=1)
        if border.sum() > 200:
            assert jumps[border].mean() > jumps[shifted].mean()


def test_seeds_vary() -> None:
    storeys, labels, sides, counts = set(), set(), [], set()
    for seed in range(60):
        drawing = small(seed)
        storeys |= {grid.storeys for grid in drawing.buildings}
        labels |= {box.label for box in drawing.boxes}
        counts.add(len(drawing.buildings))
        sides += [min(b.xmax - b.xmin, b.ymax - b.ymin) for b in drawing.boxes if b.label == "window"]
    assert storeys == set(range(1, 9))
    assert labels == {"building", "window", "door"}
    assert counts == {1, 2, 3}
    assert min(sides) <= 6
    assert max(sides) >= 40


def test_windows_span_the_sizes_of_real_photos() -> None:
    longest = [max(b.ymax - b.ymin for b in draw_scene(s).boxes if b.label == "window") for s in range(12)]
    assert min(longest) < 40
    assert 70 < max(longest) < 200


def test_a_dataset_is_written_once(tmp_path: Path) -> None:
    calls: list[int] = []
    write_dataset(tmp_path, 3, seed=5, width=160, height=120, progress=calls.append)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.*")}
    write_dataset(tmp_path, 3, seed=5, width=160, height=120)
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in tmp_path.rglob("*.*")}
    assert calls == [1, 2, 3]
    assert len(before) == 3 * 3 + 2
    assert before == after


def test_the_order_of_drawing_does_not_matter(tmp_path: Path) -> None:
    write_dataset(tmp_path / "one", 4, width=64, height=48)
    write_dataset(
        tmp_path / "other", 4, width=64, height=48, mapper=lambda function, items: map(function, reversed(items))
    )
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / part).rglob("*.*")} for part in ("one", "other")
    )
    assert one == other


def test_a_lost_file_comes_back(tmp_path: Path) -> None:
    write_dataset(tmp_path, 2, width=160, height=120)
    lost = tmp_path / "masks" / "facade_00001.png"
    data = lost.read_bytes()
    lost.unlink()
    write_dataset(tmp_path, 2, width=160, height=120)
    assert lost.read_bytes() == data


def test_another_seed_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, 1, width=64, height=48)
    with pytest.raises(ValueError, match="another folder"):
        write_dataset(tmp_path, 1, seed=1, width=64, height=48)


def test_the_files_give_back_the_drawing(tmp_path: Path) -> None:
    write_dataset(tmp_path, 2, seed=7, width=333, height=217)
    classes = (tmp_path / "classes.txt").read_text().split()
    truth = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    for index, line in enumerate(truth):
        drawing = draw_scene(7 * 1_000_003 + index, 333, 217)
        name = f"facade_{index:05d}"
        assert (line["name"], line["seed"]) == (name, drawing.seed)
        assert [grid["storeys"] for grid in line["buildings"]] == [grid.storeys for grid in drawing.buildings]
        assert [box["column"] for box in line["boxes"]] == [box.column for box in drawing.boxes]
        mask = Image.open(tmp_path / "masks" / f"{name}.png")
        assert mask.mode == "P"
        assert np.array_equal(np.asarray(mask), drawing.mask)
        text = (tmp_path / "boxes" / f"{name}.txt").read_text()
        assert read_yolo(text, classes, 333, 217) == [(box.label, *edges(box)) for box in drawing.boxes]
        with Image.open(tmp_path / "photos" / f"{name}.jpg") as photo:
            error = np.abs(np.asarray(photo).astype(int) - drawing.photo)
        assert error.mean() < 12


def read_yolo(text: str, classes: list[str], width: int, height: int) -> list[tuple[str, int, int, int, int]]:
    """Return the labels and xyxy pixels of YOLO text."""
    boxes = []
    for line in text.splitlines():
        number, cx, cy, w, h = line.split()
        left, top = (float(cx) - float(w) / 2) * width, (float(cy) - float(h) / 2) * height
        size = float(w) * width, float(h) * height
        assert all(abs(v - round(v)) < 1e-4 for v in (left, top, *size))
        boxes.append((classes[int(number)], round(left), round(top), round(left + size[0]), round(top + size[1])))
    return boxes
