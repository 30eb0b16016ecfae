"""One drawing: a photo with its exact truth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.datasets.synthetic.canvas import BUILDING_PARTS, NAMES, Canvas, Instance
from pipeline.datasets.synthetic.facade import paint_building
from pipeline.datasets.synthetic.layout import plan_street
from pipeline.datasets.synthetic.occluders import paint_occluders
from pipeline.datasets.synthetic.rng import Bytes, SeededRandom
from pipeline.datasets.synthetic.sensor import WARP, expose
from pipeline.datasets.synthetic.street import paint_ground, paint_sky, paint_skyline

MIN_VISIBLE = 0.15  # a window or door that shows less of itself counts as wall
Ids = NDArray[np.uint16]


@dataclass(frozen=True)
class SyntheticBox:
    """Bounds (half-open pixels) of the visible pixels of a building, window or door.

    `visible` is the share of its whole projected area that shows, things in front and the border both counted.
    """

    label: str
    xmin: int
    ymin: int
    xmax: int
    ymax: int
    visible: float
    truncated: bool
    building: int
    storey: int | None = None
    column: int | None = None


@dataclass(frozen=True)
class SyntheticBuilding:
    """The grid of a building as planned, parts beyond the image border included."""

    storeys: int
    columns: int


@dataclass(frozen=True)
class Scene:
    """A photo (H, W, 3), the mask (H, W) of indices into NAMES, and every box and building in it."""

    seed: int
    photo: Bytes
    mask: Bytes
    boxes: tuple[SyntheticBox, ...]
    buildings: tuple[SyntheticBuilding, ...]
    jpeg_quality: int


def draw_scene(seed: int, width: int = 640, height: int = 480, *, occluders: bool = True) -> Scene:
    """Return the drawing of a seed; without occluders nothing stands in front of the buildings."""
    if seed < 0 or width < 16 or height < 16:
        raise ValueError(f"cannot draw seed {seed} at {width}x{height}: give a seed from 0 and sides from 16 pixels.")
    street = plan_street(seed, width, height)
    canvas = Canvas(street.camera)
    scenery = SeededRandom(seed, 5)
    paint_sky(canvas, scenery, street.light)
    paint_skyline(canvas, scenery, street)
    ground = paint_ground(canvas, scenery)
    for index, plan in enumerate(street.plans):
        paint_building(canvas, plan, index, street.light, seed, ground)
    if occluders:
        paint_occluders(canvas, SeededRandom(seed, 6))
    sensor = SeededRandom(seed, 7)
    quality = sensor.integer(62, 95)
    mask, boxes = _ground_truth(canvas, len(street.plans))
    grids = tuple(SyntheticBuilding(plan.storeys, plan.columns) for plan in street.plans)
    return Scene(seed, expose(canvas, sensor, street.light), mask, boxes, grids, quality)


def _ground_truth(canvas: Canvas, buildings: int) -> tuple[Bytes, tuple[SyntheticBox, ...]]:
    """Return the mask and the boxes that the instance numbers show to the camera."""
    camera, things = canvas.camera, canvas.instances
    warp = camera.coefficients(canvas.left, canvas.top, canvas.scale)
    seen = Image.fromarray(canvas.ids).transform((camera.width, camera.height), WARP, warp, Image.Resampling.NEAREST)
    ids = _reassign_hidden(np.asarray(seen).astype(np.uint16), things)
    classes = np.array([NAMES.index(thing.label) for thing in things], np.uint8)
    owners = np.array([thing.building + 1 if thing.label in BUILDING_PARTS else 0 for thing in things], np.uint16)
    boxes = []
    whole = {t.building: Instance("building", t.building, full_area=t.full_area) for t in things if t.label == "wall"}
    boxes += _bounds(owners[ids], [Instance("background"), *(whole[i] for i in range(buildings))])
    boxes += _bounds(ids, things)
    return classes[ids], tuple(boxes)


def _reassign_hidden(ids: Ids, instances: list[Instance]) -> Ids:
    """Return the numbers with each window or door that hardly shows given to its wall."""
    counts = np.bincount(ids.ravel(), minlength=len(instances))
    walls = {thing.building: number for number, thing in enumerate(instances) if thing.label == "wall"}
    table = np.arange(len(instances), dtype=np.uint16)
    for number, thing in enumerate(instances):
        if thing.label in ("window", "door") and counts[number] < MIN_VISIBLE * thing.full_area:
            table[number] = walls[thing.building]
    return table[ids]


def _bounds(ids: Ids, instances: list[Instance]) -> list[SyntheticBox]:
    """Return the box of every labelled thing that has pixels."""
    height, width = ids.shape
    counts = np.bincount(ids.ravel(), minlength=len(instances))
    boxes = []
    for number, place in enumerate(ndimage.find_objects(ids, max_label=len(instances) - 1), start=1):
        thing = instances[number]
        if place is None or thing.label not in ("building", "window", "door"):
            continue
        rows, columns = place
        touches = rows.start == 0 or columns.start == 0 or rows.stop == height or columns.stop == width
        visible = min(1.0, round(int(counts[number]) / max(thing.full_area, 1e-9), 4))
        edges = (int(columns.start), int(rows.start), int(columns.stop), int(rows.stop))
        boxes.append(SyntheticBox(thing.label, *edges, visible, touches, thing.building, thing.storey, thing.column))
    return boxes
