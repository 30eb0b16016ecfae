"""Preview images: detections alone, next to ground truth (the report's Figure 16), and at three thresholds (its 19)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow.compute as pc
from PIL import Image

from pipeline.errors import BadInputError
from pipeline.imaging.drawing import contact_sheet, draw_boxes, save_picture
from pipeline.imaging.image_io import decode_upright_photo
from pipeline.stages.detect.config import DONE
from pipeline.stages.detect.plan import DetectionPlan
from pipeline.stages.detect.sources import read_photo
from pipeline.storage.stage_folder import StageFolder

__all__ = ["draw_previews"]

PREVIEW_FOLDER: Final = "previews"
PREVIEW_SCORES: Final = (0.2, 0.5, 0.8)
PAIR_SIDE, TRIPLE_SIDE = 900, 700  # pixels a side, at most

Row = Mapping[str, Any]


def draw_previews(folder: StageFolder, max_photos: int, ground_truth: StageFolder | None) -> list[Path]:
    """Return the paths of up to `max_photos` drawn photos, spread over the archive, after a sheet of them."""
    place, names, tiles = folder.path / PREVIEW_FOLDER, set[Path](), list[tuple[str, Image.Image]]()
    for number, (planned, found) in enumerate(_sample_photos(folder, max_photos)):
        try:
            photo = Image.fromarray(decode_upright_photo(read_photo(planned))[0])
        except (BadInputError, OSError):
            continue  # it was there when it was read; a picture less is no reason to stop
        picture = draw_boxes(photo, [box for box in found if box["selected"]])
        tiles.append((planned["image_id"], picture))
        if ground_truth is not None:
            true = draw_boxes(photo, _image_rows(ground_truth, "boxes", planned["image_id"]))
            picture = contact_sheet([("found", picture), ("true", true)], 2, _tile_size(photo, PAIR_SIDE))
        names.add(save_picture(picture, place / f"{number:03d}_{PurePosixPath(planned['image_id']).stem[-40:]}.jpg"))
        if number == 0:
            at = [
                (f"score {least} and more", [box for box in found if box["score"] >= least]) for least in PREVIEW_SCORES
            ]
            sheet = contact_sheet(
                [(name, draw_boxes(photo, boxes)) for name, boxes in at], 3, _tile_size(photo, TRIPLE_SIDE)
            )
            names.add(save_picture(sheet, place / "scores.jpg"))
    for path in set(place.glob("*.jpg")) - names:
        path.unlink()
    return [save_picture(contact_sheet(tiles), place / "contact_sheet.jpg"), *sorted(names)] if tiles else []


def _sample_photos(folder: StageFolder, max_photos: int) -> Iterator[tuple[Row, Sequence[Row]]]:
    """Yield rows of the plan, evenly spread over the photos that could be read, with what was found in each."""
    receipts = [receipt for receipt in folder.require_manifest().receipts if receipt.rows_out]
    total, before = sum(receipt.rows_out for receipt in receipts), 0
    wanted = (
        [number * total // max_photos for number in range(max_photos)] if total > max_photos else list(range(total))
    )
    plan = {shard.ordinal: shard.rows for shard in DetectionPlan(folder.path).shards()}
    for receipt in receipts:
        own = [place - before for place in wanted if before <= place < before + receipt.rows_out]
        before += receipt.rows_out
        if own:
            photos = folder.read_files("photos", [receipt.tables["photos"]], ["image_id", "status"]).to_pylist()
            done = [photo["image_id"] for photo in photos if photo["status"] == DONE]
            planned = {row["image_id"]: row for row in plan[receipt.ordinal]}
            entries = [receipt.tables["detections"]] if "detections" in receipt.tables else []
            found = folder.read_files("detections", entries)
            for name in (done[place] for place in own):
                yield planned[name], found.filter(pc.equal(found["image_id"], name)).to_pylist()


def _tile_size(photo: Image.Image, max_side: int) -> tuple[int, int]:
    share = min(1.0, max_side / max(photo.size))
    return max(1, round(photo.width * share)), max(1, round(photo.height * share))


def _image_rows(folder: StageFolder, table: str, image_id: str) -> list[dict[str, Any]]:
    dataset = image_id.partition("/")[0]
    whole = folder.read(table, dataset)
    rows: list[dict[str, Any]] = whole.filter(pc.equal(whole["image_id"], image_id)).to_pylist()
    return rows
