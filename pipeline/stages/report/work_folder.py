"""What a work folder has for its report: which stages have run, their tables and files, and what is out of date."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from pipeline.assets import resolve_bundle
from pipeline.datasets.labels import class_order
from pipeline.models.bundle import latest_bundle
from pipeline.models.operating_point import OPERATING_POINT_FILE
from pipeline.stages import STAGES
from pipeline.stages.report.blocks import MissingStage, NextCommands, StaleStage
from pipeline.storage.stage_folder import MANIFEST_FILE, StageFolder
from ssd import bundle_digest
from ssd.bundle import MODEL_FILE
from ssd.training.loop import HISTORY_FILE

__all__ = ["REPORTED", "WorkFolder"]

REPORTED: Final = STAGES[: STAGES.index("report")]


@dataclass(frozen=True)
class WorkFolder:
    """A work folder as the report reads it; what is large is read once."""

    path: Path

    def folder(self, stage: str) -> StageFolder:
        """Return the folder of a stage."""
        return StageFolder(self.path, stage)

    def has_run(self, stage: str) -> bool:
        """Return whether a stage has completed here."""
        return bool(self.history) if stage == "train" else self.folder(stage).manifest() is not None

    def table(self, stage: str, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read a table of a stage that has run."""
        return self.folder(stage).read(name, columns=columns)

    def rows(self, stage: str, name: str) -> list[dict[str, Any]]:
        """Read the rows of a small table."""
        rows: list[dict[str, Any]] = self.table(stage, name).to_pylist()
        return rows

    @cached_property
    def training_run(self) -> Path:
        """The folder of the run that trained the evaluated model, or else of the latest run."""
        evaluation = self.folder("evaluate").manifest()
        digest = evaluation.settings.get("model") if evaluation else None
        model_files = sorted(self.folder("train").path.glob(f"*/bundle/{MODEL_FILE}"))
        bundles = [path.parent for path in model_files if not path.parents[1].is_symlink()]
        latest = latest_bundle(self.path)
        return next((bundle for bundle in bundles if bundle_digest(bundle) == digest), latest).parent

    @cached_property
    def detections(self) -> StageFolder:
        """The detections that were evaluated, or else those of the work folder."""
        evaluation = self.folder("evaluate").manifest()
        path = evaluation.settings.get("evaluate", {}).get("detections") if evaluation else None
        return StageFolder(self.path, "detect", custom_path=Path(path) if path else None)

    @cached_property
    def history(self) -> dict[str, Any]:
        """The history of the training run, empty if there was none."""
        return read_json(self.training_run / HISTORY_FILE)

    @cached_property
    def model(self) -> dict[str, Any]:
        """The `model.json` of the model that detected, or else of the training run."""
        detect = self.detections.manifest()
        bundle = resolve_bundle(str(detect.settings.get("bundle") or "")) if detect else None
        return (bundle and read_json(bundle / MODEL_FILE)) or self.trained_model

    @property
    def trained_model(self) -> dict[str, Any]:
        """The `model.json` of the training run."""
        return read_json(self.training_run / "bundle" / MODEL_FILE)

    @property
    def num_sheets(self) -> int:
        """The maximum number of sheets of photos: labels, augmentation, detections, and those of `evaluate`."""
        return 3 + len(list(self.folder("evaluate").path.glob("previews/*.jpg")))

    @cached_property
    def num_photos(self) -> int:
        """The number of evaluated photos, or of indexed ones before the evaluation."""
        stage, name = ("evaluate", "evaluated_images") if self.has_run("evaluate") else ("index", "images")
        return self.count_rows(stage, name)

    def count_rows(self, stage: str, name: str) -> int:
        """Count the rows of a table without reading it."""
        return sum(file.rows for file in self.folder(stage).require_manifest().files(name))

    @cached_property
    def splits(self) -> list[str]:
        """The evaluated splits; the first is the one to show: test, if there is one."""
        names = sorted(set(self.table("evaluate", "evaluated_images", ["split"])["split"].to_pylist()))
        return sorted(names, key=lambda split: split != "test")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The evaluated classes, in the usual order."""
        return class_order({row["label"] for row in self.rows("evaluate", "scores")} - {""})

    @property
    def name(self) -> str:
        """The folder's name, or its parent's where it has the usual name `work`."""
        return self.path.parent.name if self.path.name == "work" and self.path.parent.name else self.path.name

    def operating_point(self) -> Mapping[str, Any]:
        """Read the thresholds that `evaluate` has fitted."""
        return read_json(self.folder("evaluate").path / OPERATING_POINT_FILE)

    def date(self, stage: str) -> str:
        """Return the day on which a stage's tables were committed, in UTC."""
        written = (self.folder(stage).path / MANIFEST_FILE).stat().st_mtime
        return datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d")

    def missing_stage_note(self, *stages: str) -> MissingStage | None:
        """Return the command that is missing for the results of the last of these stages; None if all have run."""
        missing = [stage for stage in stages if not self.has_run(stage)]
        return MissingStage(stage_command(missing[-1], self.path), tuple(missing[:-1])) if missing else None

    def next_commands(self) -> NextCommands | None:
        """Return the commands of the stages that have not run, in order; None if all have run."""
        commands = [stage_command(stage, self.path) for stage in REPORTED if not self.has_run(stage)]
        return NextCommands(tuple(commands)) if commands else None

    def stale_stages(self) -> list[StaleStage]:
        """List the stages whose tables are older than those of a stage that they read."""
        return [
            StaleStage(stage, source, stage_command(stage, self.path))
            for stage in REPORTED
            for source, digest in self._inputs(stage).items()
            if (manifest := self.folder(source).manifest()) is not None and manifest.digest != digest
        ]

    def _inputs(self, stage: str) -> dict[str, str]:
        """Return the stages of this work folder that a stage has read, with their digests at that time."""
        manifest = self.folder(stage).manifest()
        settings = manifest.settings if manifest else {}
        inputs = {name: settings[name] for name in REPORTED if isinstance(settings.get(name), str)}
        if stage == "evaluate" and settings.get("evaluate", {}).get("detections"):
            inputs.pop("detect", None)  # the detections of another folder
        return inputs


def stage_command(stage: str, work: Path) -> str:
    """Return the command that runs a stage."""
    path = shlex.quote(str(work))
    if stage == "index":
        return f"facade index --card CARD --root FOLDER --work {path}"
    return f"facade detect {path}" if stage == "detect" else f"facade {stage} --work {path}"


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from a JSON file; empty if there is none, for a report shows what there is."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
