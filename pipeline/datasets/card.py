"""Dataset cards: what a set of photos and annotations is called, how it is laid out, and what its labels mean.

A card is a TOML file; `data/template.toml` explains every key. Photos and annotations are paired by the named fields
of their patterns, never by position.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from pipeline.assets import packaged_cards
from pipeline.config import Settings, format_validation_error, parse_toml, read_text
from pipeline.errors import UsageError

__all__ = ["Card", "MinimumArea", "parse_card", "resolve_card"]

AnnotationKind = Literal["colour_mask", "index_mask", "cmp_xml", "voc", "yolo", "labelme", "coco"]
MASK_KINDS = {"colour_mask", "index_mask"}
# Of these kinds one file holds the annotations of many photos.
MULTI_PHOTO_KINDS = {"coco"}
CATCH_ALL = "*"
SPLITS = ("train", "val", "test")
DEFAULT_SPLIT_SHARES = (0.7, 0.15, 0.15)


def _check_pattern(text: str) -> str:
    if any(not re.fullmatch(r"[A-Za-z_]\w*", field) for field in re.findall(r"{([^}]*)}", text)):
        raise ValueError("a {field} is named in letters, digits and _")
    if text.startswith("./") or "\\" in text:
        raise ValueError("a pattern begins with a name and has / between folders")
    if text.startswith("/") or ".." in text.split("/"):
        raise ValueError("a pattern is relative to the dataset's folder and stays below it")
    return text


def _check_has_id(text: str) -> str:
    if "{id}" not in text:
        raise ValueError("a pattern needs the field {id}, for example 'images/{id}.jpg'")
    return text


Pattern = Annotated[str, AfterValidator(_check_pattern)]


class MinimumArea(Settings):
    """The smallest region that becomes a box: so many pixels, and such a share of the image."""

    pixels: int = Field(default=16, ge=1)
    share: float = Field(default=0.0, ge=0.0, lt=1.0)


class Splits(Settings):
    """How images are dealt to train, val and test: by hash, or by the set's own lists."""

    shares: tuple[float, float, float] = DEFAULT_SPLIT_SHARES
    train: str | None = None
    val: str | None = None
    test: str | None = None
    rest: Literal["hash", "train", "val", "test"] = "hash"
    val_from_train: float = Field(default=0.0, ge=0.0, lt=1.0)

    @field_validator("shares")
    @classmethod
    def _check_shares(cls, shares: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError("the three shares must not be negative and must sum to 1")
        return shares

    @property
    def lists(self) -> dict[str, str]:
        """The list files by split."""
        return {name: path for name in SPLITS if (path := getattr(self, name))}


class Card(Settings):
    """One dataset; see `data/template.toml` for what each key means."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=64)
    title: str
    source: str
    licence: str
    citation: str = ""
    kind: AnnotationKind
    images: Annotated[list[Annotated[Pattern, AfterValidator(_check_has_id)]], Field(min_length=1)]
    annotations: Annotated[list[Pattern], Field(min_length=1)]
    legend: Annotated[dict[str, str], Field(min_length=1)]
    labelled_classes: Annotated[list[str], Field(min_length=1)]
    merge_into: dict[str, list[str]] = {}
    occluders: list[str] = []
    complete: bool = True
    on_missing: Literal["reject", "empty", "unlabelled"] = "reject"
    minimum: dict[str, MinimumArea] = {}
    colour_distance: float | None = Field(default=None, ge=0)
    max_unknown: float | None = Field(default=None, ge=0, le=1)
    splits: Splits = Splits()
    group: str | None = None

    @field_validator("images", "annotations", mode="before")
    @classmethod
    def _to_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("group")
    @classmethod
    def _check_group(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
            if groups != 1:
                raise ValueError("needs exactly one (group), for example '^(.+)_[0-9]+[.]jpg$'")
        return value

    @model_validator(mode="after")
    def _check_annotations(self) -> Card:
        for pattern in self.annotations:
            if self.kind not in MULTI_PHOTO_KINDS:
                _check_has_id(pattern)
            elif "{id}" in pattern or not pattern.lower().endswith(".json"):
                raise ValueError(
                    f"of the kind {self.kind} one .json holds many photos: {pattern!r} has {{id}} or no .json"
                )
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Card:
        fields = [set(re.findall(r"{(\w+)}", pattern)) for pattern in self.images]
        for pattern in self.annotations:
            if self.kind not in MULTI_PHOTO_KINDS and not any(
                set(re.findall(r"{(\w+)}", pattern)) <= own for own in fields
            ):
                raise ValueError(f"annotations: {pattern!r} has a field that no pattern of images has")
        if len(set(self.labelled_classes)) < len(self.labelled_classes):
            raise ValueError(f"labelled names a class twice: {self.labelled_classes}")
        names = set(self.legend.values())
        used = {"labelled_classes": self.labelled_classes, "occluders": self.occluders, "minimum": self.minimum}
        used |= {f"merge_into.{name}": members for name, members in self.merge_into.items()}
        for key, members in used.items():
            for member in members:
                if member not in names:
                    raise ValueError(f"{key} names {member!r}, which the legend does not; it has {sorted(names)}")
        for name in self.merge_into:
            if name not in self.labelled_classes:
                raise ValueError(
                    f"merge_into.{name}: {name!r} is not in `labelled_classes`, which has {self.labelled_classes}"
                )
        if self.kind in MASK_KINDS:
            self._check_codes()
        return self

    def _check_codes(self) -> None:
        seen: dict[int, str] = {}
        for key, name in self.legend.items():
            if key != CATCH_ALL and seen.setdefault(parse_code(key, self.kind), name) != name:
                raise ValueError(f"legend gives the colour or index {key!r} two names, {name!r} and another")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every name that the legend gives, once, those with boxes first."""
        return tuple(dict.fromkeys([*self.labelled_classes, *self.legend.values()]))

    def minimum_area(self, label: str, pixels: int) -> float:
        """Return the smallest area in pixels that a region of `label` may have in an image of so many pixels."""
        minimum = self.minimum.get(label, MinimumArea())
        return max(minimum.pixels, minimum.share * pixels)


def parse_code(key: str, kind: AnnotationKind) -> int:
    """Return a legend key as the code that masks of this kind hold: an index, or a colour packed as 0xBBGGRR."""
    try:
        if kind == "index_mask":
            return int(key)
        red, green, blue = bytes.fromhex(key[1:]) if key.startswith("#") else map(int, key.split(","))
    except ValueError:
        wanted = "a number such as '3'" if kind == "index_mask" else "a colour such as '128,0,0' or '#800000'"
        raise ValueError(f"legend key {key!r} is not {wanted}") from None
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"legend key {key!r} is not a colour: its parts go from 0 to 255")
    return red | green << 8 | blue << 16


def resolve_card(name_or_path: str) -> tuple[Card, str]:
    """Return a card and its text, from a file or from those that come with facade-ssd."""
    known = packaged_cards()
    path = known.get(name_or_path, Path(name_or_path))
    if name_or_path not in known and not path.is_file():
        raise UsageError(f"no card {name_or_path!r}: give a file, or one of {', '.join(known)}.")
    text = read_text(path)
    return parse_card(text, str(path)), text


def parse_card(text: str, where: str) -> Card:
    """Return the card in a TOML text."""
    try:
        return Card.model_validate(parse_toml(text, where))
    except ValidationError as error:
        raise UsageError(format_validation_error(error, f"card {where}", Card)) from None
