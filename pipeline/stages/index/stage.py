"""`index`: a dataset card and its folder become the `images` table.

Every photo is read once: its bytes are hashed, its header and EXIF kept, its pixels decoded to know that they can be.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from pydantic import Field

from pipeline.config import Settings
from pipeline.datasets.annotations import annotation_bytes, pair_coco_photos
from pipeline.datasets.card import MULTI_PHOTO_KINDS, SPLITS, Card
from pipeline.datasets.pairing import Pair, pair_photos
from pipeline.errors import BadInputError, FacadeError
from pipeline.execution.runner import Context, Outcome, ReduceTask, Stage, StagePlan, run_stage
from pipeline.execution.sharding import make_shards, process_rows, row_counter
from pipeline.imaging.image_io import MAX_PIXELS, inspect_photo
from pipeline.stages.index.splits import assign_split, default_split, official_splits, split_in_path
from pipeline.storage.files import (
    ABSENT_VERSION,
    FileEntry,
    json_digest,
    list_files,
    read_bytes,
    safe_text,
    write_bytes,
)
from pipeline.storage.lock import locked
from pipeline.storage.manifest import Receipt, Shard
from pipeline.storage.schemas import table_from_rows
from pipeline.storage.stage_folder import StageFolder

__all__ = ["STAGE", "IndexConfig", "run"]

STAGE = Stage("index", algorithm=1, rows_out=row_counter("images"), primary="images")
# After all shards of its dataset: what is worth telling of the set as a whole.
REDUCE_ORDINAL = 99_999
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")


class IndexConfig(Settings):
    """What counts as a usable photo."""

    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    min_side: int = Field(default=8, ge=1)


def image_row(row: Mapping[str, Any], card: Card, config: IndexConfig) -> dict[str, Any]:
    """Return the `images` row of one photo; its annotation is only hashed here."""
    _check_names(row["image_id"], row["annotation_uri"] or "")
    if ABSENT_VERSION in (row["mtime_or_etag"], *(row["annotation"] or ())):
        raise BadInputError("the photo or its annotation is a broken symlink")
    if row["annotation_uri"] is None and card.on_missing == "reject":
        raise BadInputError(
            "the photo has no annotation; if that means something, say what with `on_missing` in the card"
        )
    data = read_bytes(row["uri"])
    facts = inspect_photo(data, config.max_pixels, config.min_side)
    digest = hashlib.sha256(data).hexdigest()
    annotation = annotation_bytes(row["annotation_uri"]) if row["annotation_uri"] else None
    unlabelled = annotation is None and card.on_missing == "unlabelled"
    return {
        **{key: row[key] for key in ("image_id", "dataset", "uri", "annotation_uri", "size", "mtime_or_etag", "group")},
        **vars(facts),
        "sha256": digest,
        "annotation_sha256": None if annotation is None else hashlib.sha256(annotation).hexdigest(),
        "split": assign_split(card, row["official"], row["group"] or digest),
        "labelled_classes": [] if unlabelled else list(card.labelled_classes),
    }


def index_rows(rows: Sequence[dict[str, Any]], card: Card, config: IndexConfig) -> dict[str, pa.Table]:
    """Return the tables of some listed photos."""
    images, rejected = process_rows(STAGE.name, rows, lambda row: image_row(row, card, config))
    return {"images": table_from_rows("images", images), "rejected": table_from_rows("rejected", rejected)}


def run(context: Context, config: IndexConfig, card: Card, card_text: str, root: str) -> Outcome:
    """Index the dataset's folder; other datasets in the work folder stay as they are."""
    folder = context.folder(STAGE.name)
    with locked(folder.path):
        listed = list_files(root, exclude=context.work.resolve())
        pairs, strays = _pair_photos(card, listed)
        if not pairs:
            raise FacadeError(_no_photos_message(card, root, listed))
        rows, remarks = _listing_rows(card, pairs, strays, root)
        closing = partial(_reduce_tables, folder, card, card_text, remarks)
        settings = {"card": card.model_dump(), "index": config.model_dump(), "root": root}
        function = partial(index_rows, card=card, config=config)
        last = json_digest([remarks, card_text])
        outcome = run_stage(STAGE, context, _make_plan(folder, card, rows, last, function, closing, settings))
        write_bytes(context.work / "datasets" / f"{card.name}.toml", card_text.encode(), context.disk_retry_seconds)
        _log_summary(context, folder, card, _unmatched_pictures(listed, pairs, strays))
        return outcome


def _make_plan(
    folder: StageFolder,
    card: Card,
    rows: list[dict[str, Any]],
    warnings_digest: str,
    function: Any,
    reduce: Any,
    settings: Any,
) -> StagePlan:
    decided = [STAGE.algorithm, card.model_dump(), settings["index"]]
    shards = make_shards(card.name, rows, lambda piece: json_digest([decided, list(piece)]))
    last = Shard(card.name, REDUCE_ORDINAL, json_digest([[shard.digest for shard in shards], warnings_digest]))
    manifest = folder.manifest()
    kept = [receipt for receipt in (manifest.receipts if manifest else ()) if receipt.dataset != card.name]
    return StagePlan(shards, function, settings, kept, ReduceTask(last, reduce))


def _pair_photos(card: Card, listing: Sequence[FileEntry]) -> tuple[list[Pair], list[tuple[str, str]]]:
    """Return the photos with their annotations, and what belongs to no photo: its address, and what to say of it."""
    if card.kind in MULTI_PHOTO_KINDS:
        return pair_coco_photos(card, listing)
    pairs, strays = pair_photos(card, listing)
    return pairs, [(stray.uri, "an annotation without a photo") for stray in strays]


def _listing_rows(
    card: Card, pairs: Sequence[Pair], strays: Sequence[tuple[str, str]], root: str
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Return a row for each photo, and the remarks that the listing alone is worth."""
    official, unclaimed = official_splits(card, pairs, root)
    rows = [_listing_row(card, pair, official.get(pair.photo.path, default_split(card))) for pair in pairs]
    remarks = [_make_warning(card, uri, "stray", message) for uri, message in strays]
    remarks += [
        _make_warning(card, name, "stray", f"{where} lists a photo that is not there") for name, where in unclaimed
    ]
    return rows, remarks


def _listing_row(card: Card, pair: Pair, official: str | None) -> dict[str, Any]:
    group = re.search(card.group, pair.photo.path) if card.group else None
    return {
        "image_id": f"{card.name}/{pair.photo.path}",
        "dataset": card.name,
        "uri": pair.photo.uri,
        "size": pair.photo.size,
        "mtime_or_etag": pair.photo.version,
        "annotation_uri": pair.annotation.uri if pair.annotation else None,
        "annotation": [pair.annotation.size, pair.annotation.version] if pair.annotation else None,
        "official": split_in_path(card, pair) or official,
        "group": group.group(1) if group else None,
    }


def _reduce_tables(
    folder: StageFolder, card: Card, text: str, warning_rows: Sequence[dict[str, str]], receipts: Sequence[Receipt]
) -> dict[str, pa.Table]:
    """Return the remarks on the set as a whole, and the card, so that tables and card come into force together."""
    entries = [receipt.tables["images"] for receipt in receipts if "images" in receipt.tables]
    images = folder.read_files("images", entries, ["image_id", "uri", "sha256", "split"]).to_pylist()
    first: dict[str, dict[str, Any]] = {}
    for row in images:
        first.setdefault(row["sha256"], row)
    found = [_duplicate_warning(card, row, first[row["sha256"]]) for row in images if first[row["sha256"]] is not row]
    cards = table_from_rows("cards", [{"dataset": card.name, "text": text}])
    return {"warnings": table_from_rows("warnings", [*warning_rows, *found]), "cards": cards}


def _duplicate_warning(card: Card, row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, str]:
    across = f", but in {row['split']} and not in {first['split']}" if row["split"] != first["split"] else ""
    return _make_warning(card, row["uri"], "duplicate", f"the same bytes as {first['image_id']}{across}")


def _make_warning(card: Card, uri: str, kind: str, message: str) -> dict[str, str]:
    return {"dataset": card.name, "uri": safe_text(uri), "kind": kind, "message": message}


def _check_names(*names: str) -> None:
    if any(safe_text(name) != name for name in names):
        raise BadInputError("the file's name is not valid UTF-8; rename it")


def _no_photos_message(card: Card, root: str, listing: Sequence[FileEntry]) -> str:
    example = f", for example {safe_text(listing[0].path)!r}" if listing else ""
    wanted = " or ".join(card.images)
    return f"no photo in {root} fits {wanted} of the card {card.name}; it has {len(listing)} files{example}."


def _unmatched_pictures(
    listing: Sequence[FileEntry], pairs: Sequence[Pair], strays: Sequence[tuple[str, str]]
) -> list[str]:
    """Return the pictures that are neither a photo nor an annotation by the card: a pattern may have missed them."""
    used = {pair.photo.path for pair in pairs} | {pair.annotation.path for pair in pairs if pair.annotation}
    left = {uri for uri, _ in strays}
    others = [entry for entry in listing if entry.path not in used and entry.uri not in left]
    return [entry.path for entry in others if entry.path.lower().endswith(PICTURE_SUFFIXES)]


def _log_summary(context: Context, folder: StageFolder, card: Card, unmatched_pictures: Sequence[str]) -> None:
    images = folder.read("images", card.name, ["split", "annotation_uri"])
    splits = images["split"].to_pylist()
    counts = ", ".join(f"{splits.count(split)} {split}" for split in SPLITS)
    context.log(
        f"{card.name}: {len(splits)} photos ({counts}), {images['annotation_uri'].null_count} without annotation"
    )
    kinds = folder.read("warnings", card.name, ["kind"])["kind"].to_pylist()
    if kinds:
        counts = ", ".join(f"{kinds.count(kind)} {kind}s" for kind in sorted(set(kinds)))
        context.log(f"{card.name}: {counts} (see {folder.path / 'warnings'})")
    if unmatched_pictures:
        example = safe_text(unmatched_pictures[0])
        context.log(
            f"{card.name}: {len(unmatched_pictures)} other images match no pattern of the card, for example {example}"
        )
