"""Which version of a registered model is `candidate`, and whether it becomes `champion`.

A bundle that was evaluated becomes the candidate; the candidate becomes the champion when it is better beyond noise on
the same truths. Everything that decides is on the version as tags, and so is the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.comparison import BETTER, Comparison, Judgement, compare
from pipeline.errors import FacadeError
from pipeline.registry import Store, Version, open_store
from pipeline.runs import judgement_at
from pipeline.scoring import ALL, headline
from pipeline.store import StageFolder
from pipeline.tracking import OFF
from ssd import bundle_digest
from ssd.checkpoint import MODEL_FILE

__all__ = ["CANDIDATE", "CHAMPION", "EVALUATED", "NAME", "TEST", "Promotion", "promote", "register_candidate"]

NAME: Final = "facade"
CANDIDATE: Final = "candidate"
CHAMPION: Final = "champion"
# Tags of a version: the bundle's digest, the evaluation's and that of its test truths, and the headline's figures.
BUNDLE: Final = "facade.bundle"
EVALUATED: Final = "facade.evaluated"
TEST: Final = "facade.test"
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


def register_candidate(
    tracking: str | None, bundle: Path, evaluated: StageFolder, say: Callable[[str], None], name: str = NAME
) -> Version | None:
    """Return the version that a bundle has after its evaluation, now the candidate; the same bundle makes no second.

    The champion, evaluated again on other photos, gets their figures and stays what it is. A bundle that no run of this
    store has logged becomes none, nor does one that was judged on photos it learnt from alone.
    """
    own = Judgement(*(evaluated.read(table) for table in ("judged", "verdicts", "truths")))
    if tracking == OFF or not own.speaks:
        return None
    store, digest = open_store(tracking), bundle_digest(bundle)
    tags = {BUNDLE: digest, **_tags(own, evaluated)}
    version = next((one for one in store.versions(name) if one.tags.get(BUNDLE) == digest), None)
    if version is not None:
        store.tag_version(version, tags)
    elif (version := _added(store, bundle, digest, name, tags)) is None:
        say(f"evaluate: no run of this MLflow has trained {bundle}, so that it becomes no version of {name}")
        return None
    _name(store, version, say)
    return version


def _name(store: Store, version: Version, say: Callable[[str], None]) -> None:
    """Make a version the candidate, if it is not the champion."""
    champion, told = store.version(version.name, CHAMPION), f"version {version.number} of {version.name}"
    if champion is not None and champion.number == version.number:
        say(f"evaluate: {told} is the champion, now with these figures")
        return
    store.name_version(version, CANDIDATE)
    say(f"evaluate: {told} is the candidate; `facade model promote` judges it")


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


def _added(store: Store, bundle: Path, digest: str, name: str, tags: Mapping[str, str]) -> Version | None:
    """Return a new version made of the model that the bundle's training run has logged, if that is this bundle."""
    run_id = json.loads((bundle / MODEL_FILE).read_bytes()).get("trained", {}).get("run_id")
    run = store.run(run_id or "")
    if run is None or run.tags.get("digest") != digest:
        return None
    return store.add_version(name, run.run_id, tags)


def _tags(own: Judgement, evaluated: StageFolder) -> dict[str, str]:
    """Return what an evaluation says of a version."""
    tags = {EVALUATED: evaluated.require_manifest().digest, TEST: own.digest, "facade.split": own.split}
    row = headline(evaluated.read("scores").to_pylist(), own.split).get(ALL)
    figures = {"map": "value", "map.low": "low", "map.high": "high"}
    known = {name: row[key] for name, key in figures.items() if row is not None and row[key] is not None}
    return tags | {f"facade.{name}": f"{value:.6f}" for name, value in known.items()}
