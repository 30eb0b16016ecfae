"""How a building looks: materials, colours and habits, chosen once for all of its parts."""

from dataclasses import dataclass

from pipeline.datasets.synthetic.canvas import Colour, mix_colours, tint
from pipeline.datasets.synthetic.rng import SeededRandom

PLASTER: tuple[Colour, ...] = (
    (226, 214, 190),
    (214, 196, 158),
    (205, 182, 150),
    (222, 205, 170),
    (196, 200, 196),
    (232, 228, 220),
    (180, 188, 178),
    (216, 178, 148),
    (196, 150, 128),
    (168, 182, 196),
    (150, 160, 150),
    (206, 188, 120),
    (178, 120, 104),
    (140, 132, 126),
)
BRICK: tuple[Colour, ...] = (
    (150, 82, 62),
    (134, 70, 56),
    (168, 100, 74),
    (176, 142, 104),
    (116, 78, 66),
    (190, 168, 138),
)
STONE: tuple[Colour, ...] = ((196, 184, 160), (178, 170, 156), (206, 194, 168), (160, 152, 142))
CONCRETE: tuple[Colour, ...] = ((168, 168, 164), (184, 180, 172), (150, 152, 154), (196, 190, 178), (206, 208, 206))
TRIM: tuple[Colour, ...] = ((238, 234, 224), (226, 216, 196), (204, 196, 180), (244, 242, 238))
FRAME: tuple[Colour, ...] = (
    (242, 242, 238),
    (236, 232, 222),
    (240, 240, 240),
    (104, 70, 44),
    (62, 48, 40),
    (54, 58, 60),
    (44, 66, 54),
    (120, 124, 126),
)
DOOR: tuple[Colour, ...] = (
    (92, 54, 34),
    (60, 38, 28),
    (40, 70, 54),
    (34, 52, 84),
    (120, 34, 32),
    (52, 54, 58),
    (136, 96, 60),
    (208, 204, 196),
    (88, 104, 116),
)
TILE: tuple[Colour, ...] = ((150, 78, 56), (128, 66, 50), (92, 72, 62), (84, 86, 92), (70, 76, 86), (112, 106, 100))
SHUTTER: tuple[Colour, ...] = (
    (62, 92, 70),
    (70, 90, 110),
    (110, 60, 46),
    (196, 196, 190),
    (96, 110, 96),
    (120, 90, 62),
)
FABRIC: tuple[Colour, ...] = ((226, 220, 206), (206, 196, 176), (176, 160, 140), (190, 176, 190), (236, 232, 226))


@dataclass(frozen=True)
class Style:
    """The choices of one building."""

    material: str
    wall: Colour
    trim: Colour
    frame: Colour
    door: Colour
    roof: Colour
    shutter: Colour
    bars: tuple[int, int]
    transom: float
    frame_m: float
    reveal_m: float
    surround: str
    sill: bool
    shutters: str
    cornice: str
    string: bool
    quoins: bool
    base: str
    base_m: float
    blinds: float
    curtains: float
    rail: str
    pipe: bool
    dirt: float
    parapet: bool


def choose_style(rng: SeededRandom, family: str) -> Style:
    """Return the look of a building of that family."""
    old = family in ("house", "town", "palace")
    material, wall = _wall(rng, family)
    trim = rng.choice(TRIM) if material != "plaster" else rng.choice((*TRIM, tint(wall, 1.12), tint(wall, 0.8)))
    frame = rng.choice(FRAME)
    bars = rng.choice(((2, 3), (2, 2), (2, 4), (3, 4), (2, 1)) if old else ((1, 1), (2, 1), (3, 1), (2, 1), (2, 2)))
    crown = rng.choice(("none", "frame", "frame", "lintel", "pediment", "brick") if old else ("none", "none", "frame"))
    return Style(
        material=material,
        wall=wall,
        trim=trim,
        frame=frame,
        door=rng.choice(DOOR),
        roof=rng.choice(TILE),
        shutter=rng.choice(SHUTTER),
        bars=bars,
        transom=rng.choice((0.0, 0.28, 0.33)) if old else rng.choice((0.0, 0.0, 0.25)),
        frame_m=rng.uniform(0.05, 0.09),
        reveal_m=rng.uniform(0.06, 0.24),
        surround="lintel" if crown == "brick" and material != "brick" else crown,
        sill=rng.chance(0.8),
        shutters=rng.choice(("none", "open", "mixed")) if family in ("house", "town") and rng.chance(0.6) else "none",
        cornice=rng.choice(("plain", "rich", "dentils")) if old else rng.choice(("none", "plain")),
        string=rng.chance(0.55 if old else 0.25),
        quoins=family in ("town", "palace") and rng.chance(0.35),
        base=rng.choice(("none", "plinth", "plinth", "rustic") if old else ("none", "plinth")),
        base_m=rng.uniform(0.3, 1.0),
        blinds=rng.choice((0.0, 0.1, 0.3, 0.5)),
        curtains=rng.choice((0.1, 0.3, 0.6, 0.8)),
        rail=rng.choice(("iron", "iron", "slab") if old else ("slab", "glass", "iron", "slab")),
        pipe=rng.chance(0.4),
        dirt=rng.uniform(0.0, 1.0),
        parapet=rng.chance(0.4),
    )


def _wall(rng: SeededRandom, family: str) -> tuple[str, Colour]:
    kinds = {
        "house": ("plaster", "plaster", "brick", "brick", "boards"),
        "town": ("plaster", "plaster", "brick", "stone"),
        "palace": ("stone", "stone", "plaster", "brick"),
        "block": ("plaster", "panels", "panels", "brick"),
        "modern": ("panels", "plaster", "metal", "brick"),
    }
    kind = rng.choice(kinds[family])
    palette = {"brick": BRICK, "stone": STONE, "panels": CONCRETE, "metal": CONCRETE}.get(kind, PLASTER)
    colour = mix_colours(rng.choice(palette), rng.choice(palette), rng.uniform(0.0, 0.4))
    return kind, tint(colour, rng.uniform(0.82, 1.08))
