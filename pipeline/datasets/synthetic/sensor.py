"""From flat colours to a photo: warp, large shadows, exposure, white balance, blur and noise."""

from statistics import NormalDist

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from pipeline.datasets.synthetic.canvas import Canvas
from pipeline.datasets.synthetic.layout import Light
from pipeline.datasets.synthetic.rng import Bytes, SeededRandom
from pipeline.datasets.synthetic.texture import clouds

WARP = Image.Transform.PERSPECTIVE


def expose(canvas: Canvas, rng: SeededRandom, light: Light) -> Bytes:
    """Return the photo (H, W, 3) of a painted canvas."""
    camera = canvas.camera
    size = (camera.width, camera.height)
    warp = camera.coefficients(canvas.left, canvas.top, canvas.scale)
    photo = Image.fromarray(canvas.rgb).transform(size, WARP, warp, Image.Resampling.BILINEAR)
    shadow = _light_map(canvas, rng, light)
    photo = ImageChops.multiply(photo, _tinted_light(ImageChops.multiply(shadow, _vignette(rng, size)), light))
    photo = photo.point(_tone(rng, light))
    blur = rng.uniform(0.0, 0.55) * min(size) / 480
    if rng.chance(0.12):
        blur += 0.9 * min(size) / 480
    if blur > 0.25:
        photo = photo.filter(ImageFilter.BoxBlur(round(blur, 3)))
    return _add_noise(photo, rng)


def _light_map(canvas: Canvas, rng: SeededRandom, light: Light) -> Image.Image:
    """Return the grey picture of large light and shade, warped like the street itself."""
    shrink = 2 * canvas.scale
    width, height = canvas.width // shrink + 1, canvas.height // shrink + 1
    soft = clouds(rng, max(width // 4, 4), max(height // 4, 4), (4, 10, 24)) // 6 + np.uint8(212)
    flat = Image.fromarray(soft.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    if light.strength and rng.chance(0.45):
        flat = ImageChops.multiply(flat, _street_shadow(canvas, rng, light, (width, height), shrink))
    camera = canvas.camera
    warp = camera.coefficients(canvas.left, canvas.top, canvas.scale / shrink)
    return flat.transform((camera.width, camera.height), WARP, warp, Image.Resampling.BILINEAR)


def _street_shadow(canvas: Canvas, rng: SeededRandom, light: Light, size: tuple[int, int], shrink: int) -> Image.Image:
    """Return the shade that the houses opposite cast on the street and the lower storeys."""
    width, height = size
    dark = 256 - int(120 * light.strength)
    shade = Image.new("L", size, 255)
    sketch = ImageDraw.Draw(shade)
    x, line = -width // 4, canvas.y(0.0) // shrink
    lean = round(light.across * canvas.unit / shrink)
    base = rng.uniform(0.0, 5.0)
    while x < width * 5 // 4:
        wide = max(4, round(rng.uniform(5.0, 15.0) * canvas.unit / shrink))
        top = line - round((base + rng.uniform(-3.0, 3.0)) * canvas.unit / shrink)
        sketch.polygon([(x, height), (x, top), (x + wide, top - lean), (x + wide, height)], fill=dark)
        x += wide
    if line < height:
        sketch.rectangle((0, line + (height - line) // 2, width, height), fill=dark)
    return shade.filter(ImageFilter.BoxBlur(max(1, round(0.04 * canvas.unit / shrink))))


def _vignette(rng: SeededRandom, size: tuple[int, int]) -> Image.Image:
    depth = rng.integer(0, 26)
    y, x = np.arange(24)[:, None] * 2 - 23, np.arange(32)[None, :] * 2 - 31
    fall = (x * x + y * y * 16 // 9) * depth // 1900
    return Image.fromarray((255 - fall).clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)


def _tinted_light(light_map: Image.Image, light: Light) -> Image.Image:
    """Return the light in colour: shade keeps the blue of the sky."""
    bands = []
    for keep in (0.0, 0.05, 0.16 if light.strength else 0.03):
        bands.append(light_map.point([min(255, round(v + (255 - v) * keep)) for v in range(256)]))
    return Image.merge("RGB", bands)


def _tone(rng: SeededRandom, light: Light) -> list[int]:
    """Return the table of exposure, contrast and white balance for the three colours."""
    gain = rng.uniform(0.92, 1.38) * (0.85 if light.hour == "dusk" else 1.0)
    contrast, warm = rng.uniform(-0.25, 0.45), rng.uniform(-0.07, 0.09)
    warm += {"dusk": 0.05, "morning": 0.05, "noon": 0.02, "overcast": -0.03}[light.hour]
    haze = rng.uniform(0.0, 0.06)
    table: list[int] = []
    for balance in (1.0 + warm, 1.0, 1.0 - warm):
        for value in range(256):
            level = _shoulder(value / 255 * gain * balance)
            level += contrast * level * (1 - level) * (2 * level - 1) * 2
            table.append(min(255, max(0, round(255 * (haze + (1 - haze) * level)))))
    return table


def _shoulder(level: float) -> float:
    """Return the level with its highlights compressed into what is left below 1, as film and cameras do."""
    over = (level - 0.7) / 0.3
    return level if over <= 0 else min(1.0, 0.7 + 0.36 * over / (over + 1.0))


def _add_noise(photo: Image.Image, rng: SeededRandom) -> Bytes:
    """Return the photo with sensor noise: evenly distributed bytes through the normal distribution's quantiles."""
    sigma = rng.uniform(0.8, 3.2) if rng.chance(0.8) else rng.uniform(3.0, 7.0)
    normal = NormalDist()
    table = [128 + round(sigma * normal.inv_cdf((v + 0.5) / 256)) for v in range(256)]
    size = (photo.height, photo.width)
    luma = Image.fromarray(rng.bytes(*size)).point(table)
    noise = Image.merge("RGB", (luma, luma, luma))
    if rng.chance(0.5):
        noise = Image.fromarray(rng.bytes(*size, 3)).point(table * 3)
    return np.asarray(ImageChops.add(photo, noise, 1, -128))
