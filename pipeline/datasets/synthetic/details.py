"""Small things on walls that are neither window nor door: boxes, dishes, vents, lamps, posters, wires."""

from pipeline.datasets.synthetic.canvas import Box, Canvas, Colour, tint
from pipeline.datasets.synthetic.plan import BuildingPlan
from pipeline.datasets.synthetic.rng import SeededRandom

PRINT: tuple[Colour, ...] = ((190, 60, 50), (60, 90, 150), (220, 210, 180), (70, 120, 80), (230, 180, 60))


def paint_details(canvas: Canvas, plan: BuildingPlan, rng: SeededRandom) -> None:
    """Paint what hangs on the wall between the openings; all of it counts as wall."""
    boxes = [canvas.box(opening.rect) for opening in plan.openings]
    taken = boxes + [canvas.box(rect) for rect in plan.balconies]
    habit = rng.choice((0, 0, 1, 2, 5)) if plan.family != "palace" else 0
    for _ in range(habit * plan.storeys // 2):
        _hang(canvas, rng, rng.choice(boxes), taken)
    if rng.chance(0.3):
        _poster(canvas, plan, rng, taken)
    if rng.chance(0.15):
        _wire(canvas, plan, rng, taken)


def _hang(canvas: Canvas, rng: SeededRandom, near: Box, occupied: list[Box]) -> None:
    """Paint an air conditioner, a dish, a vent or a wall lamp next to an opening if there is room."""
    kind = rng.choice(("cooler", "cooler", "dish", "vent", "lamp"))
    wide = canvas.texels({"cooler": 0.8, "dish": 0.6, "vent": 0.25, "lamp": 0.18}[kind], 2)
    high = canvas.texels({"cooler": 0.55, "dish": 0.6, "vent": 0.25, "lamp": 0.3}[kind], 2)
    left = near[2] + canvas.texels(0.15) if rng.chance(0.5) else (near[0] + near[2] - wide) // 2
    top = near[3] + canvas.texels(0.15) if left < near[2] else near[1] + canvas.texels(rng.uniform(0.0, 0.5))
    box = (left, top, left + wide, top + high)
    if not _is_free(canvas, box, occupied):
        return
    canvas.shade((left + 1, top + high // 3, left + wide + high // 4, top + high + high // 3), 176)
    {"cooler": _cooler, "dish": _dish, "vent": _vent, "lamp": _lamp}[kind](canvas, box)


def _is_free(canvas: Canvas, box: Box, occupied: list[Box]) -> bool:
    """Whether a box lies on plain wall: on canvas, on one instance, and clear of every opening."""
    part = canvas.clip(box)
    if part != box:
        return False
    pad = 2 * canvas.scale
    own = (box[0] - pad, box[1] - pad, box[2] + pad, box[3] + pad)
    if any(own[0] < o[2] and o[0] < own[2] and own[1] < o[3] and o[1] < own[3] for o in occupied):
        return False
    piece = canvas.ids[box[1] : box[3], box[0] : box[2]]
    number = int(piece[0, 0])
    return canvas.instances[number].label == "wall" and int(piece.min()) == int(piece.max())


def _cooler(canvas: Canvas, box: Box) -> None:
    left, top, right, bottom = box
    canvas.fill(box, (206, 206, 200))
    canvas.shade((left, bottom - max(1, (bottom - top) // 6), right, bottom), 170)
    rim = (bottom - top) // 6
    canvas.fill((left + rim, top + rim, (left + 2 * right) // 3, bottom - rim), (92, 94, 96))


def _dish(canvas: Canvas, box: Box) -> None:
    left, top, right, bottom = box
    inset = (right - left) // 4
    canvas.fill((left + inset, top, right - inset, bottom), (216, 216, 214))
    canvas.fill((left, top + inset, right, bottom - inset), (216, 216, 214))
    canvas.shade((left + inset, (top + bottom) // 2, right, bottom - inset), 205)
    canvas.fill(((left + right) // 2, (top + bottom) // 2, right, (top + bottom) // 2 + 1), (70, 70, 72))


def _vent(canvas: Canvas, box: Box) -> None:
    canvas.fill(box, (120, 118, 114))
    for y in range(box[1], box[3], 3):
        canvas.shade((box[0], y, box[2], y + 1), 120)


def _lamp(canvas: Canvas, box: Box) -> None:
    canvas.fill(box, (52, 52, 54))
    canvas.fill((box[0], (box[1] + box[3]) // 2, box[2], box[3]), (232, 220, 176))


def _poster(canvas: Canvas, plan: BuildingPlan, rng: SeededRandom, occupied: list[Box]) -> None:
    """Paint a poster or a scrawl on the ground floor."""
    x, y = rng.uniform(plan.x0 + 0.3, plan.x1 - 0.9), rng.uniform(0.5, 1.1)
    box = canvas.box((x, y, x + rng.uniform(0.5, 1.6), y + rng.uniform(0.4, 0.9)))
    if not _is_free(canvas, box, occupied):
        return
    colour = rng.choice(PRINT)
    if rng.chance(0.5):
        canvas.fill(box, colour)
        third = (box[3] - box[1]) // 3
        canvas.fill((box[0] + 1, box[1] + third, box[2] - 1, box[1] + 2 * third), tint(colour, 0.6))
        return
    stroke = canvas.texels(0.06)
    for _ in range(9):
        left, top = rng.integer(box[0], box[2]), rng.integer(box[1], box[3])
        flat = rng.chance(0.5)
        long = (box[2] - box[0]) // 3
        canvas.blend((left, top, left + (long if flat else stroke), top + (stroke if flat else long)), colour, 170)


def _wire(canvas: Canvas, plan: BuildingPlan, rng: SeededRandom, occupied: list[Box]) -> None:
    x = rng.uniform(plan.x0 + 0.2, plan.x1 - 0.2)
    box = canvas.box((x, 0.2, x + 0.03, plan.top - 0.6))
    if canvas.clip(box) == box and _is_free(canvas, box, occupied):
        canvas.fill(box, (60, 60, 62))
