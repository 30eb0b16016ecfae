"""One drawing: a photo with its exact truth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pipeline.datasets.synthetic.canvas import BUILDING_PARTS, NAMES, Canvas, Thing
from pipeline.datasets.synthetic.facade import paint_building
from pipeline.datasets.synthetic.layout import plan_street
from pipeline.datasets.synthetic.occluders import paint_occluders
from pipeline.datasets.synthetic.rng import Bytes, Dice
from pipeline.datasets.synthetic.sensor import WARP, expose
from pipeline.datasets.synthetic.street import paint_ground, paint_sky, paint_skyline

LEAST_VISIBLE = 0.15  # a window or door that shows less of itself counts as wall
Ids = NDArray[np.uint16]


@dataclass(frozen=True)
class DrawnBox:
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
class DrawnBuilding:
    """The grid of a building as planned, parts beyond the image border included."""

    storeys: int
    columns: int


@dataclass(frozen=True)
class Drawing:
    """A photo (H, W, 3), the mask (H, W) of indices into NAMES, and every box and building in it."""

    seed: int
    photo: Bytes
    mask: Bytes
    boxes: tuple[DrawnBox, ...]
    buildings: tuple[DrawnBuilding, ...]
    jpeg_quality: int


def draw(seed: int, width: int = 640, height: int = 480, *, occluders: bool = True) -> Drawing:
    """Return the drawing of a seed; without occluders nothing stands in front of the buildings."""
    if seed < 0 or width < 16 or height < 16:
        raise ValueError(f"cannot draw seed {seed} at {width}x{height}: give a seed from 0 and sides from 16 pixels.")
    street = plan_street(seed, width, height)
    canvas = Canvas(street.camera)
    scenery = Dice(seed, 5)
    paint_sky(canvas, scenery, street.light)
    paint_skyline(canvas, scenery, street)
    ground = paint_ground(canvas, scenery)
    for index, plan in enumerate(street.plans):
        paint_building(canvas, plan, index, street.light, seed, ground)
    if occluders:
        paint_occluders(canvas, Dice(seed, 6))
    sensor = Dice(seed, 7)
    quality = sensor.whole(62, 95)
    mask, boxes = _truth(canvas, len(street.plans))
    grids = tuple(DrawnBuilding(plan.storeys, plan.columns) for plan in street.plans)
    return Drawing(seed, expose(canvas, sensor, street.light), mask, boxes, grids, quality)


def _truth(canvas: Canvas, buildings: int) -> tuple[Bytes, tuple[DrawnBox, ...]]:
    """Return the mask and the boxes that the instance numbers show to the camera."""
    camera, things = canvas.camera, canvas.things
    warp = camera.coefficients(canvas.left, canvas.top, canvas.scale)
    seen = Image.fromarray(canvas.ids).transform((camera.width, camera.height), WARP, warp, Image.Resampling.NEAREST)
    ids = _kept(np.asarray(seen).astype(np.uint16), things)
    classes = np.array([NAMES.index(thing.label) for thing in things], np.uint8)
    owners = np.array([thing.building + 1 if thing.label in BUILDING_PARTS else 0 for thing in things], np.uint16)
    boxes = []
    whole = {t.building: Thing("building", t.building, full=t.full) for t in things if t.label == "wall"}
    boxes += _bounds(owners[ids], [Thing("background"), *(whole[i] for i in range(buildings))])
    boxes += _bounds(ids, things)
    return classes[ids], tuple(boxes)


def _kept(ids: Ids, things: list[Thing]) -> Ids:
    """Return the numbers with each window or door that hardly shows given to its wall."""
    counts = np.bincount(ids.ravel(), minlength=len(things))
    walls = {thing.building: number for number, thing in enumerate(things) if thing.label == "wall"}
    table = np.arange(len(things), dtype=np.uint16)
    for number, thing in enumerate(things):
        if thing.label in ("window", "door") and counts[number] < LEAST_VISIBLE * thing.full:
            table[number] = walls[thing.building]
    return table[ids]


def _bounds(ids: Ids, things: list[Thing]) -> list[DrawnBox]:
    """Return the box of every labelled thing that has pixels."""
    height, width = ids.shape
    counts = np.bincount(ids.ravel(), minlength=len(things))
    boxes = []
    for number, place in enumerate(ndimage.find_objects(ids, max_label=len(things) - 1), start=1):
        thing = things[number]
        if place is None or thing.label not in ("building", "window", "door"):
            continue
        rows, columns = place
        touches = rows.start == 0 or columns.start == 0 or rows.stop == height or columns.stop == width
        visible = min(1.0, round(int(counts[number]) / max(thing.full, 1e-9), 4))
        edges = (int(columns.start), int(rows.start), int(columns.stop), int(rows.stop))
        boxes.append(DrawnBox(thing.label, *edges, visible, touches, thing.building, thing.storey, thing.column))
    return boxes
