"""Assign photos to the splits train, val and test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath
from unicodedata import normalize

from pipeline.datasets.card import SPLITS, Card
from pipeline.datasets.pairing import Pair
from pipeline.errors import BadInputError, FacadeError
from pipeline.storage.files import read_bytes

SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}


SPLIT_WORDS |= {"test": "test", "testing": "test"}


def assign_split(card: Card, official: str | None, key: str) -> str:
    """Return the split of an image from its official one, if any, and its group or digest."""
    place = int(hashlib.sha256(key.encode()).hexdigest()[:13], 16) / 16**13
    if official == "train" and place < card.splits.val_from_train:
        return "val"
    if official is not None:
        return official
    train, val, _ = card.splits.shares
    return SPLITS[(place >= train) + (place >= train + val)]


def split_in_path(card: Card, pair: Pair) -> str | None:
    """Return the split that the photo's path names, if the card's patterns have a {split} field."""
    word = pair.fields.get("split")
    if word is None or word.lower() in SPLIT_WORDS:
        return word and SPLIT_WORDS[word.lower()]
    known = ", ".join(SPLIT_WORDS)
    raise FacadeError(f"{pair.photo.path}: {word!r} is no split of the card {card.name}; known are {known}.")


def default_split(card: Card) -> str | None:
    """Return the split of photos that no list names, None where a hash decides."""
    return None if card.splits.rest == "hash" else card.splits.rest


def official_splits(card: Card, pairs: Sequence[Pair], root: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the split of each photo that a list names, by path, and the names that fit no photo."""
    paths: dict[str, set[str]] = {}
    for pair in pairs:
        path = PurePosixPath(pair.photo.path)
        for name in {pair.fields["id"], path.name, path.stem, str(path.with_suffix(""))}:
            paths.setdefault(normalize("NFC", name), set()).add(str(path))
    exact = {normalize("NFC", pair.photo.path): {pair.photo.path} for pair in pairs}
    splits: dict[str, str] = {}
    unclaimed = []
    for split, file in card.splits.lists.items():
        for line in _read_split_list(root, file):
            named = normalize("NFC", line)
            found = exact.get(named) or paths.get(named, set())
            if len(found) > 1 or any(splits.get(path, split) != split for path in found):
                what = "fits several photos" if len(found) > 1 else "is on the list of another split too"
                raise FacadeError(f"{file}: {line!r} {what}; write the photo's whole path, and on one list only.")
            splits |= dict.fromkeys(found, split)
            unclaimed += [] if found else [(line, file)]
    return splits, unclaimed


def _read_split_list(root: str, file: str) -> list[str]:
    """Return the lines of a split's list."""
    address = f"{root.rstrip('/')}/{file}"
    try:
        lines = read_bytes(address).decode("utf-8-sig").splitlines()
    except (BadInputError, OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FacadeError(f"{address}, which the card names under [splits], cannot be read: {reason}.") from None
    return [line.strip() for line in lines if line.strip()]
