"""One building in metres: its kind, its grid of openings, its balconies and roof; not a single pixel.

x runs right from the middle of the main building, y up from the ground line; every rectangle is (x0, y0, x1, y1).
"""

from dataclasses import dataclass

from pipeline.datasets.synthetic.rng import SeededRandom

Rect = tuple[float, float, float, float]
OVERHANG = 0.3  # of cornices and eaves beyond the wall, each side
CLEAR_PX = 3.4  # least wall between two openings and half the least alley, in flat pixels


@dataclass(frozen=True)
class Family:
    """The ranges from which one kind of building is drawn."""

    storeys: tuple[int, int]
    columns: tuple[int, int]
    pitch: tuple[float, float]
    storey: tuple[float, float]
    share: tuple[float, float]  # of the pitch that is window
    rise: tuple[float, float]  # of the storey that is window
    roofs: tuple[str, ...]
    shop: float


FAMILIES: dict[str, Family] = {
    "house": Family(
        (1, 3), (2, 5), (2.1, 3.4), (2.6, 3.0), (0.32, 0.55), (0.40, 0.55), ("eaves", "gable", "eaves", "hip"), 0.05
    ),
    "town": Family(
        (2, 5), (2, 6), (1.8, 2.7), (2.9, 3.7), (0.38, 0.58), (0.50, 0.68), ("eaves", "mansard", "flat", "gable"), 0.4
    ),
    "palace": Family(
        (2, 4), (5, 10), (2.2, 3.2), (3.4, 4.6), (0.34, 0.50), (0.48, 0.66), ("flat", "hip", "mansard"), 0.15
    ),
    "block": Family(
        (4, 8), (4, 10), (2.3, 3.6), (2.6, 3.0), (0.40, 0.70), (0.42, 0.58), ("flat", "flat", "flat", "eaves"), 0.2
    ),
    "modern": Family((3, 8), (3, 9), (2.2, 4.0), (2.9, 3.6), (0.55, 0.82), (0.55, 0.76), ("flat",), 0.3),
}


@dataclass(frozen=True)
class Opening:
    """A window, a door or a shop front in its slot of the grid."""

    kind: str
    storey: int
    column: int
    rect: Rect


@dataclass(frozen=True)
class BuildingPlan:
    """One building: its wall runs from (x0, 0) to (x1, floors[-1])."""

    family: str
    look: int
    x0: float
    x1: float
    floors: tuple[float, ...]
    columns: int
    openings: tuple[Opening, ...]
    balconies: tuple[Rect, ...]
    roof: str
    roof_height: float
    arch: float
    flank: float = 0.0  # width of the side wall that shows, to the left if negative
    depth: float = 0.0

    @property
    def storeys(self) -> int:
        """How many storeys stand above the ground line."""
        return len(self.floors) - 1

    @property
    def top(self) -> float:
        """Height of the wall."""
        return self.floors[-1]


@dataclass(frozen=True)
class Sketch:
    """A building's proportions, before the scale is known."""

    family: str
    look: int
    floors: tuple[float, ...]
    columns: int
    pitch: float
    margin: float
    share: float
    rise: float
    pair: float
    roof: str
    roof_height: float
    arch: float
    shop: bool
    balcony: str

    @property
    def width(self) -> float:
        """Width of the wall."""
        return self.columns * self.pitch + 2 * self.margin

    @property
    def window(self) -> tuple[float, float]:
        """Width and height of a usual window."""
        return self.share * self.pitch, self.rise * (self.floors[-1] - self.floors[-2])


def draft(rng: SeededRandom, look: int) -> Sketch:
    """Return the proportions of a random building; equal looks get equal paint."""
    name = rng.choice(tuple(FAMILIES))
    family = FAMILIES[name]
    storeys, columns = rng.integer(*family.storeys), rng.integer(*family.columns)
    height = rng.uniform(*family.storey)
    ground = height * rng.uniform(1.0, 1.3)
    floors = (0.0, *(ground + height * i for i in range(storeys)))
    pitch = rng.uniform(*family.pitch)
    roof = rng.choice(family.roofs)
    if roof == "gable" and columns * pitch > 13:
        roof = "eaves"
    span = columns * pitch
    heights = {"flat": 0.0, "eaves": rng.uniform(1.4, 3.4), "hip": rng.uniform(1.4, 3.0)}
    heights |= {"gable": span * rng.uniform(0.25, 0.5), "mansard": rng.uniform(2.2, 3.2)}
    return Sketch(
        name,
        look,
        floors,
        columns,
        pitch,
        margin=rng.uniform(0.1, 0.9),
        share=rng.uniform(*family.share),
        rise=rng.uniform(*family.rise),
        pair=rng.uniform(0.3, 0.9) if rng.chance(0.15) else 0.0,
        roof=roof,
        roof_height=heights[roof],
        arch=rng.choice((0.0, 0.0, 0.0, 0.12, 0.5)) if name in ("town", "palace", "house") else 0.0,
        shop=rng.chance(family.shop),
        balcony=rng.choice(("none", "none", "some", "columns", "rows")) if storeys > 1 else "none",
    )


def build(rng: SeededRandom, sketch: Sketch, x0: float, scale: float) -> BuildingPlan:
    """Return the building of a sketch, its openings far enough apart at `scale` flat pixels a metre."""
    clear = CLEAR_PX / scale
    openings = _ground_floor(rng, sketch, x0, clear)
    balconies: list[Rect] = []
    for storey in range(1, len(sketch.floors) - 1):
        row, rails = _upper_floor(rng, sketch, x0, storey, clear)
        openings += row
        balconies += rails
    if len(sketch.floors) > 4 and sketch.columns > 4 and rng.chance(0.2):
        del openings[rng.integer(sketch.columns, len(openings) - 1)]
    return BuildingPlan(
        sketch.family,
        sketch.look,
        x0,
        x0 + sketch.width,
        sketch.floors,
        sketch.columns,
        tuple(openings),
        tuple(balconies),
        sketch.roof,
        sketch.roof_height,
        sketch.arch,
    )


def _centre(sketch: Sketch, x0: float, column: int, window: float, clear: float) -> float:
    """Return the middle of a column; paired columns lean towards each other."""
    room = max(0.0, (sketch.pitch - window - clear) / 2)
    lean = sketch.pair * room * (1 if column % 2 == 0 else -1) * (column + 1 < sketch.columns or column % 2)
    return x0 + sketch.margin + (column + 0.5) * sketch.pitch + lean


def _slot(sketch: Sketch, x0: float, storey: int, column: int, clear: float, french: bool, squat: float) -> Rect:
    floor, room = sketch.floors[storey], sketch.floors[storey + 1] - sketch.floors[storey]
    wide = max(min(sketch.share * sketch.pitch, sketch.pitch - clear), 0.3 * sketch.pitch)
    middle = _centre(sketch, x0, column, wide, clear)
    top = room - max(0.16 * room, 0.35 * clear)
    tall = max(min(sketch.rise * room * squat, top - 0.65 * clear - 0.03 * room), 0.25 * room)
    bottom = top - tall if not french else max(0.03 * room, 0.65 * clear)
    return middle - wide / 2, floor + bottom, middle + wide / 2, floor + top


def _ground_floor(rng: SeededRandom, sketch: Sketch, x0: float, clear: float) -> list[Opening]:
    doors = _door_columns(rng, sketch.columns)
    step = rng.choice((0.0, 0.15, 0.3, 0.45))
    openings = []
    for column in range(sketch.columns):
        slot = _slot(sketch, x0, 0, column, clear, french=False, squat=1.0)
        if column in doors:
            rect = _door_rect(rng, sketch, slot, step, clear)
            openings.append(Opening("door", 0, column, rect))
        elif sketch.shop:
            middle, half = (slot[0] + slot[2]) / 2, (sketch.pitch - max(clear, 0.3)) / 2
            openings.append(Opening("shop", 0, column, (middle - half, 0.35, middle + half, slot[3] - 0.25)))
        else:
            openings.append(Opening("window", 0, column, slot))
    return openings


def _door_columns(rng: SeededRandom, columns: int) -> set[int]:
    middle = rng.choice((columns // 2, 0, columns - 1, rng.integer(0, columns - 1)))
    if columns >= 6 and rng.chance(0.5):
        return {columns // 4, columns - 1 - columns // 4}
    return {middle}


def _door_rect(rng: SeededRandom, sketch: Sketch, slot: Rect, step: float, clear: float) -> Rect:
    widest = sketch.pitch - clear - abs(sketch.pair) * 0.3
    half = min(rng.uniform(0.95, 2.0), widest, slot[2] - slot[0] + 0.5) / 2
    middle, ground = (slot[0] + slot[2]) / 2, sketch.floors[1]
    height = min(rng.uniform(2.1, 3.1), ground - step - max(0.3, 0.5 * clear))
    return middle - half, step, middle + half, step + height


def _upper_floor(
    rng: SeededRandom, sketch: Sketch, x0: float, storey: int, clear: float
) -> tuple[list[Opening], list[Rect]]:
    last = storey == len(sketch.floors) - 2
    squat = 0.75 if last and sketch.family in ("town", "palace") and storey > 2 else 1.0
    along = sketch.balcony == "rows" and storey % 2 == 1
    openings, rails = [], []
    for column in range(sketch.columns):
        with_rail = along or _has_balcony(rng, sketch, storey, column)
        slot = _slot(sketch, x0, storey, column, clear, with_rail, squat)
        openings.append(Opening("window", storey, column, slot))
        if with_rail and not along:
            rails.append(_balcony(slot, sketch.floors[storey], 0.12 * sketch.pitch))
    if along:
        end = openings[-1].rect[2]
        rails.append(_balcony((openings[0].rect[0], 0, end, 0), sketch.floors[storey], 0.1 * sketch.pitch))
    return openings, rails


def _has_balcony(rng: SeededRandom, sketch: Sketch, storey: int, column: int) -> bool:
    if sketch.balcony == "columns":
        return column % 3 == 1
    return sketch.balcony == "some" and rng.chance(0.3) and storey > 0


def _balcony(slot: Rect, floor: float, side: float) -> Rect:
    return slot[0] - side, floor - 0.14, slot[2] + side, floor + 0.95
