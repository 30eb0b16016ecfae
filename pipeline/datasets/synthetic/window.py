"""Windows: reveal, frame, panes with what they mirror and hide, blinds, shutters, sill and surround."""

import math

import numpy as np
from PIL import Image, ImageDraw

from pipeline.datasets.synthetic.canvas import Box, Canvas, Colour, Mask, mix_colours, tint
from pipeline.datasets.synthetic.layout import Light
from pipeline.datasets.synthetic.rng import Bytes, SeededRandom
from pipeline.datasets.synthetic.style import FABRIC, Style


def paint_window(
    canvas: Canvas, box: Box, number: int, style: Style, rng: SeededRandom, light: Light, arch: float
) -> float:
    """Paint one window and return the share of its box that it fills."""
    width, height = box[2] - box[0], box[3] - box[1]
    closed = style.shutters == "mixed" and rng.chance(0.2)
    if closed:
        picture = _shutter_leaves(width, height, style.shutter, canvas.unit)
    else:
        picture = _glazing(canvas, box, style, rng, light)
        if rng.chance(style.blinds):
            _roller(picture, rng, style, canvas.unit)
    _reveal(picture, style, light, canvas)
    mask = arch_mask(width, height, arch) if arch else None
    canvas.paste(box[0], box[1], picture, mask, number)
    return 1.0 if mask is None else int(np.count_nonzero(mask)) / mask.size


def arch_mask(width: int, height: int, rise: float) -> Mask:
    """Return the mask (height, width) of an opening under an arch that rises by that share of its width."""
    half, tall = width / 2, max(1.0, min(rise * width, height - 1))
    radius = (half * half + tall * tall) / (2 * tall)
    across = np.arange(width) + 0.5 - half
    crown = radius - np.sqrt(np.maximum(radius * radius - across * across, 0.0))
    rows = np.arange(height)[:, None] + 0.5
    return np.asarray(rows > crown[None, :])


def paint_surround(canvas: Canvas, box: Box, style: Style, arch: float, wall: int, clear: int) -> None:
    """Paint what the wall wears around an opening, before the opening itself, within `clear` texels of it."""
    left, top, right, bottom = box
    band = min(canvas.texels(0.14), clear // 2)
    dark = tint(style.trim, 0.62)
    if style.surround in ("frame", "pediment"):
        canvas.fill((left - band, top - band, right + band, bottom + 1), style.trim, wall)
        canvas.shade((right + band - 1, top - band, right + band, bottom), 200)
    if style.surround in ("lintel", "pediment"):
        canvas.fill((left - 2 * band, top - 2 * band, right + 2 * band, top - band // 2), style.trim, wall)
        canvas.shade((left - 2 * band, top - band // 2, right + 2 * band, top), 170)
    if style.surround == "pediment" and not arch:
        _pediment(canvas, box, band, style.trim, dark)
    if style.surround == "brick":
        _soldiers(canvas, (left - band, top - 2 * band, right + band, top), style)


def _pediment(canvas: Canvas, box: Box, band: int, light: Colour, dark: Colour) -> None:
    width, high = box[2] - box[0] + 4 * band, max(2, 2 * band)
    picture = Image.new("RGB", (width, high), dark)
    sketch = ImageDraw.Draw(picture)
    sketch.polygon([(0, high), (width // 2, 0), (width, high)], fill=light)
    sketch.polygon([(4 * band, high), (width // 2, band), (width - 4 * band, high)], fill=tint(light, 0.85))
    shape = Image.new("1", (width, high), 0)
    ImageDraw.Draw(shape).polygon([(0, high), (width // 2, 0), (width, high)], fill=1)
    canvas.paste(box[0] - 2 * band, box[1] - 2 * band - high, np.asarray(picture), np.asarray(shape), None)


def _soldiers(canvas: Canvas, box: Box, style: Style) -> None:
    left, top, right, bottom = box
    canvas.fill(box, mix_colours(style.wall, style.trim, 0.35))
    step = canvas.texels(0.08, 2)
    if step > 2:
        for x in range(left, right, step):
            canvas.shade((x, top, x + 1, bottom), 190)


def paint_sill(canvas: Canvas, box: Box, style: Style, rng: SeededRandom, light: Light, clear: int) -> None:
    """Paint the sill under a window with its shadow and the streaks that run down from it."""
    left, _, right, bottom = box
    out, high = min(canvas.texels(0.1), clear), canvas.texels(0.07)
    streaks = int(style.dirt * 15)
    if streaks > 4:
        low, thin = canvas.texels(rng.uniform(0.2, 0.8), 3), canvas.texels(0.06)
        for side in (left - thin, right):
            for part in (1, 2, 3):  # fades as it runs down
                canvas.shade((side, bottom, side + thin, bottom + low * part // 3), 256 - streaks)
    shadow = canvas.texels(0.1 * light.down) if light.strength else 1
    canvas.shade((left - out, bottom + high, right + out, bottom + high + shadow), 256 - int(90 * light.strength) - 25)
    canvas.fill((left - out, bottom, right + out, bottom + high), style.trim)
    canvas.shade((left - out, bottom + high - 1, right + out, bottom + high), 210)


def paint_open_shutters(canvas: Canvas, box: Box, style: Style, room: int, wall: int) -> None:
    """Paint the two shutters of a window; they belong to the wall."""
    wide = min((box[2] - box[0]) // 2, room)
    if wide < 3:
        return
    leaf = _shutter_leaves(wide, box[3] - box[1], style.shutter, canvas.unit)
    for left in (box[0] - wide - 1, box[2] + 1):
        canvas.shade((left + 1, box[1] + 2, left + wide + 2, box[3] + 2), 170)
        canvas.paste(left, box[1], leaf, None, wall)


def _glazing(canvas: Canvas, box: Box, style: Style, rng: SeededRandom, light: Light) -> Bytes:
    width, height = box[2] - box[0], box[3] - box[1]
    room = _interior(width, height, style, rng, light)
    shift = (rng.integer(0, 9999), rng.integer(-height // 3, height // 3))
    glint = rng.integer(70, 170) if light.hour != "dusk" else rng.integer(40, 120)
    mirror = canvas.reflection(box, shift).astype(np.uint16) * glint
    picture: Bytes = ((room.astype(np.uint16) * (256 - glint) + mirror) >> 8).astype(np.uint8)
    _bars(picture, style, canvas)
    return picture


def _interior(width: int, height: int, style: Style, rng: SeededRandom, light: Light) -> Bytes:
    lit = light.hour == "dusk" and rng.chance(0.35)
    shade = rng.integer(14, 52)
    dark = (236, 190, 120) if lit else (shade, shade + 2, shade + 6)
    room = np.empty((height, width, 3), np.uint8)
    room[...] = dark
    room[: height // 3] = tint(dark, 0.85 if lit else 0.7)
    if rng.chance(style.curtains):
        _curtains(room, rng, lit)
    if rng.chance(style.blinds * 0.5):
        _blind(room, rng)
    return room


def _curtains(room: Bytes, rng: SeededRandom, lit: bool) -> None:
    height, width = room.shape[:2]
    cloth = tint(rng.choice(FABRIC), rng.uniform(0.7, 1.0) if not lit else 1.05)
    kind = rng.integer(0, 3)
    if kind == 0:  # net over the lower part
        room[height * rng.integer(3, 6) // 10 :] = cloth
    elif kind == 1:  # drawn
        room[...] = cloth
    else:
        side = max(1, width * rng.integer(12, 34) // 100)
        room[:, :side] = cloth
        room[:, width - side :] = cloth
    fold = max(2, width // 14)
    if fold > 2 and kind:
        for x in range(0, width, fold):
            room[:, x : x + max(1, fold // 3)] = room[:, x : x + max(1, fold // 3)] // 8 * 7


def _blind(room: Bytes, rng: SeededRandom) -> None:
    height = room.shape[0]
    end = height * rng.integer(2, 9) // 10
    room[:end] = tint(rng.choice(FABRIC), rng.uniform(0.8, 1.0))
    step = max(3, height // 22)
    room[0:end:step] = room[0:end:step] // 4 * 3


def _bars(picture: Bytes, style: Style, canvas: Canvas) -> None:
    """Draw the frame and its glazing bars; below two texels a bar is one texel."""
    height, width = picture.shape[:2]
    thick = min(canvas.texels(style.frame_m), max(1, width // 6), max(1, height // 6))
    thin = max(1, thick * 2 // 3)
    shade = tint(style.frame, 0.72)
    across, down = style.bars
    top = round(style.transom * height)
    spans = [(i * width // across, top if across < 3 else 0) for i in range(1, across)]
    for x, start in spans:
        picture[start:, x - thin // 2 : x - thin // 2 + thin] = style.frame
        if thin > 1:
            picture[start:, x - thin // 2 + thin : x - thin // 2 + thin + 1] //= 2
    rows = [top + i * (height - top) // down for i in range(0 if top else 1, down)]
    for y in rows:
        picture[y - thin // 2 : y - thin // 2 + thin] = style.frame
        if thin > 1:
            picture[y - thin // 2 + thin : y - thin // 2 + thin + 1] //= 2
    picture[:thick] = tint(style.frame, 0.85)
    picture[height - thick :] = style.frame
    picture[:, :thick] = style.frame
    picture[:, width - thick :] = shade if thick > 1 else style.frame


def _roller(picture: Bytes, rng: SeededRandom, style: Style, unit: float) -> None:
    height = picture.shape[0]
    end = max(1, round(height * rng.choice((0.15, 0.3, 0.5, 0.75, 1.0))))
    picture[:end] = tint(mix_colours(style.frame, (180, 178, 172), 0.6), rng.uniform(0.75, 1.0))
    step = max(2, round(0.05 * unit))
    if step > 2:
        picture[0:end:step] = picture[0:end:step] // 5 * 4
    picture[end - 1 : end] //= 2


def _shutter_leaves(width: int, height: int, colour: Colour, unit: float) -> Bytes:
    picture = np.empty((height, width, 3), np.uint8)
    picture[...] = colour
    step = max(2, round(0.05 * unit))
    picture[::step] = tint(colour, 0.7)
    rim = max(1, round(0.05 * unit))
    for part in (np.s_[:rim], np.s_[height - rim :], np.s_[:, :rim], np.s_[:, width - rim :]):
        picture[part] = tint(colour, 1.1)
    picture[height // 2 : height // 2 + rim] = tint(colour, 1.05)
    picture[:, width // 2 : width // 2 + 1] = tint(colour, 0.5)
    return picture


def _reveal(picture: Bytes, style: Style, light: Light, canvas: Canvas) -> None:
    """Darken what the wall's thickness hides from the sky and from the sun."""
    height, width = picture.shape[:2]
    depth = style.reveal_m * canvas.unit
    drop = min(math.ceil(depth * (light.down if light.strength else 0.5)), height // 3)
    slant = min(math.ceil(depth * abs(light.across)), width // 4) if light.strength else 0
    dark = 256 - 40 - int(100 * light.strength)
    picture[:drop] = (picture[:drop].astype(np.uint16) * dark) >> 8
    if slant:
        side = np.s_[drop:, :slant] if light.across > 0 else np.s_[drop:, width - slant :]
        picture[side] = (picture[side].astype(np.uint16) * dark) >> 8
    picture[:1] //= 2
