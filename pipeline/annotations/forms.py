"""The two forms that an annotation takes once it is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.components import Runs
from pipeline.dataset import REST, Card
from pipeline.errors import BadInputError

__all__ = ["USUAL_UNKNOWN", "LabelRuns", "TrueBoxes", "boxes_of", "check_unknown"]

USUAL_UNKNOWN = 0.05


@dataclass(frozen=True)
class LabelRuns:
    """A mask as runs whose values are indices into `Card.names`, or -1 where the legend knows nothing."""

    runs: Runs
    unknown_share: float


@dataclass(frozen=True)
class TrueBoxes:
    """Boxes that somebody drew: names from the legend, xyxy (G, 4) pixels of the upright photo, half-open."""

    labels: tuple[str, ...]
    xyxy: npt.NDArray[np.float64]
    unknown_share: float


def boxes_of(card: Card, sources: list[str], xyxy: list[tuple[float, float, float, float]]) -> TrueBoxes:
    """Return boxes under the legend's names; those it does not know are counted, and refused above the limit."""
    rest = card.legend.get(REST)
    names = [card.legend.get(source, rest) for source in sources]
    unknown = [source for source, name in zip(sources, names, strict=True) if name is None]
    share = len(unknown) / max(len(sources), 1)
    check_unknown(card, share, f"boxes of {', '.join(sorted(set(unknown))[:3])!r}")
    kept = [(name, box) for name, box in zip(names, xyxy, strict=True) if name is not None]
    return TrueBoxes(tuple(name for name, _ in kept), np.array([box for _, box in kept]).reshape(-1, 4), share)


def check_unknown(card: Card, share: float, what: str, usual: float = USUAL_UNKNOWN) -> None:
    """Raise a sentence when more of an annotation is unknown to the legend than its card allows, or than is usual."""
    allowed = usual if card.max_unknown is None else card.max_unknown
    if share > allowed:
        limit = f"the card {card.name} allows {allowed:.1%}"
        raise BadInputError(f"{share:.1%} of the annotation is {what}, which the legend does not know; {limit}")
