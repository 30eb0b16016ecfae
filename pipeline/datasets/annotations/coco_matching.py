"""Which image of a COCO JSON is which photo: by path, else by as much of the path's end as is needed."""

from __future__ import annotations

import hashlib
import posixpath
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from unicodedata import normalize

from pipeline.datasets.annotations.coco_file import read_coco_file
from pipeline.datasets.card import Card
from pipeline.datasets.pairing import Pair, PairingKey, match_files, pairing_key, shared_fields
from pipeline.errors import BadInputError, FacadeError
from pipeline.storage.files import FileEntry, safe_text

__all__ = ["pair_coco_photos"]

UnpairedEntry = tuple[str, str]  # an address, and what is to be said of it
NO_PHOTO = "an annotation without a photo"
AMBIGUOUS = "its name fits several photos, or several annotations fit its photo"


@dataclass(frozen=True)
class _Candidate:
    """A photo, or a photo as a JSON calls it: the fields to pair by, the file, and where it says to look."""

    key: PairingKey
    file: FileEntry
    path: str
    path_from_json: str
    fields: Mapping[str, str]


def pair_coco_photos(card: Card, listing: Sequence[FileEntry]) -> tuple[list[Pair], list[UnpairedEntry]]:
    """Return the photos with their entries, in order of path, and what in the files belongs to no photo."""
    files = match_files(card.annotations, listing)
    if not files:
        raise FacadeError(f"no file fits {' or '.join(card.annotations)}, the annotations of the card {card.name}.")
    shared, own = shared_fields(card), {file.path for file, _ in files}
    photos = [
        _Candidate(_shared_key(fields, shared), photo, _normalise_path(photo.path), _normalise_path(photo.path), fields)
        for photo, fields in match_files(card.images, listing)
        if photo.path not in own
    ]
    entries: list[_Candidate] = []
    strays: list[UnpairedEntry] = []
    for file, fields in files:
        found, orphans = _read_entries(file, fields, shared)
        entries += found
        if orphans:
            strays.append((file.uri, f"{orphans} annotations of images that the JSON does not list"))
    partners = _match_entries(photos, entries)
    taken = {entry.file.uri for entry in partners.values()}
    left = [entry for entry in entries if entry.file.uri not in taken]
    free = {_path_suffix(photo, 1) for photo in photos if photo.file.path not in partners}
    strays += [(entry.file.uri, AMBIGUOUS if _path_suffix(entry, 1) in free else NO_PHOTO) for entry in left]
    return [_make_pair(photo, partners.get(photo.file.path)) for photo in photos], strays


def _make_pair(photo: _Candidate, entry: _Candidate | None) -> Pair:
    """Return a pair; a field that only the JSON's pattern has, such as {split}, holds for its photos."""
    if entry is None:
        return Pair(photo.file, None, photo.fields)
    return Pair(photo.file, entry.file, {**entry.fields, **photo.fields})


def _read_entries(file: FileEntry, fields: Mapping[str, str], shared: set[str]) -> tuple[list[_Candidate], int]:
    """Return a file's entries as if each were a file of its own, so that what changes one changes no other."""
    try:
        content = read_coco_file(file.uri, file.size, file.version)
    except (BadInputError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FacadeError(f"{safe_text(file.uri)} cannot be used: {reason}.") from None
    places = []
    for name, data in content.entries.items():
        address = f"{file.uri}#{name}"
        listed = FileEntry(f"{file.path}#{name}", address, len(data), hashlib.sha256(data).hexdigest())
        near = posixpath.join(posixpath.dirname(file.path), name.replace("\\", "/"))
        places.append(
            _Candidate(_shared_key(fields, shared), listed, _normalise_path(name), _normalise_path(near), fields)
        )
    return places, content.orphans


def _match_entries(photos: Sequence[_Candidate], entries: Sequence[_Candidate]) -> dict[str, _Candidate]:
    """Return the entry of each photo's path: the surest agreement first, and none where two would do."""
    partners: dict[str, _Candidate] = {}
    taken: set[str] = set()
    for level in _key_functions(photos, entries):
        free = [photo for photo in photos if photo.file.path not in partners]
        left = [entry for entry in entries if entry.file.uri not in taken]
        wanted, offered = _group_by_key(free, level), _group_by_key(left, level)
        for key in wanted.keys() & offered.keys():
            if len(wanted[key]) == len(offered[key]) == 1:
                partners[wanted[key][0].file.path] = offered[key][0]
                taken.add(offered[key][0].file.uri)
    return partners


KeyFunction = Callable[[_Candidate], "tuple[PairingKey, str] | None"]


def _key_functions(photos: Sequence[_Candidate], entries: Sequence[_Candidate]) -> Iterator[KeyFunction]:
    """Yield what to compare: the path from the JSON's folder, from the root, then ever shorter ends of it."""
    yield lambda place: (place.key, place.path_from_json)
    yield lambda place: (place.key, place.path)
    depth = min(max((place.path.count("/") + 1 for place in places), default=0) for places in (photos, entries))
    for parts in range(depth, 0, -1):
        yield partial(_path_suffix, parts=parts)


def _group_by_key(
    candidates: Iterable[_Candidate], key_function: KeyFunction
) -> dict[tuple[PairingKey, str], list[_Candidate]]:
    groups = defaultdict(list)
    for place in candidates:
        key = key_function(place)
        if key is not None:
            groups[key].append(place)
    return groups


def _path_suffix(candidate: _Candidate, parts: int) -> tuple[PairingKey, str] | None:
    names = candidate.path.split("/")
    return (candidate.key, "/".join(names[-parts:])) if len(names) >= parts else None


def _shared_key(fields: Mapping[str, str], shared: set[str]) -> PairingKey:
    return pairing_key({name: value for name, value in fields.items() if name in shared})


def _normalise_path(path: str) -> str:
    return normalize("NFC", posixpath.normpath(path.replace("\\", "/")).lstrip("/"))
