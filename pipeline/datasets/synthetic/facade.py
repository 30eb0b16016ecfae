"""One building: wall, base, courses, openings, balconies, cornice, in the order in which they overlap."""

from dataclasses import dataclass, replace
from itertools import pairwise

from pipeline.datasets.synthetic.canvas import Box, Canvas, Instance, mix_colours, tint
from pipeline.datasets.synthetic.details import paint_details
from pipeline.datasets.synthetic.door import paint_canopy, paint_door, paint_shop, paint_steps
from pipeline.datasets.synthetic.layout import CAMERA_HEIGHT, Light
from pipeline.datasets.synthetic.plan import OVERHANG, BuildingPlan, Opening
from pipeline.datasets.synthetic.rng import Bytes, SeededRandom
from pipeline.datasets.synthetic.roof import gable_box, paint_chimneys, paint_gable, paint_roof, tile_box, tile_polygon
from pipeline.datasets.synthetic.style import Style, choose_style
from pipeline.datasets.synthetic.texture import boards, courses, grain, panels
from pipeline.datasets.synthetic.window import paint_open_shutters, paint_sill, paint_surround, paint_window


@dataclass(frozen=True)
class Site:
    """What the painters of one building share: `clearance` is how far decoration may reach next to an opening."""

    canvas: Canvas
    plan: BuildingPlan
    index: int
    style: Style
    dice: SeededRandom
    light: Light
    ground: int
    wall: int
    clearance: int


def paint_building(canvas: Canvas, plan: BuildingPlan, index: int, light: Light, seed: int, ground: int) -> None:
    """Paint a building and enter its parts among the canvas's things."""
    style = choose_style(SeededRandom(seed, 3, plan.look), plan.family)
    dice = SeededRandom(seed, 4, index)
    paint_chimneys(canvas, plan, style, dice)
    wall = _paint_wall(canvas, plan, index, style, dice, light)
    _paint_courses(canvas, plan, style)
    paint_details(canvas, plan, dice)
    site = Site(canvas, plan, index, style, dice, light, ground, wall, _clearance(canvas, plan))
    for opening in plan.openings:
        _paint_opening(site, opening)
    _paint_balconies(canvas, plan, index, style, light)
    if style.pipe:
        _paint_pipe(canvas, plan, style)
    roof = paint_roof(canvas, plan, style, dice, light)
    _paint_cornice(canvas, plan, style, light, wall, roof)


def wall_tile(style: Style, rng: SeededRandom, unit: float, module: tuple[int, int]) -> Bytes:
    """Return a tile of the building's wall; `module` is one bay by one storey in texels."""
    joint = tint(style.wall, 1.18) if style.wall[0] < 150 else tint(style.wall, 0.82)
    if style.material == "brick":
        size = (max(3, round(0.25 * unit)), max(2, round(0.083 * unit)))
        return courses(rng, style.wall, mix_colours(style.wall, (190, 182, 170), 0.45), size, size[1] > 4, 34)
    if style.material == "stone":
        size = (max(4, round(0.8 * unit)), max(3, round(0.36 * unit)))
        return courses(rng, style.wall, tint(joint, 0.9), size, 1, 13)
    if style.material == "boards":
        return boards(rng, style.wall, round(0.16 * unit), 16)
    if style.material in ("panels", "metal"):
        size = module if style.material == "panels" else (max(4, module[0] // 2), max(4, module[1] // 3))
        return panels(rng, style.wall, size, unit)
    return grain(rng, style.wall, 15, unit)


def _paint_wall(canvas: Canvas, plan: BuildingPlan, index: int, style: Style, rng: SeededRandom, light: Light) -> int:
    box = canvas.box((plan.x0, 0.0, plan.x1, plan.top))
    module = (canvas.texels((plan.x1 - plan.x0) / plan.columns), canvas.texels(plan.floors[-1] - plan.floors[-2]))
    tile = wall_tile(style, rng, canvas.unit, module)
    full = canvas.box_area(box)
    wall = canvas.add(Instance("wall", index))
    tile_box(canvas, box, tile, wall)
    if plan.roof == "gable":
        full += canvas.box_area(gable_box(canvas, plan)) / 2
        paint_gable(canvas, plan, style, tile, wall)
    if plan.flank:
        full += _paint_flank(canvas, plan, tile, wall, light)
    canvas.instances[wall] = replace(canvas.instances[wall], full_area=full)
    return wall


def _paint_flank(canvas: Canvas, plan: BuildingPlan, tile: Bytes, wall: int, light: Light) -> float:
    """Paint the side wall that recedes into the alley; return its area in the photo."""
    edge = plan.x1 if plan.flank > 0 else plan.x0
    far = canvas.distance / (canvas.distance + plan.depth)
    near_x, far_x = canvas.x(edge) - (plan.flank > 0), canvas.x(edge + plan.flank)
    rows = [
        canvas.y(height)
        for height in (0.0, CAMERA_HEIGHT * (1 - far), CAMERA_HEIGHT + (plan.top - CAMERA_HEIGHT) * far, plan.top)
    ]
    corners = [(near_x, rows[0] - 1), (far_x, rows[1]), (far_x, rows[2]), (near_x, rows[3])]
    sunny = light.strength > 0 and (light.across > 0) == (plan.flank < 0)
    shade = tile // 8 * 7 if sunny else tile // 5 * 3
    tile_polygon(canvas, corners, shade, wall)
    return canvas.area([(float(x), float(y)) for x, y in corners])


def _paint_courses(canvas: Canvas, plan: BuildingPlan, style: Style) -> None:
    """Paint what runs along the wall: base, string courses, quoins."""
    if style.base == "plinth":
        _band(canvas, (plan.x0, 0.0, plan.x1, min(style.base_m, 0.3 * plan.floors[1])), style, 0.62)
    if style.base == "rustic":
        _rustication(canvas, plan)
    if style.string:
        for floor in plan.floors[1:-1]:
            _band(canvas, (plan.x0, floor - 0.24, plan.x1, floor - 0.06), style, 1.0)
    if style.quoins:
        _quoins(canvas, plan, style)


def _band(canvas: Canvas, rect: tuple[float, float, float, float], style: Style, factor: float) -> None:
    box = canvas.box(rect)
    canvas.blend(box, tint(style.trim, factor), 210)
    edge = canvas.texels(0.05)
    canvas.shade((box[0], box[3] - edge, box[2], box[3] + edge), 190)


def _rustication(canvas: Canvas, plan: BuildingPlan) -> None:
    step, groove = max(0.4, 4 / canvas.unit), canvas.texels(0.04)
    left, right = canvas.x(plan.x0), canvas.x(plan.x1)
    for i in range(1, int(plan.floors[1] / step)):
        y = canvas.y(i * step)
        canvas.shade((left, y, right, y + groove), 180)


def _quoins(canvas: Canvas, plan: BuildingPlan, style: Style) -> None:
    high = max(0.4, 3 / canvas.unit)
    for i in range(int(plan.top / high)):
        wide = 0.5 if i % 2 else 0.32
        for x0, x1 in ((plan.x0, plan.x0 + wide), (plan.x1 - wide, plan.x1)):
            box = canvas.box((x0, i * high, x1, (i + 1) * high))
            canvas.fill(box, style.trim)
            canvas.shade((box[0], box[3] - 1, box[2], box[3]), 175)


def _clearance(canvas: Canvas, plan: BuildingPlan) -> int:
    """Compute how far wall decoration may reach beyond an opening without touching its neighbours."""
    lefts = sorted({o.rect[0] for o in plan.openings if o.storey == plan.storeys - 1})
    widths = [o.rect[2] - o.rect[0] for o in plan.openings if o.storey == plan.storeys - 1]
    gaps = [b - a - widths[0] for a, b in pairwise(lefts)]
    return max(1, int(min(gaps, default=0.6) * canvas.unit / 2) - 1)


def _paint_opening(site: Site, opening: Opening) -> None:
    canvas, style, dice, light = site.canvas, site.style, site.dice, site.light
    box = canvas.box(opening.rect)
    if opening.kind == "shop":
        paint_shop(canvas, box, style, dice, light, site.wall)
        return
    arch = min(site.plan.arch, 0.45 * (box[3] - box[1]) / (box[2] - box[0])) if opening.kind == "window" else 0.0
    edge = min(box[0] - canvas.x(site.plan.x0), canvas.x(site.plan.x1) - box[2])
    clear = max(0, min(site.clearance, edge))
    if clear >= 3:
        paint_surround(canvas, box, style, arch, site.wall, clear)
    number = canvas.add(Instance(opening.kind, site.index, opening.storey, opening.column))
    if opening.kind == "door":
        fill = paint_door(canvas, box, number, style, dice, light, arch)
        _paint_entrance(site, box, max(0, edge))
    else:
        fill = paint_window(canvas, box, number, style, dice, light, arch)
        _paint_window_wear(site, box, arch, clear)
    canvas.instances[number] = replace(canvas.instances[number], full_area=canvas.box_area(box) * fill)


def _paint_entrance(site: Site, box: Box, edge: int) -> None:
    paint_steps(site.canvas, box, edge, site.wall, site.ground)
    if site.dice.chance(0.35):
        paint_canopy(site.canvas, box, edge, site.style, site.light, site.wall)


def _paint_window_wear(site: Site, box: Box, arch: float, clear: int) -> None:
    if site.style.shutters != "none" and not arch:
        paint_open_shutters(site.canvas, box, site.style, clear - 1, site.wall)
    if site.style.sill:
        paint_sill(site.canvas, box, site.style, site.dice, site.light, clear)


def _paint_balconies(canvas: Canvas, plan: BuildingPlan, index: int, style: Style, light: Light) -> None:
    for rect in plan.balconies:
        box = canvas.box((max(rect[0], plan.x0), rect[1], min(rect[2], plan.x1), rect[3]))
        number = canvas.add(Instance("balcony", index))
        fall = canvas.texels(1.1 * light.down) if light.strength else canvas.texels(0.3)
        lean = round(0.9 * light.across * light.strength * canvas.unit)
        dark = 256 - int(110 * light.strength) - 25
        left, right = max(box[0] + lean, canvas.x(plan.x0)), min(box[2] + lean, canvas.x(plan.x1))
        canvas.shade((left, box[3], right, box[3] + fall), dark)
        _rail(canvas, box, style, number)


def _rail(canvas: Canvas, box: Box, style: Style, number: int) -> None:
    """Paint a balcony; its front counts as one surface, gaps between bars included."""
    left, top, right, bottom = box
    slab = canvas.texels(0.16)
    part = canvas.clip((left, top, right, bottom))
    if part is not None:
        canvas.ids[part[1] : part[3], part[0] : part[2]] = number
    if style.rail == "slab":
        canvas.fill(box, mix_colours(style.wall, style.trim, 0.5))
        canvas.shade((left, top, left + max(1, slab // 4), bottom), 200)
        canvas.shade((right - max(1, slab // 2), top, right, bottom), 170)
        canvas.fill((left, top, right, top + max(1, slab // 3)), tint(style.trim, 0.95))
        canvas.shade((left, top + max(1, slab // 3), right, top + max(2, slab * 2 // 3)), 200)
    elif style.rail == "glass":
        canvas.blend(box, (150, 172, 176), 120)
        canvas.fill((left, top, right, top + max(1, slab // 3)), (210, 212, 212))
    else:
        _iron(canvas, box, slab)
    canvas.fill((left, bottom - slab, right, bottom), tint(style.trim, 0.86))
    canvas.shade((left, bottom - max(1, slab // 2), right, bottom), 170)


def _iron(canvas: Canvas, box: Box, slab: int) -> None:
    left, top, right, bottom = box
    bar, step = canvas.texels(0.022), canvas.texels(0.13, 3)
    canvas.shade(box, 205)
    for x in range(left, right, step):
        canvas.fill((x, top, min(x + bar, right), bottom), (38, 40, 42))
    canvas.fill((left, top, right, top + max(1, slab // 3)), (30, 32, 34))
    canvas.fill((left, bottom - 2 * slab, right, bottom - 2 * slab + bar), (38, 40, 42))


def _paint_pipe(canvas: Canvas, plan: BuildingPlan, style: Style) -> None:
    box = canvas.box((plan.x1 - 0.16, 0.0, plan.x1 - 0.06, plan.top))
    canvas.fill(box, mix_colours(style.wall, (90, 92, 94), 0.7))
    canvas.shade((box[2], box[1], box[2] + canvas.texels(0.06), box[3]), 190)


def _paint_cornice(canvas: Canvas, plan: BuildingPlan, style: Style, light: Light, wall: int, roof: int) -> None:
    """Paint the cornice at the top of the wall, and its shadow over all that is below.

    Its ends beyond the wall count as roof: the wall stays convex, so that no image border cuts it in two.
    """
    high = {"none": 0.12, "plain": 0.26, "rich": 0.5, "dentils": 0.5}[style.cornice]
    out = 0.0 if style.cornice == "none" or plan.roof == "gable" else OVERHANG * (0.5 if high < 0.4 else 0.9)
    rect = (plan.x0 - out, plan.top - high, plan.x1 + out, plan.top)
    left, top, right, bottom = canvas.box(rect)
    if plan.roof == "gable":
        return
    fall = canvas.texels(2.2 * out * light.down) if light.strength else canvas.texels(0.15)
    wall_box = canvas.box((plan.x0, 0.0, plan.x1, plan.top))
    canvas.shade((wall_box[0], bottom, wall_box[2], bottom + fall), 256 - int(105 * light.strength) - 20)
    canvas.fill((left, top, right, bottom), style.trim, roof)
    canvas.fill((wall_box[0], top, wall_box[2], bottom), style.trim, wall)
    third = max(1, (bottom - top) // 3)
    canvas.shade((left, top + third, right, bottom), 228)
    canvas.shade((left, bottom - third, right, bottom), 205)
    canvas.shade((left, top + third, right, top + third + 1), 170)
    if style.cornice == "dentils":
        tooth = canvas.texels(0.16, 2)
        for x in range(left, right, 2 * tooth):
            canvas.shade((x, bottom - third, x + tooth, bottom), 150)
