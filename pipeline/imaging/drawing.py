"""Pictures: boxes over photos in the report's colours, alone and together on a sheet."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import BadInputError
from pipeline.imaging.image_io import decode_photo
from pipeline.storage.files import read_bytes, write_bytes

__all__ = ["class_rgb", "contact_sheet", "draw_boxes", "draw_samples", "save_picture"]

REPORT_COLOURS = {"building": (255, 214, 10), "window": (48, 209, 88), "door": (255, 69, 58)}
FALLBACK_COLOURS = ((100, 210, 255), (191, 90, 242), (255, 159, 10), (94, 92, 230), (172, 142, 104))
SHEET_COLUMNS, TILE_SIZE, CAPTION_HEIGHT, MARGIN = 3, (480, 360), 24, 10
PAPER, INK, BLACK, WHITE = (250, 250, 248), (40, 40, 40), (0, 0, 0), (255, 255, 255)


def class_rgb(label: str) -> tuple[int, int, int]:
    """Return the colour of a class: the report's three, else one that its name always gets."""
    return REPORT_COLOURS.get(label, FALLBACK_COLOURS[sum(label.encode()) % len(FALLBACK_COLOURS)])


def draw_boxes(photo: Image.Image, boxes: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Return the photo with its boxes, large ones first, suspects dashed by a cross, and a line that counts them.

    Boxes to ignore are black and white, which is seen on any wall, and not counted.
    """
    picture = photo.convert("RGB")
    canvas = ImageDraw.Draw(picture)
    width = max(2, round(max(picture.size) / 350))
    for box in sorted(boxes, key=_area, reverse=True):
        edges = [round(box["xmin"]), round(box["ymin"]), round(box["xmax"]) - 1, round(box["ymax"]) - 1]
        corners = [edges[0], edges[1], max(edges[0], edges[2]), max(edges[1], edges[3])]
        colour = BLACK if box.get("ignore") else class_rgb(box["label"])
        canvas.rectangle(corners, None, colour, width)
        if box.get("ignore"):
            canvas.rectangle(corners, None, WHITE, width // 2)
        if box.get("suspect"):
            canvas.line(edges, colour, max(1, width // 2))
    _write_counts(canvas, picture.size, [box["label"] for box in boxes if not box.get("ignore")])
    return picture


def contact_sheet(
    pictures: Sequence[tuple[str, Image.Image]], columns: int = SHEET_COLUMNS, tile: tuple[int, int] = TILE_SIZE
) -> Image.Image:
    """Return pictures side by side on one sheet, each in its tile (width, height) with its name below, if any has."""
    rows, columns = math.ceil(len(pictures) / columns), min(columns, len(pictures))
    font = ImageFont.load_default(14)
    caption = CAPTION_HEIGHT if any(name for name, _ in pictures) else 0
    width, height = tile[0] + MARGIN, tile[1] + caption + MARGIN
    sheet = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN), PAPER)
    canvas = ImageDraw.Draw(sheet)
    for position, (name, picture) in enumerate(pictures):
        small = picture.copy()
        small.thumbnail(tile, Image.Resampling.LANCZOS)
        left, top = MARGIN + position % columns * width, MARGIN + position // columns * height
        sheet.paste(small, (left + (tile[0] - small.width) // 2, top + (tile[1] - small.height) // 2))
        canvas.text((left + 4, top + tile[1] + 4), _shorten(name), INK, font)
    return sheet


def draw_samples(
    folder: Path, dataset: str, images: Sequence[Mapping[str, Any]], boxes: pa.Table, max_photos: int
) -> list[Path]:
    """Return the paths of up to `max_photos` drawn photos, spread over the dataset, with a sheet of them first."""
    chosen = (
        [images[position * len(images) // max_photos] for position in range(max_photos)]
        if len(images) > max_photos
        else images
    )
    drawn: list[tuple[str, Image.Image]] = []
    paths = []
    for position, row in enumerate(chosen[:max_photos]):
        own = boxes.filter(pc.equal(boxes["image_id"], row["image_id"])).to_pylist()
        try:
            photo = Image.fromarray(decode_photo(read_bytes(row["uri"])))
        except (BadInputError, OSError):
            continue  # it was there when it was indexed; a picture less is no reason to stop
        drawn.append((row["image_id"], draw_boxes(photo, own)))
        name = f"{position:02d}_{PurePosixPath(row['image_id']).stem[-40:]}.jpg"  # short in any alphabet
        paths.append(save_picture(drawn[-1][1], folder / dataset / name))
    for path in set((folder / dataset).glob("*.jpg")) - set(paths):
        path.unlink()
    return [save_picture(contact_sheet(drawn), folder / f"{dataset}.jpg"), *paths] if drawn else []


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Return the path that a picture was written to, a PNG or a JPEG as its name ends."""
    buffer = io.BytesIO()
    kind = "PNG" if path.suffix == ".png" else "JPEG"
    picture.save(buffer, kind, quality=90, subsampling=0)  # thin coloured lines stay coloured
    write_bytes(path, buffer.getvalue())
    return path


def _write_counts(canvas: ImageDraw.ImageDraw, size: tuple[int, int], labels: Sequence[str]) -> None:
    font = ImageFont.load_default(max(12, max(size) // 50))
    left = top = max(4, size[0] // 150)
    for label in sorted(set(labels), key=lambda name: (-labels.count(name), name)):
        text = f"{labels.count(label)} {label}" + ("s" if labels.count(label) != 1 else "")
        box = canvas.textbbox((left, top), text, font)
        canvas.rectangle([box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 3], BLACK)
        canvas.text((left, top), text, class_rgb(label), font)
        left = int(box[2]) + 14


def _shorten(name: str, max_length: int = 58) -> str:
    return name if len(name) <= max_length else f"{name[:18]}...{name[-(max_length - 21) :]}"


def _area(box: Mapping[str, Any]) -> float:
    return float((box["xmax"] - box["xmin"]) * (box["ymax"] - box["ymin"]))
