"""The composition of a photo: which buildings stand side by side, the camera before them, the light."""

from dataclasses import dataclass, replace

from pipeline.datasets.synthetic.camera import Camera, random_rotation
from pipeline.datasets.synthetic.plan import CLEAR_PX, OVERHANG, BuildingPlan, Sketch, build, draft
from pipeline.datasets.synthetic.rng import SeededRandom

CAMERA_HEIGHT = 1.7  # height of the camera over the ground, in metres


@dataclass(frozen=True)
class Light:
    """The sun: shadows fall by (across, down) per metre of depth; strength 0 is an overcast sky."""

    hour: str
    across: float
    down: float
    strength: float


@dataclass(frozen=True)
class Street:
    """All that is decided before painting."""

    camera: Camera
    plans: tuple[BuildingPlan, ...]
    light: Light


def plan_street(seed: int, width: int, height: int) -> Street:
    """Return the street of a seed, composed for a photo of that size."""
    dice = SeededRandom(seed, 1)
    main = draft(dice, 1)
    camera = _camera(dice, main, width, height)
    plans = [build(dice, main, -main.width / 2, camera.px_per_m)]
    for side in _sides(dice):
        sketch = main if dice.chance(0.15) else draft(dice, 2 + side)
        alley = 2 * OVERHANG + 2 * CLEAR_PX / camera.px_per_m + dice.uniform(0.0, 1.0) * dice.uniform(0.0, 5.0)
        start = plans[0].x1 + alley if side else plans[0].x0 - alley - sketch.width
        plans.append(build(dice, sketch, start, camera.px_per_m))
    plans = [_with_flank(plan, plans, camera, dice.uniform(6.0, 14.0)) for plan in plans]
    return Street(camera, tuple(plan for plan in plans if _in_view(plan, camera)), _light(dice))


def _with_flank(plan: BuildingPlan, plans: list[BuildingPlan], camera: Camera, depth: float) -> BuildingPlan:
    """Return the building with the side wall that the camera sees of it, as far as the alley has room.

    A point z metres behind the facades, X to the side of the camera's axis, is drawn at X * D / (D + z), where D is the
    distance of the facades. Only flat roofs: a pitched one would have to show its gable.
    """
    axis, distance = (camera.width / 2 - camera.origin_x) / camera.px_per_m, camera.focal / camera.px_per_m
    side = 1 if plan.x1 < axis else -1 if plan.x0 > axis else 0
    if plan.roof != "flat" or side == 0:
        return plan
    edge = plan.x1 if side > 0 else plan.x0
    rooms = [side * ((other.x0 if side > 0 else other.x1) - edge) for other in plans if other is not plan]
    room = min((r for r in rooms if r > 0), default=99.0) - OVERHANG - 2 * CLEAR_PX / camera.px_per_m
    offset = abs(edge - axis)
    wide = min(offset * depth / (distance + depth), room)
    if wide < 0.3:
        return plan
    return replace(plan, flank=side * wide, depth=wide * distance / (offset - wide))


def _sides(rng: SeededRandom) -> tuple[int, ...]:
    return rng.choice(((), (0,), (1,), (0, 1), (0, 1)))


def _camera(rng: SeededRandom, main: Sketch, width: int, height: int) -> Camera:
    total = main.floors[-1] + main.roof_height
    view = rng.choice(("fit", "fit", "fit", "near", "near", "far"))
    low, high, wide = {"fit": (0.6, 0.85, 0.9), "near": (0.85, 1.6, 1.6), "far": (0.3, 0.55, 0.5)}[view]
    tall = height * rng.uniform(low, high) / total
    scale = min(tall, width * rng.uniform(0.7, 1.0) * wide / main.width)
    size = max(0.4, min(width / 640, height / 480))
    scale = min(max(scale, 8.5 * size / min(main.window)), 118 * size / max(main.window))
    sky = {"fit": (0.84, 0.96), "near": (0.86, 1.08), "far": (0.7, 0.92)}[view]
    return Camera(
        width,
        height,
        focal=max(width, height) * rng.uniform(0.9, 1.6),
        rotation=random_rotation(rng),
        px_per_m=scale,
        origin_x=width * rng.uniform(0.38, 0.62),
        ground_y=height * rng.uniform(*sky),
    )


def _light(rng: SeededRandom) -> Light:
    hour = rng.choice(("noon", "noon", "morning", "dusk", "overcast", "overcast"))
    low = hour in ("morning", "dusk")
    down = rng.uniform(0.25, 0.6) if low else rng.uniform(0.7, 1.5)
    strength = 0.0 if hour == "overcast" else rng.uniform(0.6, 1.0)
    return Light(hour, rng.uniform(0.3, 1.2) * rng.choice((-1, 1)), down, strength)


def _in_view(plan: BuildingPlan, camera: Camera) -> bool:
    """Whether enough of the wall is shown: never a mere splinter of cornice at the border."""
    xs = [x for x, _ in camera.corners()]
    margin = 0.06 * camera.width
    left, right = max(xs[0], xs[3]) + margin, min(xs[1], xs[2]) - margin
    scale = camera.px_per_m
    return camera.origin_x + plan.x1 * scale > left and camera.origin_x + plan.x0 * scale < right
