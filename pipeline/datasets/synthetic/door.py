"""Doors and shop fronts: leaves, transoms, steps, canopies, awnings."""

import numpy as np

from pipeline.datasets.synthetic.canvas import Box, Canvas, Colour, tint
from pipeline.datasets.synthetic.layout import Light
from pipeline.datasets.synthetic.rng import Bytes, SeededRandom
from pipeline.datasets.synthetic.style import Style
from pipeline.datasets.synthetic.window import arch_mask

AWNING: tuple[Colour, ...] = ((150, 40, 44), (40, 84, 64), (42, 62, 110), (210, 200, 180), (190, 120, 50), (70, 70, 74))


def paint_door(
    canvas: Canvas, box: Box, number: int, style: Style, rng: SeededRandom, light: Light, arch: float
) -> float:
    """Paint one door and return the share of its box that it fills."""
    width, height = box[2] - box[0], box[3] - box[1]
    picture = np.empty((height, width, 3), np.uint8)
    picture[...] = style.door
    jamb = max(1, min(canvas.texels(0.07), width // 8))
    light_m = height * rng.integer(16, 26) // 100 if arch or rng.chance(0.5) else 0
    leaves = 2 if width > 1.35 * canvas.unit else 1
    glazed = rng.chance(0.4)
    wide = (width - 2 * jamb) // leaves
    for leaf in range(leaves):
        left = jamb + leaf * wide
        _leaf(picture[light_m + jamb :, left : left + wide], style, rng.integer(2, 3), glazed)
        picture[light_m + jamb :, left : left + 1] //= 2
    _handle(picture, light_m, jamb, canvas)
    if light_m > jamb and width > 2 * jamb:
        fan = (box[0] + jamb, box[1] + jamb, box[2] - jamb, box[1] + light_m)
        picture[jamb:light_m, jamb : width - jamb] = canvas.reflection(fan, (rng.integer(0, 999), 0)) // 2 + 12
    _shadow(picture, light, style, canvas)
    mask = arch_mask(width, height, arch) if arch else None
    canvas.paste(box[0], box[1], picture, mask, number)
    return 1.0 if mask is None else int(np.count_nonzero(mask)) / mask.size


def paint_steps(canvas: Canvas, box: Box, edge: int, wall: int, ground: int) -> None:
    """Paint the steps between a door and the pavement: part of the wall down to the ground line.

    They end where the wall does, `edge` texels from the door: a step beyond would be an island of wall.
    """
    line = canvas.y(0.0)
    tread = canvas.texels(0.16)
    stone: Colour = (168, 164, 156)
    count = -(-(line - box[3]) // tread)
    for step in range(count):
        top, out = box[3] + step * tread, min(canvas.texels(0.12 + 0.16 * step), edge)
        row = (box[0] - out, top, box[2] + out, min(top + tread, line))
        canvas.fill(row, tint(stone, 1.0 - 0.06 * step), wall)
        canvas.shade((row[0], row[3] - max(1, tread // 2), row[2], row[3]), 205)
    canvas.fill((box[0] - tread, line, box[2] + tread, line + max(1, tread // 2)), stone, ground)


def paint_canopy(canvas: Canvas, box: Box, edge: int, style: Style, light: Light, wall: int) -> None:
    """Paint a small roof over a door and its shadow on it."""
    out, high = min(canvas.texels(0.3), edge), canvas.texels(0.14)
    gap = canvas.texels(0.1)
    left, right = box[0] - out, box[2] + out
    top = box[1] - gap - high
    fall = canvas.texels(0.7 * light.down) if light.strength else high
    canvas.shade((left, top + high, right, top + high + fall), 256 - int(95 * light.strength) - 30)
    canvas.fill((left, top, right, top + high), tint(style.trim, 0.9), wall)
    canvas.shade((left, top + high - max(1, high // 3), right, top + high), 150)


def paint_shop(canvas: Canvas, box: Box, style: Style, rng: SeededRandom, light: Light, wall: int) -> None:
    """Paint a shop front: glass and fascia that count as wall, since the labels know no shop windows."""
    left, top, right, bottom = box
    fascia = max(2, (bottom - top) * 18 // 100)
    colour = rng.choice(AWNING)
    frame = tint(colour, 0.7) if rng.chance(0.5) else style.frame
    canvas.fill(box, frame, wall)
    rim = canvas.texels(0.07)
    pane = (left + rim, top + fascia + rim, right - rim, bottom - canvas.texels(0.25))
    if pane[2] - pane[0] > 3 and pane[3] - pane[1] > 3:
        _display(canvas, pane, rng, light)
    canvas.fill((left, top, right, top + fascia), colour, wall)
    _sign(canvas, (left, top, right, top + fascia), rng)
    if rng.chance(0.5):
        _awning(canvas, (left, top + fascia, right, top + fascia + (bottom - top) * 22 // 100), colour, rng, wall)


def _leaf(view: Bytes, style: Style, panels: int, glazed: bool) -> None:
    height, width = view.shape[:2]
    if width < 5 or height < 8:
        return
    rim = max(1, width // 7)
    tall = (height - rim) // panels
    for i in range(panels):
        part = view[rim + i * tall : (i + 1) * tall, rim : width - rim]
        if glazed and i == 0:
            part[...] = (58, 66, 74)
            part[: part.shape[0] // 2] = (96, 106, 116)
        else:
            part[...] = tint(style.door, 0.86)
            part[:1] = tint(style.door, 0.6)
            part[-1:] = tint(style.door, 1.25)


def _handle(picture: Bytes, top: int, jamb: int, canvas: Canvas) -> None:
    size = canvas.texels(0.05)
    height, width = picture.shape[:2]
    y = top + (height - top) * 55 // 100
    x = width // 2 + size if width > 1.35 * canvas.unit else width - jamb - 3 * size
    picture[y : y + 2 * size, max(x, 0) : max(x, 0) + size] = (206, 190, 140)


def _shadow(picture: Bytes, light: Light, style: Style, canvas: Canvas) -> None:
    height, width = picture.shape[:2]
    drop = min(round((style.reveal_m + 0.1) * canvas.unit * max(0.4, light.down * light.strength)), height // 3)
    slant = min(round((style.reveal_m + 0.1) * canvas.unit * abs(light.across) * light.strength), width // 4)
    dark = 210 - int(90 * light.strength)
    picture[:drop] = (picture[:drop].astype(np.uint16) * dark) >> 8
    side = np.s_[drop:, :slant] if light.across > 0 else np.s_[drop:, width - slant :]
    picture[side] = (picture[side].astype(np.uint16) * dark) >> 8


def _display(canvas: Canvas, pane: Box, rng: SeededRandom, light: Light) -> None:
    lit = light.hour in ("dusk", "overcast") and rng.chance(0.6)
    canvas.fill(pane, (196, 168, 120) if lit else (46, 48, 52))
    left, top, right, bottom = pane
    for _ in range(rng.integer(2, 6)):
        x, wide = rng.integer(left, right - 1), max(2, (right - left) // 9)
        high = (bottom - top) * rng.integer(15, 60) // 100
        goods = (rng.integer(60, 220), rng.integer(50, 200), rng.integer(40, 190))
        canvas.fill((x, bottom - high, min(x + wide, right), bottom), goods)
    part = canvas.clip(pane)
    if part:
        mirror = canvas.reflection(part, (rng.integer(0, 999), 0)).astype(np.uint16) * 110
        view = canvas.rgb[part[1] : part[3], part[0] : part[2]]
        view[...] = (view.astype(np.uint16) * 146 + mirror) >> 8
    middle = (left + right) // 2
    bar = canvas.texels(0.05)
    canvas.fill((middle, top, middle + bar, bottom), (70, 68, 66))


def _sign(canvas: Canvas, box: Box, rng: SeededRandom) -> None:
    """Draw strokes that look like lettering from afar."""
    left, top, right, bottom = box
    high = max(1, (bottom - top) // 2)
    x, end = left + (right - left) // 5, right - (right - left) // 5
    while x < end and high > 2:
        wide = rng.integer(max(1, high // 3), high)
        canvas.fill((x, top + high // 2, x + wide * 2 // 3 + 1, top + high // 2 + high), (232, 226, 206))
        x += wide + max(1, high // 4)


def _awning(canvas: Canvas, box: Box, colour: Colour, rng: SeededRandom, wall: int) -> None:
    left, top, right, bottom = box
    stripe = max(2, canvas.texels(0.3))
    striped = rng.chance(0.6)
    for i, x in enumerate(range(left, right, stripe)):
        paint = (228, 222, 210) if striped and i % 2 else colour
        canvas.fill((x, top, min(x + stripe, right), bottom), paint, wall)
    canvas.shade((left, bottom - max(1, (bottom - top) // 4), right, bottom), 190)
    canvas.shade((left, bottom, right, bottom + (bottom - top) // 2), 150)
