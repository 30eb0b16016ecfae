"""COCO JSON as it lies there: one file for many photos, cut into one entry a photo.

An entry's address is `<address of the file>#<file_name>`, and its bytes are canonical JSON of what concerns that photo
alone: hashing them, as any other annotation's, shows which photo's labels changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.datasets.annotations.coco import format_id
from pipeline.datasets.annotations.polygons import parse_json_object
from pipeline.errors import BadInputError, StaleInputError
from pipeline.storage.files import read_bytes, size_and_version

__all__ = ["CocoFile", "annotation_bytes", "read_coco_file"]

# Not at any "#": file names may hold that, before and after.
ENTRY_URI = re.compile(r"(?P<file>.+?[.]json)#(?P<name>.+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class CocoFile:
    """One file: its entries' bytes by file_name, and how many annotations are of no image in it."""

    entries: dict[str, bytes]
    orphans: int


def annotation_bytes(uri: str) -> bytes:
    """Return the bytes of an annotation: a whole file, or one photo's entry of a file for many."""
    match = ENTRY_URI.fullmatch(uri)
    if match is None:
        return read_bytes(uri)
    entries = read_coco_file(match["file"], *size_and_version(match["file"])).entries
    if match["name"] not in entries:
        raise StaleInputError("the JSON does not list the photo any more; run `facade index` again, then this")
    return entries[match["name"]]


# Size and stamp are part of the key: a worker that lives long never answers from a file that was replaced. Photos come
# in order of path, so a few files at a time are enough.
@lru_cache(maxsize=4)
def read_coco_file(uri: str, size: int, version: str) -> CocoFile:  # noqa: ARG001
    """Return the file of this size and stamp, cut into entries; raise `BadInputError` when it is not COCO's."""
    content = parse_json_object(read_bytes(uri))
    images, annotations = _get_objects(content, "images"), _get_objects(content, "annotations")
    names = _category_names(_get_objects(content, "categories"))
    by_image = _index_by_id(images)
    own: dict[object, list[dict[str, Any]]] = {image: [] for image in by_image}
    orphans = 0
    for annotation in annotations:
        found = own.get(_get_value(annotation, "image_id", "annotations"))
        if found is None:
            orphans += 1
        else:
            found.append(annotation)
    return CocoFile(
        {by_image[key]["file_name"]: _serialise_entry(by_image[key], own[key], names) for key in own}, orphans
    )


def _get_objects(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    values = content.get(key)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise BadInputError(f"it has no list {key!r} of objects, as COCO JSON has")
    return values


def _index_by_id(images: Iterable[dict[str, Any]]) -> dict[object, dict[str, Any]]:
    """Return images by id; ids and names must be different, or nobody knows whose an annotation is."""
    found: dict[object, dict[str, Any]] = {}
    seen: set[str] = set()
    for image in images:
        key, name = _get_value(image, "id", "images"), image.get("file_name")
        if not isinstance(name, str) or not name:
            raise BadInputError(f"the image {key!r} has no 'file_name'")
        if key in found or name in seen:
            raise BadInputError(f"two images have the id {key!r} or the file_name {name!r}; give each its own")
        found[key] = image
        seen.add(name)
    return found


def _category_names(categories: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return names by id; a name may stand there twice, an id may not."""
    names: dict[str, str] = {}
    for category in categories:
        key, name = format_id(_get_value(category, "id", "categories")), str(category.get("name", ""))
        if names.setdefault(key, name) != name:
            raise BadInputError(f"two categories have the id {key}: {names[key]!r} and {name!r}")
    return names


def _get_value(entry: dict[str, Any], key: str, where: str) -> object:
    value = entry.get(key)
    if not isinstance(value, int | float | str):
        raise BadInputError(f"an entry of {where!r} has no {key!r}: {str(entry)[:80]}")
    return value


def _serialise_entry(image: dict[str, Any], annotations: list[dict[str, Any]], names: dict[str, str]) -> bytes:
    """Return canonical JSON; of the categories only those in use, so that a new one changes nothing elsewhere."""
    used = {format_id(annotation.get("category_id")) for annotation in annotations}
    categories = {key: name for key, name in names.items() if key in used}
    entry = {"image": image, "annotations": annotations, "categories": categories}
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
