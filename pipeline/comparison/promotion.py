"""Which version of a registered model is `candidate`, and whether it becomes `champion`.

A bundle that was evaluated becomes the candidate; the candidate becomes the champion when it is better beyond noise on
the same truths. Everything that decides is on the version as tags, and so is the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pipeline.comparison.runs import load_evaluation_record
from pipeline.comparison.significance import BETTER, Comparison, compare
from pipeline.errors import FacadeError
from pipeline.stages.evaluate.candidate import CANDIDATE, CHAMPION, EVALUATION_TAG, MODEL_NAME, TEST_TAG
from pipeline.stages.evaluate.record import EvaluationRecord
from pipeline.tracking.registry import MlflowStore, Version

__all__ = ["Promotion", "promote"]

REASON_TAG: Final = "facade.promotion"


@dataclass(frozen=True)
class Promotion:
    """What became of a candidate, and why; the comparison where there was one."""

    promoted: bool
    reason: str
    candidate: Version
    champion: Version | None
    comparison: Comparison | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the promotion as what `json.dumps` takes."""
        numbers = {"candidate": self.candidate.number, "champion": self.champion.number if self.champion else None}
        found = self.comparison.mean.to_json() if self.comparison else {}
        return {"changed": self.promoted, "reason": self.reason, "name": self.candidate.name, **numbers, **found}


def promote(store: MlflowStore, name: str = MODEL_NAME) -> Promotion:
    """Promote the candidate to champion if there is none, or if it is better beyond noise."""
    candidate, champion = store.version(name, CANDIDATE), store.version(name, CHAMPION)
    if candidate is None:
        raise FacadeError(
            f"{name} has no candidate; train, detect and evaluate with this same --tracking, and it has one."
        )
    found = _decide(store, candidate, champion)
    if champion is None or champion.number != candidate.number:  # a champion keeps the reason that made it one
        store.tag_version(candidate, {REASON_TAG: found.reason})
    if found.promoted:
        store.set_alias(candidate, CHAMPION)
    return found


def _decide(store: MlflowStore, candidate: Version, champion: Version | None) -> Promotion:
    here = _version_label(candidate)
    if champion is None:
        return Promotion(True, f"{here} is the first champion: there was none", candidate, None)
    if champion.number == candidate.number:
        return Promotion(False, f"{here} is the champion already", candidate, champion)
    there = f"the champion ({_version_label(champion)})"
    if candidate.tags.get(TEST_TAG) != champion.tags.get(TEST_TAG):
        return Promotion(False, f"{here} and {there}, {_mismatch_text()}", candidate, champion)
    comparison = compare(_load_record(store, champion), _load_record(store, candidate))
    return Promotion(
        comparison.mean.verdict == BETTER, comparison.summary(there, here), candidate, champion, comparison
    )


def _version_label(version: Version) -> str:
    return f"version {version.number}"


def _mismatch_text() -> str:
    return (
        "were evaluated on different ground truth: evaluate the champion on the same boxes "
        "(`facade model promote --work WORK`)"
    )


def _load_record(store: MlflowStore, version: Version) -> EvaluationRecord:
    return load_evaluation_record(
        store, version.tags.get(EVALUATION_TAG, ""), f"{_version_label(version)} of {version.name}"
    )
