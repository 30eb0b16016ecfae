"""What stands in front: trees, bushes, parked cars, lamp posts and bollards."""

import numpy as np
from PIL import Image, ImageDraw

from pipeline.datasets.synthetic.canvas import Canvas, Colour, Instance, tint
from pipeline.datasets.synthetic.rng import SeededRandom
from pipeline.datasets.synthetic.texture import clouds, colour_noise

Corner = tuple[int, int]

CAR_COLOURS: tuple[Colour, ...] = (
    (150, 152, 156),
    (200, 202, 204),
    (40, 42, 46),
    (120, 26, 30),
    (36, 60, 110),
    (70, 84, 76),
    (206, 196, 170),
    (88, 92, 98),
)
LEAF_COLOURS: tuple[Colour, ...] = ((74, 104, 48), (88, 116, 60), (58, 86, 44), (110, 124, 58), (150, 120, 48))


def paint_occluders(canvas: Canvas, rng: SeededRandom) -> None:
    """Paint a random choice of things between the camera and the buildings."""
    ends = (-canvas.x(0.0) / canvas.unit, (canvas.width - canvas.x(0.0)) / canvas.unit)
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        _tree(canvas, rng, rng.uniform(*ends))
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        _bush(canvas, rng, rng.uniform(*ends))
    x, cars = ends[0] + rng.uniform(-3.0, 8.0), rng.choice((0, 0, 1, 2, 4, 6))
    for _ in range(cars):
        _car(canvas, rng, x)
        x += rng.uniform(4.8, 12.0)
    for _ in range(rng.choice((0, 0, 1, 2))):
        _lamp(canvas, rng, rng.uniform(*ends))
    if rng.chance(0.15):
        _bollards(canvas, rng, ends)


def _crown(canvas: Canvas, rng: SeededRandom, centre: tuple[int, int], size: tuple[int, int], colour: Colour) -> None:
    """Paint foliage: noise under a round threshold, so that the rim is ragged and the crown has holes."""
    width, height = min(max(size[0], 6), 2 * canvas.width), min(max(size[1], 6), 2 * canvas.height)
    number = canvas.add(Instance("vegetation"))
    form = clouds(rng, width, height, (4, 9, 26)).astype(np.int32)
    leaf = clouds(rng, width, height, (12, 30, 64)).astype(np.int32)
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    reach = ((2 * x - width) * 100 // width) ** 2 + ((2 * y - height) * 100 // height) ** 2
    mask = reach + (form - 128) * 60 + (leaf - 128) * 36 < 8300
    lift = 34 - (y * 80 // height)
    values = ((leaf - 128) * 2 + (form - 128) + 128 + lift).clip(0, 255).astype(np.uint8)
    canvas.paste(centre[0] - width // 2, centre[1] - height // 2, colour_noise(values, colour, 62), mask, number)


def _tree(canvas: Canvas, rng: SeededRandom, x: float) -> None:
    wide, stem = rng.uniform(2.0, 4.5), rng.uniform(1.8, 3.2)
    tall = wide * rng.uniform(0.9, 1.6)
    if canvas.texels(wide) * 3 > canvas.width:  # from so near it would hide the house
        return
    foot, thick = -rng.uniform(0.1, 0.4), rng.uniform(0.12, 0.3)
    number = canvas.add(Instance("vegetation"))
    bark = rng.choice(((84, 68, 54), (98, 88, 76), (70, 60, 50)))
    bare = rng.chance(0.12)
    box = canvas.box((x - thick / 2, foot, x + thick / 2, stem + (0.05 if bare else 0.3) * tall))
    canvas.shade((box[0] - box[2] + box[0], box[3] - canvas.texels(0.1), 3 * box[2] - 2 * box[0], box[3] + 1), 150)
    canvas.fill(box, bark, number)
    canvas.shade(((box[0] + box[2]) // 2, box[1], box[2], box[3]), 180)
    centre = (canvas.x(x), canvas.y(stem + tall / 2))
    if bare:
        _branches(canvas, rng, (canvas.x(x), canvas.y(stem)), canvas.texels(tall * 0.42), bark, number)
        return
    _crown(canvas, rng, centre, (canvas.texels(wide), canvas.texels(tall)), rng.choice(LEAF_COLOURS))


def _branches(canvas: Canvas, rng: SeededRandom, foot: tuple[int, int], length: int, bark: Colour, number: int) -> None:
    """Paint a bare crown: twigs that fork, drawn in one bitmap."""
    side = min(max(8, 6 * length), 2 * canvas.width)
    picture = Image.new("1", (side, side), 0)
    sketch = ImageDraw.Draw(picture)
    tips = [(side // 2, side - 1, 0, -length)]
    for level in range(6):
        grown = []
        for x, y, dx, dy in tips:
            ex, ey = x + dx, y + dy
            sketch.line((x, y, ex, ey), fill=1, width=max(1, length // (8 + 7 * level)))
            for bend in (-rng.integer(35, 75), rng.integer(35, 75)):
                grown.append((ex, ey, (dx * 72 - dy * bend) // 100, (dy * 72 + dx * bend) // 100))
        tips = grown
    mask = np.asarray(picture)
    colour = np.empty((side, side, 3), np.uint8)
    colour[...] = tint(bark, 0.85)
    canvas.paste(foot[0] - side // 2, foot[1] - side + 1, colour, mask, number)


def _bush(canvas: Canvas, rng: SeededRandom, x: float) -> None:
    wide, tall = rng.uniform(0.8, 2.5), rng.uniform(0.6, 1.5)
    centre = (canvas.x(x), canvas.y(tall * 0.42 - rng.uniform(0.0, 0.3)))
    _crown(canvas, rng, centre, (canvas.texels(wide), canvas.texels(tall)), rng.choice(LEAF_COLOURS))


def _car(canvas: Canvas, rng: SeededRandom, x: float) -> None:
    """Paint a parked car from the side; profile points are hundredths of its length and height."""
    length, tall = rng.uniform(3.8, 4.8) * 1.12, rng.uniform(1.4, 1.75) * 1.12
    left, _, right, _ = canvas.box((x, 0.0, x + length, 1.0))
    bottom = canvas.y(-rng.uniform(0.35, 0.6))
    width, height = max(right - left, 12), canvas.texels(tall, 6)
    if left >= canvas.width or left + width <= 0:
        return
    flip = rng.chance(0.5)
    body, glass = _profiles(rng)
    colour = rng.choice(CAR_COLOURS)
    picture = Image.new("RGB", (width, height), tint(colour, 0.9))
    shape = Image.new("1", (width, height), 0)
    body_px, glass_px = _profile(body, width, height, flip), _profile(glass, width, height, flip)
    ImageDraw.Draw(shape).polygon(body_px, fill=1)
    _car_body(ImageDraw.Draw(picture), glass_px, colour, width, height, flip)
    for wheel in (20, 79):
        _wheel(ImageDraw.Draw(picture), ImageDraw.Draw(shape), (100 - wheel if flip else wheel) * width // 100, height)
    canvas.shade((left - 2, bottom - height // 9, left + width + 2, bottom + height // 12), 96)
    number = canvas.add(Instance("car"))
    canvas.paste(left, bottom - height, np.asarray(picture), np.asarray(shape), number)


def _profiles(rng: SeededRandom) -> tuple[list[Corner], list[Corner]]:
    """Return the outlines of body and side glass of a hatchback, saloon, estate or van."""
    kind, hood = rng.choice(("hatch", "hatch", "saloon", "saloon", "estate", "van")), rng.integer(24, 31)
    if kind == "van":
        hood = rng.integer(12, 18)
    nose = [(1, 80), (1, 60), (3, 50), (hood - 12, 44), (hood, 41)]
    boot = {"hatch": 86, "saloon": 72, "estate": 95, "van": 98}[kind]
    cabin = [(hood + 7, 20), (hood + 14, 6), (hood + 22, 1), (boot - 16, 0), (boot - 8, 4)]
    tail = [(boot, 20), (boot + 4 if kind != "saloon" else 82, 39), (98, 43), (99, 56), (99, 80)]
    rear = hood + 34 if kind == "van" else boot - 10
    glass = [(hood + 4, 40), (hood + 10, 20), (hood + 17, 9), (rear - 3, 9), (rear + 4, 24), (rear + 7, 40)]
    return nose + cabin + tail, glass


def _profile(points: list[Corner], width: int, height: int, flip: bool) -> list[Corner]:
    return [((100 - x if flip else x) * (width - 1) // 100, y * (height - 1) // 100) for x, y in points]


def _car_body(
    sketch: ImageDraw.ImageDraw, glass: list[Corner], colour: Colour, width: int, height: int, flip: bool
) -> None:
    for y in range(height):  # the flank curves: sky above, road below
        share = y * 100 // height
        tone = 1.2 - share / 160 if share < 42 else 1.3 - abs(share - 48) / 55
        sketch.line((0, y, width, y), fill=tint(colour, max(tone, 0.45)))
    sketch.polygon(glass, fill=(44, 52, 60))
    half = [(x, min(y, height * 20 // 100)) for x, y in glass]
    sketch.polygon(half, fill=(92, 106, 118))
    for at in (48, 70):
        x = (100 - at if flip else at) * width // 100
        sketch.line((x, height * 8 // 100, x, height * 70 // 100), fill=tint(colour, 0.7), width=max(1, width // 90))
    for at, lamp in ((2, (240, 234, 206)), (97, (170, 30, 28))):
        x = (100 - at if flip else at) * width // 100
        sketch.rectangle((x - width // 60, height * 50 // 100, x + width // 60, height * 58 // 100), fill=lamp)


def _wheel(picture: ImageDraw.ImageDraw, shape: ImageDraw.ImageDraw, x: int, height: int) -> None:
    radius = max(2, height * 21 // 100)
    y = height - 1 - radius
    for sketch, fill in ((picture, (26, 26, 28)), (shape, 1)):
        sketch.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    hub = radius * 6 // 10
    picture.ellipse((x - hub, y - hub, x + hub, y + hub), fill=(150, 152, 154))
    picture.ellipse((x - hub // 2, y - hub // 2, x + hub // 2, y + hub // 2), fill=(84, 86, 90))


def _lamp(canvas: Canvas, rng: SeededRandom, x: float) -> None:
    tall, steel = rng.uniform(3.6, 6.5), rng.choice(((52, 56, 58), (96, 100, 102), (40, 58, 50)))
    number = canvas.add(Instance("post"))
    canvas.fill(canvas.box((x - 0.06, -0.35, x + 0.06, tall)), steel, number)
    canvas.fill(canvas.box((x - 0.11, -0.35, x + 0.11, 0.7)), tint(steel, 0.85), number)
    side = rng.choice((-1, 1, 0))
    if side:
        reach = sorted((x, x + side * 1.1))
        canvas.fill(canvas.box((reach[0], tall - 0.1, reach[1], tall)), steel, number)
        lamp = sorted((x + side * 0.8, x + side * 1.4))
    else:
        lamp = [x - 0.2, x + 0.2]
    head = canvas.box((lamp[0], tall - 0.16, lamp[1], tall + (0.04 if side else 0.4)))
    canvas.fill(head, (226, 222, 200) if not side else tint(steel, 1.15), number)
    bar = canvas.box((x + 0.01, -0.35, x + 0.06, tall))
    canvas.shade(bar, 160)


def _bollards(canvas: Canvas, rng: SeededRandom, ends: tuple[float, float]) -> None:
    number = canvas.add(Instance("post"))
    step, x = rng.uniform(1.2, 2.5), ends[0]
    for _ in range(40):
        canvas.fill(canvas.box((x - 0.06, -0.3, x + 0.06, 0.5)), (58, 58, 60), number)
        canvas.fill(canvas.box((x - 0.06, 0.36, x + 0.06, 0.44)), (206, 200, 190), number)
        x += step
