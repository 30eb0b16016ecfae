"""Which version of a registered model is `candidate`, and whether it becomes `champion`.

A bundle that was evaluated becomes the candidate; the candidate becomes the champion when it is better beyond noise on
the same truths. Everything that decides is on the version as tags, and so is the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pipeline.comparison.runs import judgement_at
from pipeline.comparison.significance import BETTER, Comparison, compare
from pipeline.errors import FacadeError
from pipeline.stages.evaluate.candidate import CANDIDATE, CHAMPION, EVALUATED, NAME, TEST
from pipeline.stages.evaluate.record import Judgement
from pipeline.tracking.registry import Store, Version

__all__ = ["Promotion", "promote"]

REASON: Final = "facade.promotion"


@dataclass(frozen=True)
class Promotion:
    """What became of a candidate, and why; the comparison where there was one."""

    moved: bool
    reason: str
    candidate: Version
    champion: Version | None
    comparison: Comparison | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the promotion as what `json.dumps` takes."""
        numbers = {"candidate": self.candidate.number, "champion": self.champion.number if self.champion else None}
        found = self.comparison.mean.to_json() if self.comparison else {}
        return {"changed": self.moved, "reason": self.reason, "name": self.candidate.name, **numbers, **found}


def promote(store: Store, name: str = NAME) -> Promotion:
    """Return what became of the candidate: the champion, if there is none or if it is better beyond noise."""
    candidate, champion = store.version(name, CANDIDATE), store.version(name, CHAMPION)
    if candidate is None:
        raise FacadeError(
            f"{name} has no candidate; train, detect and evaluate with this same --tracking, and it has one."
        )
    found = _decided(store, candidate, champion)
    if champion is None or champion.number != candidate.number:  # a champion keeps the reason that made it one
        store.tag_version(candidate, {REASON: found.reason})
    if found.moved:
        store.name_version(candidate, CHAMPION)
    return found


def _decided(store: Store, candidate: Version, champion: Version | None) -> Promotion:
    here = _told(candidate)
    if champion is None:
        return Promotion(True, f"{here} is the first champion: there was none", candidate, None)
    if champion.number == candidate.number:
        return Promotion(False, f"{here} is the champion already", candidate, champion)
    there = f"the champion ({_told(champion)})"
    if candidate.tags.get(TEST) != champion.tags.get(TEST):
        return Promotion(False, f"{here} and {there}, {_apart()}", candidate, champion)
    comparison = compare(_judgement(store, champion), _judgement(store, candidate))
    return Promotion(
        comparison.mean.verdict == BETTER, comparison.sentence(there, here), candidate, champion, comparison
    )


def _told(version: Version) -> str:
    return f"version {version.number}"


def _apart() -> str:
    return (
        "were evaluated on other truths: evaluate the champion on the same boxes (`facade model promote --work WORK`)"
    )


def _judgement(store: Store, version: Version) -> Judgement:
    return judgement_at(store, version.tags.get(EVALUATED, ""), f"{_told(version)} of {version.name}")
