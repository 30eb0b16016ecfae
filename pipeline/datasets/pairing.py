"""Pair photos with their annotations by the named fields of a card's patterns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.datasets.card import Card
from pipeline.storage.files import FileEntry

__all__ = ["Pair", "PairingKey", "match_files", "pair_photos", "pairing_key", "shared_fields"]

PairingKey = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pair:
    """A photo and its annotation, if it has one."""

    photo: FileEntry
    annotation: FileEntry | None
    fields: Mapping[str, str]


def pair_photos(card: Card, listing: Sequence[FileEntry]) -> tuple[list[Pair], list[FileEntry]]:
    """Return the photos with their annotations, in order of path, and the annotations that no photo claims."""
    annotations: dict[PairingKey, FileEntry] = {}
    second = []
    for entry, fields in match_files(card.annotations, listing):
        if annotations.setdefault(pairing_key(fields), entry) is not entry:
            second.append(entry)
    shared = {name for pattern in card.annotations for name in re.findall(r"{(\w+)}", pattern)}
    pairs = []
    for entry, fields in match_files(card.images, listing):
        found = annotations.get(pairing_key({key: value for key, value in fields.items() if key in shared}))
        pairs.append(Pair(entry, found if found and found.path != entry.path else None, fields))
    # With `{id}.png` and `{id}_mask.png` a mask fits the photos' pattern too: what is a partner is no photo.
    claimed = {pair.annotation.path for pair in pairs if pair.annotation}
    pairs = [pair for pair in pairs if pair.photo.path not in claimed]
    claimed |= {pair.photo.path for pair in pairs}
    return pairs, [entry for entry in [*annotations.values(), *second] if entry.path not in claimed]


def shared_fields(card: Card) -> set[str]:
    """Return the fields that every pattern of the card has."""
    return set.intersection(*(set(re.findall(r"{(\w+)}", pattern)) for pattern in [*card.images, *card.annotations]))


def pairing_key(fields: Mapping[str, str]) -> PairingKey:
    """Return the fields' values as they are compared."""
    # One file system stores é as one letter, another as e and an accent: the same name all the same.
    return tuple(sorted((key, unicodedata.normalize("NFC", value)) for key, value in fields.items()))


def match_files(patterns: Iterable[str], listing: Sequence[FileEntry]) -> list[tuple[FileEntry, dict[str, str]]]:
    """Return the files that fit a pattern, each once, by the first pattern it fits."""
    expressions = [_compile_pattern(pattern) for pattern in patterns]
    found = ((entry, next(filter(None, (e.fullmatch(entry.path) for e in expressions)), None)) for entry in listing)
    return [(entry, match.groupdict()) for entry, match in found if match]


def _compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern as an expression: {id} crosses folders, other fields and * do not; letter case is free."""
    seen: set[str] = set()
    pieces = []
    for piece in re.split(r"({\w+}|[*])", pattern):
        if piece == "*":
            pieces.append("[^/]*")
        elif piece.startswith("{"):
            name = piece[1:-1]
            pieces.append(f"(?P={name})" if name in seen else f"(?P<{name}>{'.+?' if name == 'id' else '[^/]+'})")
            seen.add(name)
        else:
            pieces.append(re.escape(piece))
    return re.compile("".join(pieces), re.IGNORECASE | re.DOTALL)
