"""Roofs: flat with parapet, eaves, hip, gable, mansard; chimneys and blind dormers."""

import numpy as np
from PIL import Image, ImageDraw

from pipeline.datasets.synthetic.canvas import Box, Canvas, Instance, Mask, mix_colours, tint
from pipeline.datasets.synthetic.layout import Light
from pipeline.datasets.synthetic.plan import OVERHANG, BuildingPlan
from pipeline.datasets.synthetic.rng import Bytes, SeededRandom
from pipeline.datasets.synthetic.style import Style
from pipeline.datasets.synthetic.texture import courses, spread, tiles

Corner = tuple[int, int]


def gable_box(canvas: Canvas, plan: BuildingPlan) -> Box:
    """Return the box of the triangle of wall under a gable roof."""
    return canvas.box((plan.x0, plan.top, plan.x1, plan.top + plan.roof_height))


def paint_gable(canvas: Canvas, plan: BuildingPlan, style: Style, tile: Bytes, wall: int) -> None:
    """Paint the triangle of wall under a gable roof."""
    box = gable_box(canvas, plan)
    middle = (box[0] + box[2]) // 2
    tile_polygon(canvas, [(box[0], box[3]), (middle, box[1]), (box[2] - 1, box[3])], tile, wall)
    vent = canvas.texels(0.35)
    centre = box[1] + (box[3] - box[1]) * 55 // 100
    canvas.fill((middle - vent // 2, centre, middle + vent // 2, centre + vent), tint(style.wall, 0.45))


def tile_box(canvas: Canvas, box: Box, tile: Bytes, number: int | None) -> None:
    """Cover a box with a repeated tile."""
    part = canvas.clip(box)
    if part is not None:
        picture = spread(tile, part[2] - part[0], part[3] - part[1])
        canvas.paste(part[0], part[1], picture, None, number)


def tile_polygon(canvas: Canvas, corners: list[Corner], tile: Bytes, number: int | None) -> None:
    """Cover a polygon of texels with a repeated tile."""
    xs, ys = [c[0] for c in corners], [c[1] for c in corners]
    part = canvas.clip((min(xs), min(ys), max(xs) + 1, max(ys) + 1))
    if part is None:
        return
    width, height = part[2] - part[0], part[3] - part[1]
    mask = polygon_mask(width, height, [(x - part[0], y - part[1]) for x, y in corners])
    canvas.paste(part[0], part[1], spread(tile, width, height), mask, number)


def polygon_mask(width: int, height: int, corners: list[Corner]) -> Mask:
    """Return the mask (height, width) of a polygon."""
    picture = Image.new("1", (width, height), 0)
    ImageDraw.Draw(picture).polygon(corners, fill=1)
    return np.asarray(picture)


def paint_roof(canvas: Canvas, plan: BuildingPlan, style: Style, rng: SeededRandom, light: Light) -> int:
    """Paint the roof of a building with what stands on it, and return its number."""
    number = canvas.add(Instance("roof"))
    if plan.roof == "flat":
        _flat(canvas, plan, style, rng, number)
    elif plan.roof == "gable":
        _verge(canvas, plan, style, number)
    else:
        _slope(canvas, plan, style, rng, number)
        if plan.roof == "mansard":
            _dormers(canvas, plan, style, number, light)
    return number


def _flat(canvas: Canvas, plan: BuildingPlan, style: Style, rng: SeededRandom, number: int) -> None:
    if rng.chance(0.4):  # lift housing
        left = plan.x0 + (plan.x1 - plan.x0) * rng.uniform(0.1, 0.6)
        box = canvas.box((left, plan.top, left + rng.uniform(2.0, 4.0), plan.top + rng.uniform(1.2, 2.2)))
        canvas.fill(box, mix_colours(style.wall, (120, 120, 122), 0.6), number)
        canvas.shade((box[0], box[1], box[2], box[1] + canvas.texels(0.15)), 180)
    high = 0.9 if style.parapet else 0.15
    box = canvas.box((plan.x0, plan.top, plan.x1, plan.top + high))
    canvas.fill(box, mix_colours(style.wall, (112, 112, 114), 0.55) if style.parapet else (92, 92, 96), number)
    canvas.fill((box[0], box[1], box[2], box[1] + canvas.texels(0.1)), tint(style.trim, 0.8), number)


def _verge(canvas: Canvas, plan: BuildingPlan, style: Style, number: int) -> None:
    """Paint the two bands of roof that frame a gable."""
    left, top, right, bottom = gable_box(canvas, plan)
    out, thick = canvas.texels(OVERHANG * 0.9), canvas.texels(0.4)
    middle = (left + right) // 2
    slant = (bottom - top) * out // max(1, (right - left) // 2)
    for end, inner in ((left - out, left), (right + out, right)):
        corners = [(end, bottom + slant), (middle, top), (middle, top - thick), (end, bottom + slant - thick)]
        tile_polygon(canvas, corners, roof_tile(canvas, style, SeededRandom(7)), number)
        thin = canvas.texels(0.1)
        edge = [(inner, bottom), (middle, top), (middle, top + thin), (inner, bottom + thin)]
        dark = np.empty((1, 1, 3), np.uint8)
        dark[...] = tint(style.trim, 0.9)
        tile_polygon(canvas, edge, dark, number)


def roof_tile(canvas: Canvas, style: Style, rng: SeededRandom) -> Bytes:
    """Return a tile of the building's roof covering."""
    return tiles(rng, style.roof, (canvas.texels(0.26, 3), canvas.texels(0.2, 2)))


def _slope(canvas: Canvas, plan: BuildingPlan, style: Style, rng: SeededRandom, number: int) -> None:
    out = canvas.texels(OVERHANG * 0.9)
    left, top, right, bottom = gable_box(canvas, plan)
    inward = {"eaves": 0.02, "mansard": 0.12, "hip": 0.9}[plan.roof]
    slide = min(round(inward * (bottom - top)), (right - left) // 3) + out
    corners = [(left - out, bottom), (left - out + slide, top), (right + out - slide, top), (right + out, bottom)]
    tile_polygon(canvas, corners, roof_tile(canvas, style, rng), number)
    ridge = canvas.texels(0.15)
    canvas.fill((left - out + slide, top - ridge, right + out - slide, top), tint(style.roof, 0.7), number)
    canvas.shade((left - out, bottom - canvas.texels(0.1), right + out, bottom), 150)
    canvas.fill((left - out, bottom - canvas.texels(0.06), right + out, bottom), (122, 122, 120), number)


def paint_chimneys(canvas: Canvas, plan: BuildingPlan, style: Style, rng: SeededRandom) -> None:
    """Paint chimneys down to the wall's top: wall and roof are painted over them and hide their feet."""
    number = canvas.add(Instance("roof"))
    brick = courses(rng, (140, 84, 66), (150, 130, 112), (canvas.texels(0.25, 3), canvas.texels(0.08, 2)), 0, 30)
    for _ in range(rng.integer(0, 3) if plan.roof != "flat" or rng.chance(0.5) else 0):
        x = plan.x0 + (plan.x1 - plan.x0) * rng.uniform(0.12, 0.88)
        rise = max(plan.roof_height, 0.3) + rng.uniform(0.5, 1.3)
        box = canvas.box((x - 0.3, plan.top + 0.1, x + rng.uniform(0.3, 0.8), plan.top + rise))
        tile_box(canvas, box, brick, number)
        cap = canvas.texels(0.12)
        canvas.fill((box[0] - cap // 2, box[1], box[2] + cap // 2, box[1] + cap), tint(style.trim, 0.75), number)
        canvas.shade(((box[0] + box[2]) // 2, box[1], box[2] + 1, box[3]), 190)


def _dormers(canvas: Canvas, plan: BuildingPlan, style: Style, number: int, light: Light) -> None:
    """Paint small louvred dormers, without glass: a pane there would be a window without a storey."""
    step = (plan.x1 - plan.x0) / max(1, plan.columns // 2)
    for i in range(max(1, plan.columns // 2)):
        middle = plan.x0 + (i + 0.5) * step
        base = plan.top + 0.25 * plan.roof_height
        box = canvas.box((middle - 0.45, base, middle + 0.45, base + 0.5 * plan.roof_height))
        canvas.shade((box[2], box[1], box[2] + canvas.texels(0.5 * light.strength), box[3]), 150)
        canvas.fill(box, mix_colours(style.trim, style.roof, 0.35), number)
        rim = canvas.texels(0.12)
        for y in range(box[1] + rim, box[3] - rim, canvas.texels(0.1, 3)):
            canvas.shade((box[0] + rim, y, box[2] - rim, y + max(1, rim // 2)), 150)
        canvas.fill((box[0] - rim, box[1] - rim, box[2] + rim, box[1]), tint(style.roof, 0.8), number)
