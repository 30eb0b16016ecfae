"""What surrounds the buildings: sky, far skyline, ground, and the picture that the panes mirror."""

import numpy as np
from PIL import Image, ImageDraw

from pipeline.datasets.synthetic.canvas import MIRROR_SHRINK, Canvas, Colour, Instance, mix_colours, tint
from pipeline.datasets.synthetic.layout import Light, Street
from pipeline.datasets.synthetic.rng import Bytes, SeededRandom
from pipeline.datasets.synthetic.texture import clouds, colour_noise, spread

SKY: dict[str, tuple[tuple[Colour, Colour], ...]] = {
    "noon": (((92, 142, 206), (182, 208, 232)), ((70, 124, 198), (160, 196, 230)), ((130, 168, 210), (206, 220, 232))),
    "morning": (((126, 164, 206), (232, 220, 200)), ((150, 176, 204), (240, 214, 186))),
    "dusk": (((84, 98, 142), (226, 170, 140)), ((98, 112, 150), (222, 190, 170)), ((60, 76, 120), (180, 150, 160))),
    "overcast": (
        ((176, 182, 188), (214, 218, 222)),
        ((196, 200, 204), (226, 228, 230)),
        ((150, 158, 168), (200, 206, 210)),
    ),
}


def paint_sky(canvas: Canvas, rng: SeededRandom, light: Light) -> None:
    """Paint a graded sky with clouds over the whole canvas, and set what the panes mirror."""
    number = canvas.add(Instance("sky"))
    zenith, horizon = rng.choice(SKY[light.hour])
    width, height = max(canvas.width // MIRROR_SHRINK, 8), max(canvas.height // MIRROR_SHRINK, 8)
    ramp = (np.arange(height, dtype=np.int32) * 256 // height)[:, None, None]
    base = np.array(zenith, np.int32) * (256 - ramp) + np.array(horizon, np.int32) * ramp >> 8
    cover = rng.integer(96, 150) if light.hour != "overcast" else rng.integer(70, 100)
    veil = clouds(rng, width, height, (3, 7, 15)).astype(np.int32) * 4 + clouds(rng, width, height, (24, 50, 90))
    weight = ((veil // 5 - cover) * rng.integer(3, 7)).clip(0, rng.integer(150, 225))[:, :, None]
    white = np.array(
        mix_colours((250, 250, 250), horizon, 0.3) if light.hour != "overcast" else (188, 192, 198), np.int32
    )
    sky = ((base * (256 - weight) + white * weight) >> 8).astype(np.uint8)
    size = (canvas.width, canvas.height)
    canvas.rgb = np.array(Image.fromarray(sky).resize(size, Image.Resampling.BILINEAR))
    canvas.ids[...] = number
    canvas.mirror = _mirror(canvas, rng, sky)


def _mirror(canvas: Canvas, rng: SeededRandom, sky: Bytes) -> Image.Image:
    """Return the opposite side of the street as the panes see it: sky above dark houses and trees."""
    small = Image.fromarray(sky[:, ::-1].copy())
    sketch = ImageDraw.Draw(small)
    x, line = 0, canvas.y(0.0) // MIRROR_SHRINK
    while x < small.width:
        wide = max(2, round(rng.uniform(4.0, 14.0) * canvas.unit / MIRROR_SHRINK))
        high = round(rng.uniform(3.0, 12.0) * canvas.unit / MIRROR_SHRINK)
        tone = rng.integer(40, 100)
        sketch.rectangle((x, line - high, x + wide, max(line, small.height)), fill=(tone, tone - 4, tone - 10))
        for y in range(line - high + 3, line, max(4, round(3 * canvas.unit / MIRROR_SHRINK))):
            sketch.line((x + 1, y, x + wide - 1, y), fill=(tone // 2, tone // 2, tone // 2 + 6))
        x += wide + rng.integer(0, max(1, wide // 3))
    sketch.rectangle((0, line, small.width, max(line, small.height)), fill=(92, 90, 88))
    return small


def paint_skyline(canvas: Canvas, rng: SeededRandom, street: Street) -> None:
    """Paint hazy far houses (background) and trees (vegetation) where the alleys and borders show them."""
    number = canvas.add(Instance("background"))
    haze = SKY[street.light.hour][0][1]
    walls = [(canvas.x(plan.x0), canvas.x(plan.x1)) for plan in street.plans]
    x, dim = -canvas.texels(2), rng.uniform(0.35, 0.65)
    while x < canvas.width:
        wide = max(6, round(rng.uniform(2.5, 8.0) * canvas.unit))
        colour = rng.choice(((150, 138, 124), (128, 110, 98), (140, 142, 144), (164, 150, 126), (118, 104, 100)))
        if not _is_hidden(x, x + wide, walls):
            _far_house(canvas, rng, (x, wide), mix_colours(colour, haze, dim), number)
        x += wide
    green = canvas.add(Instance("vegetation"))
    for _ in range(rng.integer(0, 6)):
        wide, left = min(canvas.texels(rng.uniform(1.5, 5.0), 6), canvas.width), rng.integer(-200, canvas.width)
        if not _is_hidden(left, left + wide, walls):
            _far_bush(canvas, rng, (left, wide), green, haze)


def _is_hidden(left: int, right: int, walls: list[tuple[int, int]]) -> bool:
    """Whether one building stands in front of all of it: no need to paint what nobody sees."""
    return any(wall[0] <= left and right <= wall[1] for wall in walls)


def _far_house(canvas: Canvas, rng: SeededRandom, span: tuple[int, int], colour: Colour, number: int) -> None:
    """Paint a house far off: a wall, perhaps a roof, and dim dashes that are too small to be windows."""
    (x, wide), line = span, canvas.y(0.0)
    top = line - round(rng.uniform(1.2, 5.5) * canvas.unit)
    canvas.fill((x, top, x + wide, line), colour, number)
    canvas.shade((x + wide * 4 // 5, top, x + wide, line), 226)
    if rng.chance(0.6):
        rise, roof = round(rng.uniform(0.5, 1.6) * canvas.unit), mix_colours(colour, (96, 66, 58), 0.5)
        for step in range(min(rise, wide // 2)):
            canvas.fill((x + step // 2, top - step - 1, x + wide - step // 2, top - step), roof, number)
    dash = canvas.texels(0.16)
    for y in range(top + 4 * dash, line - 4 * dash, 7 * dash):
        for at in range(x + 3 * dash, x + wide - 3 * dash, 6 * dash):
            canvas.shade((at, y, at + dash, y + 2 * dash), 214)


def _far_bush(canvas: Canvas, rng: SeededRandom, span: tuple[int, int], number: int, haze: Colour) -> None:
    (left, wide), high = span, min(canvas.texels(rng.uniform(1.0, 5.0), 6), canvas.height)
    noise, leaf = clouds(rng, wide, high, (4, 9, 18)), clouds(rng, wide, high, (12, 26, 60))
    y, x = np.arange(high)[:, None], np.arange(wide)[None, :]
    reach = ((2 * x - wide) * 100 // wide) ** 2 + ((2 * y - high) * 100 // high) ** 2
    mask = reach < 1500 + noise.astype(np.int32) * 34 + leaf.astype(np.int32) * 26
    colour = mix_colours(rng.choice(((70, 96, 56), (86, 108, 62), (62, 84, 60))), haze, 0.25)
    shades = (leaf // 2 + noise // 2).astype(np.uint8)
    canvas.paste(left, canvas.y(0.0) - high, colour_noise(shades, colour, 70), mask, number)


def paint_ground(canvas: Canvas, rng: SeededRandom) -> int:
    """Paint pavement, kerb and road below the ground line; return their number."""
    number = canvas.add(Instance("ground"))
    line = canvas.y(0.0)
    if line >= canvas.height:
        return number
    depth = canvas.height - line
    walk = min(depth, canvas.texels(rng.uniform(0.25, 0.9), 3))
    _paint_rows(canvas, rng, line, canvas.height, rng.choice(((88, 88, 90), (104, 102, 100), (76, 78, 82))), number)
    _paint_rows(canvas, rng, line, line + walk, rng.choice(((166, 160, 150), (150, 148, 146), (178, 166, 150))), number)
    _joints(canvas, rng, line, walk)
    kerb = canvas.texels(0.1)
    canvas.fill((0, line + walk, canvas.width, line + walk + kerb), (186, 182, 174), number)
    canvas.fill((0, line + walk + kerb, canvas.width, line + walk + 2 * kerb), (62, 62, 64), number)
    canvas.shade((0, line, canvas.width, line + max(1, walk // 6)), 190)
    _patches(canvas, rng, line + walk + 2 * kerb)
    if rng.chance(0.5):
        _lane_marks(canvas, rng, line + walk, depth - walk, number)
    return number


def _patches(canvas: Canvas, rng: SeededRandom, top: int) -> None:
    """Paint repairs, stains and tyre tracks on the road, flattened as a road is seen."""
    depth = canvas.height - top
    for _ in range(rng.integer(2, 7) if depth > 8 else 0):
        y, x = top + rng.integer(0, depth), rng.integer(0, canvas.width)
        wide = canvas.texels(rng.uniform(0.6, 5.0), 4)
        canvas.shade((x, y, x + wide, y + max(2, wide // rng.integer(8, 20))), rng.integer(205, 246))
    for share in (30, 42) if rng.chance(0.5) else ():
        y = top + depth * share // 100
        canvas.blend((0, y, canvas.width, y + max(1, depth // 16)), (140, 138, 134), 22)


def _paint_rows(canvas: Canvas, rng: SeededRandom, top: int, bottom: int, colour: Colour, number: int) -> None:
    """Paint a strip of ground: speckles that grow and stretch towards the camera."""
    height = min(bottom, canvas.height) - max(top, 0)
    if height <= 0:
        return
    tile = rng.bytes(64, 150)
    stretched = np.repeat(tile, 2, axis=1) // 2 + np.uint8(64)
    picture = spread(colour_noise(stretched, colour, 14), canvas.width, height).copy()
    fade = (np.arange(height, dtype=np.uint16) * 36 // max(height, 1) + 220)[:, None, None]
    canvas.paste(0, max(top, 0), ((picture * fade) >> 8).astype(np.uint8), None, number)


def _joints(canvas: Canvas, rng: SeededRandom, line: int, walk: int) -> None:
    """Draw the slabs' joints towards a vanishing point above the ground line."""
    step, centre = canvas.texels(rng.uniform(0.5, 1.2), 5), canvas.width // 2
    rise = canvas.texels(1.7, 4)
    for y in (line + walk // 3, line + walk * 2 // 3):
        canvas.shade((0, y, canvas.width, y + 1), 222)
    for x in range(-(canvas.width // 2 // step) * step, canvas.width // 2, step):
        for part in range(4):
            y = line + walk * part // 4
            at = centre + x * (rise + y - line) // rise
            canvas.shade((at, y, at + 1, line + walk * (part + 1) // 4), 215)


def _lane_marks(canvas: Canvas, rng: SeededRandom, top: int, depth: int, number: int) -> None:
    y, high = top + depth * rng.integer(45, 75) // 100, max(2, canvas.texels(0.08))
    wide = canvas.texels(rng.uniform(1.5, 3.0), 8)
    for x in range(rng.integer(-wide, 0), canvas.width, wide * 2):
        canvas.fill((x, y, x + wide, y + high), tint((206, 204, 196), 0.95), number)
