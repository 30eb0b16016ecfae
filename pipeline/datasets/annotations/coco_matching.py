"""Which image of a COCO JSON is which photo: by path, else by as much of the path's end as is needed."""

from __future__ import annotations

import hashlib
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from unicodedata import normalize

from pipeline.datasets.annotations.coco_file import read_set
from pipeline.datasets.card import Card
from pipeline.datasets.pairing import Pair, PairingKey, file_matches, pairing_key, shared_fields
from pipeline.errors import BadInputError, FacadeError
from pipeline.storage.files import Listed, printable

__all__ = ["pair_with_sets"]

Stray = tuple[str, str]  # an address, and what is to be said of it
NO_PHOTO = "an annotation without a photo"
UNCLEAR = "its name fits several photos, or several annotations fit its photo"


@dataclass(frozen=True)
class _Place:
    """A photo, or a photo as a JSON calls it: the fields to pair by, the file, and where it says to look."""

    key: PairingKey
    listed: Listed
    path: str
    near: str
    fields: Mapping[str, str]


def pair_with_sets(card: Card, listed: Sequence[Listed]) -> tuple[list[Pair], list[Stray]]:
    """Return the photos with their entries, in order of path, and what in the files belongs to no photo."""
    files = file_matches(card.annotations, listed)
    if not files:
        raise FacadeError(f"no file fits {' or '.join(card.annotations)}, the annotations of the card {card.name}.")
    shared, own = shared_fields(card), {file.path for file, _ in files}
    photos = [
        _Place(_key(fields, shared), photo, _clean(photo.path), _clean(photo.path), fields)
        for photo, fields in file_matches(card.images, listed)
        if photo.path not in own
    ]
    entries: list[_Place] = []
    strays: list[Stray] = []
    for file, fields in files:
        found, orphans = _entries(file, fields, shared)
        entries += found
        if orphans:
            strays.append((file.uri, f"{orphans} annotations of images that the JSON does not list"))
    partners = _match(photos, entries)
    taken = {entry.listed.uri for entry in partners.values()}
    left = [entry for entry in entries if entry.listed.uri not in taken]
    free = {_tail(photo, 1) for photo in photos if photo.listed.path not in partners}
    strays += [(entry.listed.uri, UNCLEAR if _tail(entry, 1) in free else NO_PHOTO) for entry in left]
    return [_pair(photo, partners.get(photo.listed.path)) for photo in photos], strays


def _pair(photo: _Place, entry: _Place | None) -> Pair:
    """Return a pair; a field that only the JSON's pattern has, such as {split}, holds for its photos."""
    if entry is None:
        return Pair(photo.listed, None, photo.fields)
    return Pair(photo.listed, entry.listed, {**entry.fields, **photo.fields})


def _entries(file: Listed, fields: Mapping[str, str], shared: set[str]) -> tuple[list[_Place], int]:
    """Return a file's entries as if each were a file of its own, so that what changes one changes no other."""
    try:
        content = read_set(file.uri, file.size, file.stamp)
    except (BadInputError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FacadeError(f"{printable(file.uri)} cannot be used: {reason}.") from None
    places = []
    for name, data in content.entries.items():
        address = f"{file.uri}#{name}"
        listed = Listed(f"{file.path}#{name}", address, len(data), hashlib.sha256(data).hexdigest())
        near = posixpath.join(posixpath.dirname(file.path), name.replace("\\", "/"))
        places.append(_Place(_key(fields, shared), listed, _clean(name), _clean(near), fields))
    return places, content.orphans


def _match(photos: Sequence[_Place], entries: Sequence[_Place]) -> dict[str, _Place]:
    """Return the entry of each photo's path: the surest agreement first, and none where two would do."""
    partners: dict[str, _Place] = {}
    taken: set[str] = set()
    for level in _levels(photos, entries):
        free = [photo for photo in photos if photo.listed.path not in partners]
        left = [entry for entry in entries if entry.listed.uri not in taken]
        wanted, offered = _grouped(free, level), _grouped(left, level)
        for key in wanted.keys() & offered.keys():
            if len(wanted[key]) == len(offered[key]) == 1:
                partners[wanted[key][0].listed.path] = offered[key][0]
                taken.add(offered[key][0].listed.uri)
    return partners


Level = Callable[[_Place], "tuple[PairingKey, str] | None"]


def _levels(photos: Sequence[_Place], entries: Sequence[_Place]) -> Iterator[Level]:
    """Yield what to compare: the path from the JSON's folder, from the root, then ever shorter ends of it."""
    yield lambda place: (place.key, place.near)
    yield lambda place: (place.key, place.path)
    depth = min(max((place.path.count("/") + 1 for place in places), default=0) for places in (photos, entries))
    for parts in range(depth, 0, -1):
        yield partial(_tail, parts=parts)


def _grouped(places: Iterable[_Place], level: Level) -> dict[tuple[PairingKey, str], list[_Place]]:
    groups = defaultdict(list)
    for place in places:
        key = level(place)
        if key is not None:
            groups[key].append(place)
    return groups


def _tail(place: _Place, parts: int) -> tuple[PairingKey, str] | None:
    names = place.path.split("/")
    return (place.key, "/".join(names[-parts:])) if len(names) >= parts else None


def _key(fields: Mapping[str, str], shared: set[str]) -> PairingKey:
    return pairing_key({name: value for name, value in fields.items() if name in shared})


def _clean(path: str) -> str:
    return normalize("NFC", posixpath.normpath(path.replace("\\", "/")).lstrip("/"))
