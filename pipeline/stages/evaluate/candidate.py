"""Register an evaluated bundle as the candidate version of a registered model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pipeline.stages.evaluate.record import EvaluationRecord
from pipeline.stages.evaluate.scores import ALL, headline_rows
from pipeline.storage.stage_folder import StageFolder
from pipeline.tracking.registry import MlflowStore, Version, open_store
from pipeline.tracking.run_logger import OFF
from ssd import bundle_digest
from ssd.bundle import MODEL_FILE

__all__ = ["CANDIDATE", "CHAMPION", "EVALUATION_TAG", "MODEL_NAME", "TEST_TAG", "register_candidate"]

MODEL_NAME: Final = "facade"


CANDIDATE: Final = "candidate"


CHAMPION: Final = "champion"


# Tags of a version: the bundle's digest, the evaluation's and that of its test truths, and the headline's figures.
BUNDLE_TAG: Final = "facade.bundle"


EVALUATION_TAG: Final = "facade.evaluated"


TEST_TAG: Final = "facade.test"


def register_candidate(
    tracking: str | None, bundle: Path, evaluation: StageFolder, log: Callable[[str], None], name: str = MODEL_NAME
) -> Version | None:
    """Return the version that a bundle has after its evaluation, now the candidate; the same bundle makes no second.

    The champion, evaluated again on other photos, gets their figures and stays what it is. A bundle that no run of this
    store has logged becomes none, nor does one that was evaluated only on photos it was trained on.
    """
    own = EvaluationRecord(
        *(evaluation.read(table) for table in ("evaluated_images", "detection_matches", "ground_truths"))
    )
    if tracking == OFF or not own.has_held_out_photos:
        return None
    store, digest = open_store(tracking), bundle_digest(bundle)
    tags = {BUNDLE_TAG: digest, **_tags(own, evaluation)}
    version = next((one for one in store.versions(name) if one.tags.get(BUNDLE_TAG) == digest), None)
    if version is not None:
        store.tag_version(version, tags)
    elif (version := _add_version(store, bundle, digest, name, tags)) is None:
        log(f"evaluate: no MLflow run found that trained {bundle}; not registered as a version of {name}")
        return None
    _set_candidate(store, version, log)
    return version


def _set_candidate(store: MlflowStore, version: Version, log: Callable[[str], None]) -> None:
    """Make a version the candidate, if it is not the champion."""
    champion, version_name = store.version(version.name, CHAMPION), f"version {version.number} of {version.name}"
    if champion is not None and champion.number == version.number:
        log(f"evaluate: {version_name} is the champion; its metrics were updated")
        return
    store.set_alias(version, CANDIDATE)
    log(
        f"evaluate: {version_name} is registered as the candidate; `facade model promote` compares it with the champion"
    )


def _add_version(store: MlflowStore, bundle: Path, digest: str, name: str, tags: Mapping[str, str]) -> Version | None:
    """Return a new version made of the model that the bundle's training run has logged, if that is this bundle."""
    run_id = json.loads((bundle / MODEL_FILE).read_bytes()).get("trained", {}).get("run_id")
    run = store.run(run_id or "")
    if run is None or run.tags.get("digest") != digest:
        return None
    return store.add_version(name, run.run_id, tags)


def _tags(record: EvaluationRecord, evaluation: StageFolder) -> dict[str, str]:
    """Make the tags of a version from its evaluation."""
    tags = {EVALUATION_TAG: evaluation.require_manifest().digest, TEST_TAG: record.digest, "facade.split": record.split}
    row = headline_rows(evaluation.read("scores").to_pylist(), record.split).get(ALL)
    figures = {"map": "value", "map.low": "low", "map.high": "high"}
    known = {name: row[key] for name, key in figures.items() if row is not None and row[key] is not None}
    return tags | {f"facade.{name}": f"{value:.6f}" for name, value in known.items()}
