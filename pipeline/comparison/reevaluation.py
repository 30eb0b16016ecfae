"""Re-evaluate the champion on new data: detect and evaluate as for its challenger, in WORK/champion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pipeline.errors import FacadeError
from pipeline.execution.runner import Context
from pipeline.stages.detect import stage as detect
from pipeline.stages.detect.config import DetectConfig
from pipeline.stages.detect.inference import detector_spec
from pipeline.stages.detect.job import HELD_OUT, Job
from pipeline.stages.detect.stage import JOB_FILE
from pipeline.stages.evaluate import stage as evaluate
from pipeline.stages.evaluate.candidate import CANDIDATE, CHAMPION, EVALUATION_TAG, TEST_TAG
from pipeline.stages.evaluate.stage import EvaluateConfig
from pipeline.storage.stage_folder import StageFolder
from pipeline.tracking.registry import MlflowStore, fetch_bundle

__all__ = ["reevaluate_champion"]

CHAMPION_FOLDER: Final = "champion"


def reevaluate_champion(context: Context, store: MlflowStore, name: str) -> None:
    """Evaluate the champion on the ground truth of this work folder, if only the candidate was evaluated on it."""
    candidate, champion = (store.version(name, alias) for alias in (CANDIDATE, CHAMPION))
    if candidate is None or champion is None or candidate.number == champion.number:
        return
    if candidate.tags.get(TEST_TAG) == champion.tags.get(TEST_TAG):
        return
    own = context.folder("evaluate").require_manifest()
    if candidate.tags.get(EVALUATION_TAG) != own.digest:
        raise FacadeError(
            f"{context.work} holds no evaluation of the candidate, version {candidate.number} of {name}; name the work "
            "folder where it was evaluated, or evaluate it here."
        )
    context.log(f"model promote: re-evaluating the champion on the current ground truth of {context.work}")
    config, place = EvaluateConfig(**own.settings["evaluate"]), context.work / CHAMPION_FOLDER
    _detect(context, config, f"models:/{name}/{champion.number}", place)
    evaluate.run(context, config.model_copy(update={"detections": str(place / "detect")}), place / "evaluate")


def _detect(context: Context, config: EvaluateConfig, model: str, folder: Path) -> None:
    """Detect with a model in the photos of its challenger, with the same settings."""
    theirs = StageFolder(context.work, "detect", custom_path=Path(config.detections) if config.detections else None)
    settings, about = theirs.require_manifest().settings, json.loads((theirs.path / JOB_FILE).read_bytes())
    finder = detector_spec(fetch_bundle(model, context.tracking, folder / "_model"), use_operating_point=False)
    job = Job(str(context.work), finder, folder / "detect", about.get("split", HELD_OUT), overwrite=True)
    detect.run(context, DetectConfig(**settings["detect"]), job)
