"""Reading photos and masks: one way for every stage, training and detection alike.

Photos come out upright, RGB, uint8. What cannot be read safely is a `BadInputError` with a reason.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from pipeline.errors import BadInputError

__all__ = [
    "MAX_PIXELS",
    "PhotoFacts",
    "decode_photo",
    "decode_upright_photo",
    "inspect_photo",
    "open_image",
    "read_mask_codes",
    "turn_upright",
]

UInt8 = npt.NDArray[np.uint8]
# More is no photo of a building but a decompression bomb, or a scan that wants cutting first.
MAX_PIXELS = 150_000_000
# Formats whose decoders take no programs and no links: no EPS, PDF, WMF, FITS.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000")
# What a decoder raises on bytes that are not what their header says.
DECODE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error)
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class PhotoFacts:
    """What a photo's file says of it; width and height are those of the upright photo."""

    width: int
    height: int
    orientation: int
    latitude: float | None = None
    longitude: float | None = None
    heading: float | None = None
    captured_at: str | None = None


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return an image whose header has been read and found harmless; its pixels are not decoded yet."""
    if not data:
        raise BadInputError("the file is empty")
    Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit warns at one size and raises at another: ours is below
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadInputError("the file is not an image in a format that is read here") from None
    except DECODE_ERRORS as error:
        raise BadInputError(f"the image's header is broken: {error}") from None
    if image.width * image.height > max_pixels:
        size = f"{image.width}x{image.height}"
        raise BadInputError(f"the image has {size} pixels, more than the {max_pixels:,} allowed")
    return image


def inspect_photo(data: bytes, max_pixels: int = MAX_PIXELS, min_side: int = 1) -> PhotoFacts:
    """Return a photo's facts after decoding all of it once, at its smallest scale where the format allows that."""
    image = open_image(data, max_pixels)
    width, height = image.size
    if min(width, height) < min_side:
        raise BadInputError(f"the photo has {width}x{height} pixels, at least {min_side} a side are needed")
    image.draft("RGB", (1, 1))
    exif = _load(image)
    turned = _orientation(exif) >= 5 and image.format != "TIFF"  # Pillow turns TIFF, and only TIFF, by itself
    return _make_facts(exif, *((height, width) if turned else (width, height)))


def decode_photo(data: bytes, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Return the upright photo, (H, W, 3) RGB."""
    return decode_upright_photo(data, max_pixels=max_pixels)[0]


def decode_upright_photo(
    data: bytes, min_size: tuple[int, int] = (0, 0), max_pixels: int = MAX_PIXELS
) -> tuple[UInt8, PhotoFacts]:
    """Return the upright photo, (H, W, 3) RGB, and its facts.

    With `min_size` the photo may come out smaller, if its format decodes faster at a smaller size: a JPEG by halves,
    with no side below `min_size` (height, width).
    """
    image = open_image(data, max_pixels)
    width, height = image.size
    if any(min_size) and image.format in {"JPEG", "MPO"}:  # MPO: several JPEGs, the first of them is the photo
        image.draft("RGB", (max(min_size), max(min_size)))
    exif = _load(image)
    orientation = 1 if image.format == "TIFF" else _orientation(exif)
    upright = _to_rgb(image)
    if orientation != 1:
        upright = upright.transpose(TRANSPOSES[orientation])
    facts = _make_facts(exif, *((height, width) if orientation >= 5 else (width, height)))
    return np.array(upright), facts  # writable, as PyTorch would have it


def read_mask_codes(data: bytes, colours: bool, max_pixels: int = MAX_PIXELS) -> tuple[npt.NDArray[Any], bool]:
    """Return a mask's (H, W) codes as stored, and whether its format is a lossy one.

    Colours are packed as 0xBBGGRR (what four RGBA bytes read as on a little-endian machine, less the alpha); indices
    are the palette's or the grey values, never the colours they show as.
    """
    image = open_image(data, max_pixels)
    lossy = image.format in {"JPEG", "MPO", "WEBP"}
    _load(image)
    return (_pack_colours(image) if colours else _indices(image)), lossy


def turn_upright(mask: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Return a 2-D array turned the way that its photo's EXIF orientation asks for."""
    turned = mask.T if orientation in {5, 6, 7, 8} else mask
    if orientation in {2, 3, 6, 7}:
        turned = turned[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        turned = turned[::-1]
    return np.ascontiguousarray(turned)


def _load(image: Image.Image) -> Image.Exif:
    """Decode all pixels and return the EXIF; loading a TIFF drops the orientation, loading a PNG may find it."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation) if image.format == "TIFF" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is not what we read
            image.load()
            exif = image.getexif()
    except DECODE_ERRORS as error:
        raise BadInputError(f"the image is damaged: {error}") from None
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    return exif


def _pack_colours(image: Image.Image) -> npt.NDArray[np.uint32]:
    rgba = np.ascontiguousarray(image if image.mode == "RGBA" else image.convert("RGBA"))
    return rgba.view("<u4")[..., 0] & np.uint32(0xFFFFFF)


def _indices(image: Image.Image) -> npt.NDArray[Any]:
    if image.mode in {"P", "L", "1", "I", "I;16", "I;16B"}:
        return np.asarray(image)
    if image.mode == "LA":
        return np.asarray(image)[..., 0]
    pixels = np.asarray(image)
    if pixels.ndim == 3 and (pixels[..., :1] == pixels[..., 1:3]).all():
        return np.ascontiguousarray(pixels[..., 0])  # grey values that some tool saved as RGB
    raise BadInputError(f"the mask holds colours (mode {image.mode}), not indices; describe it as a colour mask")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: the high byte
        wide = np.asarray(image).astype(np.int64)
        return Image.fromarray(np.clip(wide >> 8, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _make_facts(exif: Image.Exif, width: int, height: int) -> PhotoFacts:
    """Return the facts of an image with this EXIF and this upright size."""
    orientation = _orientation(exif)
    try:
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
        details = exif.get_ifd(ExifTags.IFD.Exif)
    except DECODE_ERRORS:
        return PhotoFacts(width, height, orientation)
    return PhotoFacts(
        width,
        height,
        orientation,
        latitude=_degrees(gps, ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLatitudeRef, 90),
        longitude=_degrees(gps, ExifTags.GPS.GPSLongitude, ExifTags.GPS.GPSLongitudeRef, 180),
        heading=_parse_number(gps.get(ExifTags.GPS.GPSImgDirection), 0, 360),
        captured_at=_parse_time(details.get(ExifTags.Base.DateTimeOriginal)),
    )


def _orientation(exif: Image.Exif) -> int:
    value = exif.get(ExifTags.Base.Orientation, 1)
    return value if value in TRANSPOSES else 1


def _degrees(gps: dict[int, Any], key: int, ref: int, limit: float) -> float | None:
    parts = gps.get(key)
    if not isinstance(parts, tuple) or len(parts) != 3:
        return None
    degrees, minutes, seconds = (_parse_number(part, 0, 360) for part in parts)
    if degrees is None or minutes is None:
        return None
    value = degrees + minutes / 60 + (seconds or 0.0) / 3600
    return None if value > limit else value * (-1 if gps.get(ref) in {"S", "W"} else 1)


def _parse_number(value: Any, low: float, high: float) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if low <= number <= high else None  # not a number is in no range


def _parse_time(value: Any) -> str | None:
    try:
        return datetime.strptime(str(value).strip("\0 "), "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None
