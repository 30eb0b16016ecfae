"""The camera: a turned view of the plane on which the street is drawn.

The street is drawn fronto-parallel ("flat" pixels, y down, as large as the photo) and seen by a camera that turns
about its own centre: a rotation homography, so straight lines stay straight and one formula serves both ways.
"""

import math
from dataclasses import dataclass

from pipeline.datasets.synthetic.rng import SeededRandom

Point = tuple[float, float]
Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Camera:
    """Size of the photo, focal length in pixels, rotation, and where metres lie on the flat picture."""

    width: int
    height: int
    focal: float
    rotation: Matrix
    px_per_m: float
    origin_x: float
    ground_y: float

    @property
    def shift(self) -> Point:
        """Where the flat centre falls before it is brought back to the photo's centre."""
        r = self.rotation
        return self.focal * r[0][2] / r[2][2], self.focal * r[1][2] / r[2][2]

    def to_flat(self, x: float, y: float) -> Point:
        """Return the flat pixel that the photo shows at (x, y)."""
        r, f = self.rotation, self.focal
        u, v = x - self.width / 2 + self.shift[0], y - self.height / 2 + self.shift[1]
        px, py, pz = (r[0][i] * u + r[1][i] * v + r[2][i] * f for i in range(3))
        return f * px / pz + self.width / 2, f * py / pz + self.height / 2

    def to_photo(self, x: float, y: float) -> Point:
        """Return where the photo shows the flat pixel (x, y)."""
        f = self.focal
        u, v = x - self.width / 2, y - self.height / 2
        qx, qy, qz = (row[0] * u + row[1] * v + row[2] * f for row in self.rotation)
        return f * qx / qz - self.shift[0] + self.width / 2, f * qy / qz - self.shift[1] + self.height / 2

    def corners(self) -> list[Point]:
        """Return the flat positions of the photo's corners: left top, right top, right bottom, left bottom."""
        w, h = self.width, self.height
        return [self.to_flat(x, y) for x, y in ((0, 0), (w, 0), (w, h), (0, h))]

    def coefficients(self, left: int, top: int, scale: float) -> tuple[float, ...]:
        """Return the 8 numbers of Pillow's perspective transform from a canvas at (left, top) with that scale."""
        r, f = self.rotation, self.focal
        du, dv = self.shift[0] - self.width / 2, self.shift[1] - self.height / 2
        rows = [(r[0][i], r[1][i], r[0][i] * du + r[1][i] * dv + r[2][i] * f) for i in range(3)]
        across = [scale * (f * a + (self.width / 2 - left) * c) for a, c in zip(rows[0], rows[2], strict=True)]
        down = [scale * (f * a + (self.height / 2 - top) * c) for a, c in zip(rows[1], rows[2], strict=True)]
        end = rows[2][2]
        return (*(a / end for a in across), *(a / end for a in down), rows[2][0] / end, rows[2][1] / end)

    def projected_area(self, outline: list[Point]) -> float:
        """Return the area in photo pixels of a flat polygon (shoelace formula)."""
        points = [self.to_photo(x, y) for x, y in outline]
        total = 0.0
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            total += x0 * y1 - x1 * y0
        return abs(total) / 2


def rotation_matrix(yaw: float, pitch: float, roll: float) -> Matrix:
    """Return the rotation by these degrees, rounded so that the C library's last bit cannot show."""
    (cy, sy), (cp, sp), (cr, sr) = (_cos_sin(angle) for angle in (yaw, pitch, roll))
    return (
        (cr * cy - sr * sp * sy, -sr * cp, cr * sy + sr * sp * cy),
        (sr * cy + cr * sp * sy, cr * cp, sr * sy - cr * sp * cy),
        (-cp * sy, sp, cp * cy),
    )


def random_rotation(rng: SeededRandom) -> Matrix:
    """Return a mild turn: mostly from the side a little, looking up a little, hardly tilted."""
    strong = rng.chance(0.3)
    yaw = rng.uniform(-22, 22) if strong else rng.uniform(-9, 9)
    pitch = rng.uniform(-3, 9) if strong else rng.uniform(-2, 5)
    return rotation_matrix(yaw, pitch, rng.uniform(-1.6, 1.6))


def _cos_sin(degrees: float) -> tuple[float, float]:
    angle = math.radians(degrees)
    return round(math.cos(angle), 9), round(math.sin(angle), 9)
