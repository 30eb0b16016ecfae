"""The two forms that an annotation takes once it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.datasets.card import CATCH_ALL, Card
from pipeline.errors import BadInputError
from pipeline.imaging.run_length import RunLengthEncoding

__all__ = [
    "DEFAULT_MAX_UNKNOWN",
    "AnnotatedBoxes",
    "Box",
    "Flags",
    "RunLengthMask",
    "check_size",
    "check_unknown",
    "fill_flags",
    "make_annotated_boxes",
    "no_flags",
]

DEFAULT_MAX_UNKNOWN = 0.05
Box = tuple[float, float, float, float]  # xyxy
Flags = npt.NDArray[np.bool_]


def no_flags() -> Flags:
    """Return flags of no object: as a default they stand for all False."""
    return np.zeros(0, np.bool_)


def fill_flags(boxes: object, count: int) -> None:
    """Set the flags that were left out of a frozen container, while it is made; those given must be one an object."""
    for name in ("difficult", "ignore"):
        flags = getattr(boxes, name)
        if len(flags) not in (0, count):
            raise ValueError(f"{name} has {len(flags)} flags, expected one for each of {count} objects")
        object.__setattr__(boxes, name, flags if len(flags) else np.zeros(count, np.bool_))


@dataclass(frozen=True)
class RunLengthMask:
    """A mask as runs whose values are indices into `Card.names`, or -1 where the legend knows nothing."""

    runs: RunLengthEncoding
    unknown_share: float


@dataclass(frozen=True)
class AnnotatedBoxes:
    """Boxes that somebody drew: names from the legend, xyxy (G, 4) pixels of the upright photo, half-open.

    `difficult` and `ignore` (G,) are what the format says of each; left out, they are all False.
    """

    labels: tuple[str, ...]
    xyxy: npt.NDArray[np.float64]
    unknown_share: float
    difficult: Flags = field(default_factory=no_flags)
    ignore: Flags = field(default_factory=no_flags)

    def __post_init__(self) -> None:
        fill_flags(self, len(self.labels))


def make_annotated_boxes(
    card: Card, sources: list[str], xyxy: list[Box], difficult: Sequence[bool] = (), ignore: Sequence[bool] = ()
) -> AnnotatedBoxes:
    """Return boxes under the legend's names; those it does not know are counted, and refused above the limit."""
    rest = card.legend.get(CATCH_ALL)
    names = [card.legend.get(source, rest) for source in sources]
    unknown = [source for source, name in zip(sources, names, strict=True) if name is None]
    share = len(unknown) / max(len(sources), 1)
    check_unknown(card, share, f"boxes of {', '.join(sorted(set(unknown))[:3])!r}")
    kept = [position for position, name in enumerate(names) if name is not None]
    labels = tuple(name for name in names if name is not None)
    boxes = np.array([xyxy[position] for position in kept], np.float64).reshape(-1, 4)
    flags = [np.array([given[position] for position in kept if given], np.bool_) for given in (difficult, ignore)]
    return AnnotatedBoxes(labels, boxes, share, *flags)


def check_size(stated_width: object, stated_height: object, width: int, height: int) -> None:
    """Raise a sentence when an annotation states another size than its photo's; one left out or 0 states nothing."""
    if stated_width and stated_height and (stated_width, stated_height) != (width, height):
        stated = f"{str(stated_width)[:20]}x{str(stated_height)[:20]}"
        raise BadInputError(f"the annotation is of {stated} pixels and its photo has {width}x{height}")


def check_unknown(card: Card, share: float, what: str, default_limit: float = DEFAULT_MAX_UNKNOWN) -> None:
    """Raise a sentence when more of an annotation is unknown to the legend than its card allows, or than is usual."""
    allowed = default_limit if card.max_unknown is None else card.max_unknown
    if share > allowed:
        limit = f"the card {card.name} allows {allowed:.1%}"
        raise BadInputError(f"{share:.1%} of the annotation is {what}, which the legend does not know; {limit}")
