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
from pipeline.models.bundle import LATEST_LINK
from pipeline.stages import STAGES
from pipeline.stages.report.html import Html, join_html, note, tag
from pipeline.storage.stage_folder import MANIFEST_FILE, StageFolder
from ssd import bundle_digest
from ssd.bundle import MODEL_FILE

__all__ = ["REPORTED", "WorkFolder"]

REPORTED: Final = STAGES[: STAGES.index("report")]
HISTORY_FILE: Final = "history.json"


@dataclass(frozen=True)
class WorkFolder:
    """A work folder as the report reads it; each thing once."""

    path: Path

    def folder(self, stage: str) -> StageFolder:
        """Return the folder of a stage."""
        return StageFolder(self.path, stage)

    def has_run(self, stage: str) -> bool:
        """Return whether a stage has completed here."""
        return bool(self.history) if stage == "train" else self.folder(stage).manifest() is not None

    def table(self, stage: str, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return a table of a stage that has run."""
        return self.folder(stage).read(name, columns=columns)

    def rows(self, stage: str, name: str) -> list[dict[str, Any]]:
        """Return the rows of a small table."""
        found: list[dict[str, Any]] = self.table(stage, name).to_pylist()
        return found

    @cached_property
    def training_run(self) -> Path:
        """The run that trained the model that was judged, else the one that was trained last."""
        folder, judged = self.folder("train").path, self.folder("evaluate").manifest()
        wanted = judged.settings.get("model") if judged else None
        bundles = [
            path.parent for path in sorted(folder.glob(f"*/bundle/{MODEL_FILE}")) if not path.parents[1].is_symlink()
        ]
        return next((path.parent for path in bundles if bundle_digest(path) == wanted), folder / LATEST_LINK)

    @cached_property
    def detections(self) -> StageFolder:
        """The detections that were judged, else those of the work folder."""
        judged = self.folder("evaluate").manifest()
        place = judged.settings.get("evaluate", {}).get("detections") if judged else None
        return StageFolder(self.path, "detect", custom_path=Path(place) if place else None)

    @cached_property
    def history(self) -> dict[str, Any]:
        """What the last training came to, empty if there was none."""
        return read_json(self.training_run / HISTORY_FILE)

    @cached_property
    def model(self) -> dict[str, Any]:
        """What `model.json` says of the network that found, else of the one that was trained last."""
        detect = self.detections.manifest()
        bundle = resolve_bundle(str(detect.settings.get("bundle") or "")) if detect else None
        return (bundle and read_json(bundle / "model.json")) or self.trained_model

    @property
    def num_sheets(self) -> int:
        """How many sheets of photos there may be: labels, augmented, found, and those of `evaluate`."""
        return 3 + len(list(self.folder("evaluate").path.glob("previews/*.jpg")))

    @cached_property
    def splits(self) -> list[str]:
        """The splits that were judged, the one to look at first: test, or what there is."""
        found = sorted(set(self.table("evaluate", "evaluated_images", ["split"])["split"].to_pylist()))
        return sorted(found, key=lambda split: split != "test")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes that were judged, in the order of their labels."""
        return class_order({row["label"] for row in self.rows("evaluate", "scores")} - {""})

    @property
    def name(self) -> str:
        """The folder's name, with that of the folder around it where it is called work like most others."""
        return self.path.parent.name if self.path.name == "work" and self.path.parent.name else self.path.name

    @cached_property
    def photos(self) -> int:
        """How many photos were judged, or are indexed if none were."""
        stage, name = ("evaluate", "evaluated_images") if self.has_run("evaluate") else ("index", "images")
        return sum(file.rows for file in self.folder(stage).require_manifest().files(name))

    @property
    def trained_model(self) -> dict[str, Any]:
        """What `model.json` says of the network that was trained last."""
        return read_json(self.training_run / "bundle" / "model.json")

    def operating_point(self) -> Mapping[str, Any]:
        """Return what `evaluate` says of thresholds."""
        return read_json(self.folder("evaluate").path / "operating.json")

    def date(self, stage: str) -> str:
        """Return the day on which a stage's tables were put in force, in UTC."""
        written = (self.folder(stage).path / MANIFEST_FILE).stat().st_mtime
        return datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d")

    def missing_stage_note(self, *stages: str) -> Html:
        """Return a sentence that says what to run before there is something to see: the last, after the others."""
        missing = [stage for stage in stages if not self.has_run(stage)]
        if not missing:
            return Html("")
        after = f", after {' and '.join(missing[:-1])}" if missing[:-1] else ""
        return note("Not yet: run ", tag("code", stage_command(missing[-1], self.path)), f"{after}.", kind="todo")

    def next_commands(self) -> Html:
        """Return the commands that are left to run, in order."""
        missing = [stage for stage in REPORTED if not self.has_run(stage)]
        commands = (tag("li", tag("code", stage_command(stage, self.path))) for stage in missing)
        return tag("div", "What is left to run:", tag("ol", *commands), class_="todo") if missing else Html("")

    def stale_stages(self) -> list[Html]:
        """Return a sentence for each stage whose tables are older than those that they are made from."""
        return [
            join_html(f"{stage} is older than {source}: run ", tag("code", stage_command(stage, self.path)), ".")
            for stage in REPORTED
            for source, digest in self._inputs(stage).items()
            if (manifest := self.folder(source).manifest()) is not None and manifest.digest != digest
        ]

    def _inputs(self, stage: str) -> dict[str, str]:
        """Return the stages of this work folder that a stage's tables are made from, with the digest they had then."""
        manifest = self.folder(stage).manifest()
        settings = manifest.settings if manifest else {}
        inputs = {name: settings[name] for name in REPORTED if isinstance(settings.get(name), str)}
        if stage == "evaluate" and settings.get("evaluate", {}).get("detections"):
            inputs.pop("detect", None)  # the detections of another folder
        return inputs


def stage_command(stage: str, work: Path) -> str:
    """Return the command that runs a stage."""
    place = shlex.quote(str(work))
    if stage == "index":
        return f"facade index --card CARD --root FOLDER --work {place}"
    return f"facade detect {place}" if stage == "detect" else f"facade {stage} --work {place}"


def read_json(path: Path) -> dict[str, Any]:
    """Return an object of a JSON file, empty if there is none: a report says what there is."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
