"""The canvas: colours and instance numbers of the flat street, painted by the same calls."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.datasets.synthetic.camera import Camera, Point
from pipeline.datasets.synthetic.plan import Rect
from pipeline.datasets.synthetic.rng import Bytes

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom in texels, half-open
Mask = NDArray[np.bool_]
MIRROR_SHRINK = 6  # texels of the canvas to one of the picture that panes mirror

NAMES: tuple[str, ...] = (
    "background",
    "wall",
    "window",
    "door",
    "balcony",
    "roof",
    "sky",
    "ground",
    "vegetation",
    "car",
    "post",
)
BUILDING_PARTS: tuple[str, ...] = ("wall", "window", "door", "balcony")


@dataclass(frozen=True)
class Instance:
    """What an instance number stands for; `full_area` is its whole area in photo pixels, hidden parts included."""

    label: str
    building: int = -1
    storey: int | None = None
    column: int | None = None
    full_area: float = 0.0


class Canvas:
    """Texels of the flat picture (`rgb`, `ids`) at `scale` texels a flat pixel, with the things they show."""

    def __init__(self, camera: Camera) -> None:
        """Make an empty canvas that holds all the camera can see."""
        corners = camera.corners()
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        self.camera = camera
        # two texels a pixel: Pillow's bilinear sample of four texels is then a fair average over the pixel
        self.scale = 2 if camera.width * camera.height <= 1_200_000 else 1
        self.left, self.top = math.floor(min(xs)) - 2, math.floor(min(ys)) - 2
        self.width = (math.ceil(max(xs)) + 2 - self.left) * self.scale
        self.height = (math.ceil(max(ys)) + 2 - self.top) * self.scale
        self.rgb: Bytes = np.zeros((self.height, self.width, 3), np.uint8)
        self.ids: NDArray[np.uint16] = np.zeros((self.height, self.width), np.uint16)
        self.instances: list[Instance] = [Instance("background")]
        self.mirror = Image.new("RGB", (8, 8))

    @property
    def unit(self) -> float:
        """How many texels a metre is."""
        return self.camera.px_per_m * self.scale

    @property
    def distance(self) -> float:
        """How far the facades are from the camera, in metres."""
        return self.camera.focal / self.camera.px_per_m

    def texels(self, metres: float, minimum: int = 1) -> int:
        """Return a length in texels, at least `minimum`."""
        return max(minimum, round(metres * self.unit))

    def x(self, metres: float) -> int:
        """Return the texel column of a place on the street."""
        return round((self.camera.origin_x - self.left) * self.scale + metres * self.unit)

    def y(self, metres: float) -> int:
        """Return the texel row of a height above the ground line."""
        return round((self.camera.ground_y - self.top) * self.scale - metres * self.unit)

    def box(self, rect: Rect) -> Box:
        """Return a rectangle of metres in texels, never empty."""
        left, top = self.x(rect[0]), self.y(rect[3])
        return left, top, max(self.x(rect[2]), left + 1), max(self.y(rect[1]), top + 1)

    def add(self, instance: Instance) -> int:
        """Return the number of a new thing."""
        self.instances.append(instance)
        return len(self.instances) - 1

    def area(self, outline: list[Point]) -> float:
        """Return the area in photo pixels of an outline in texels."""
        flat = [(x / self.scale + self.left, y / self.scale + self.top) for x, y in outline]
        return self.camera.projected_area(flat)

    def box_area(self, box: Box) -> float:
        """Return the area in photo pixels of a box."""
        left, top, right, bottom = box
        return self.area([(left, top), (right, top), (right, bottom), (left, bottom)])

    def clip(self, box: Box) -> Box | None:
        """Return the part of a box on the canvas, or None."""
        left, top = max(box[0], 0), max(box[1], 0)
        right, bottom = min(box[2], self.width), min(box[3], self.height)
        return (left, top, right, bottom) if left < right and top < bottom else None

    def fill(self, box: Box, colour: Colour, number: int | None = None) -> None:
        """Paint a box in one colour; with a number, it becomes part of that thing."""
        part = self.clip(box)
        if part is None:
            return
        left, top, right, bottom = part
        self.rgb[top:bottom, left:right] = colour
        if number is not None:
            self.ids[top:bottom, left:right] = number

    def shade(self, box: Box, factor: int) -> None:
        """Multiply the colours of a box by factor / 256, at most 1."""
        part = self.clip(box)
        if part is None:
            return
        left, top, right, bottom = part
        view = self.rgb[top:bottom, left:right]
        view[...] = (view.astype(np.uint16) * min(factor, 256)) >> 8

    def blend(self, box: Box, colour: Colour, weight: int) -> None:
        """Mix weight / 256 of a colour into a box."""
        part = self.clip(box)
        if part is None:
            return
        left, top, right, bottom = part
        view = self.rgb[top:bottom, left:right]
        own = np.array([c * weight for c in colour], np.uint16)
        view[...] = (view.astype(np.uint16) * (256 - weight) + own) >> 8

    def paste(self, left: int, top: int, picture: Bytes, mask: Mask | None, number: int | None) -> None:
        """Lay a picture (h, w, 3) on the canvas where the mask (h, w) is true."""
        height, width = picture.shape[:2]
        part = self.clip((left, top, left + width, top + height))
        if part is None:
            return
        here = np.s_[part[1] : part[3], part[0] : part[2]]
        there = np.s_[part[1] - top : part[3] - top, part[0] - left : part[2] - left]
        if mask is None:
            self.rgb[here] = picture[there]
            if number is not None:
                self.ids[here] = number
            return
        shown = mask[there]
        np.copyto(self.rgb[here], picture[there], where=shown[:, :, None])
        if number is not None:
            np.copyto(self.ids[here], np.uint16(number), where=shown)

    def reflection(self, box: Box, shift: tuple[int, int]) -> Bytes:
        """Return the reflection in a pane at that box, (h, w, 3); panes differ by their shift."""
        shrink, size = MIRROR_SHRINK, (box[2] - box[0], box[3] - box[1])
        wide = min(max(2, size[0] // shrink), self.mirror.width)
        tall = min(max(2, size[1] // shrink), self.mirror.height)
        left = ((box[0] + shift[0]) // shrink) % max(self.mirror.width - wide, 1)
        top = min(max((box[1] + shift[1]) // shrink, 0), self.mirror.height - tall)
        part = (left, top, left + wide, top + tall)
        return np.asarray(self.mirror.resize(size, Image.Resampling.BILINEAR, part))


def tint(colour: Colour, factor: float) -> Colour:
    """Return the colour lighter (factor over 1) or darker."""
    red, green, blue = (min(255, max(0, round(c * factor))) for c in colour)
    return red, green, blue


def mix_colours(first: Colour, second: Colour, share: float) -> Colour:
    """Return a colour with that share of the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
