"""Read pictures for the page: charts as they are, sheets of photos as JPEGs within a limit."""

from __future__ import annotations

import io
import math
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from pipeline.stages.report.blocks import Figure

__all__ = ["ImageLimit", "read_chart", "read_sheet"]

JPEG_QUALITY: Final = 82


@dataclass(frozen=True)
class ImageLimit:
    """The limits of a sheet of photos.

    Attributes:
        width: in pixels.
        size: in bytes.
    """

    width: int
    size: int


def read_chart(path: Path, caption: str) -> Figure | None:
    """Read a chart; None if there is no readable file."""
    try:
        data = path.read_bytes()
        (width, height), mime = _inspect(data)
    except (OSError, UnidentifiedImageError):
        return None
    return Figure(_data_uri(data, mime), caption, width, height)


def read_sheet(path: Path, caption: str, limit: ImageLimit) -> Figure | None:
    """Read a sheet of photos as a JPEG within the limit; None if there is no readable file."""
    try:
        data = _shrink(path.read_bytes(), limit)
        (width, height), mime = _inspect(data)
    except (OSError, UnidentifiedImageError):
        return None
    return Figure(_data_uri(data, mime), caption, width, height, "sheet")


def _inspect(data: bytes) -> tuple[tuple[int, int], str]:
    """Return the size and the MIME type of an image file."""
    with Image.open(io.BytesIO(data)) as image:
        return image.size, f"image/{(image.format or 'png').lower()}"


def _data_uri(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{b64encode(data).decode()}"


def _shrink(data: bytes, limit: ImageLimit) -> bytes:
    """Encode an image as a JPEG within the limit, never larger than it was."""
    with Image.open(io.BytesIO(data)) as image:
        photo = image.convert("RGB")
    width = min(limit.width, photo.width)
    while len(jpeg := _encode_jpeg(photo, width)) > limit.size and width > 1:
        # An image with half the pixels takes more than half the bytes: several steps approach the limit from above.
        width = max(1, int(width * max(0.5, math.sqrt(limit.size / len(jpeg)))))
    return jpeg


def _encode_jpeg(photo: Image.Image, width: int) -> bytes:
    size = (width, max(1, round(photo.height * width / photo.width)))
    buffer = io.BytesIO()
    photo.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()
