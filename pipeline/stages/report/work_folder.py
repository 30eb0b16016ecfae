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

from pipeline.assets import bundle_named
from pipeline.datasets.labels import class_order
from pipeline.stages import STAGES
from pipeline.stages.report.html import Html, joined, note, tag
from pipeline.storage.stage_folder import MANIFEST, StageFolder
from ssd import bundle_digest
from ssd.bundle import MODEL_FILE

__all__ = ["REPORTED", "WorkFolder"]

REPORTED: Final = STAGES[: STAGES.index("report")]
# Whose digest each stage keeps among its settings: of what its tables were made from.
MADE_FROM: Final = {"extract": ("index",), "describe": ("extract",), "priors": ("extract",)} | {
    "evaluate": ("extract", "detect")
}
HISTORY: Final = "history.json"


@dataclass(frozen=True)
class WorkFolder:
    """A work folder as the report reads it; each thing once."""

    path: Path

    def folder(self, stage: str) -> StageFolder:
        """Return the folder of a stage."""
        return StageFolder(self.path, stage)

    def ran(self, stage: str) -> bool:
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
    def latest(self) -> Path:
        """The run that trained the model that was judged, else the one that was trained last."""
        folder, judged = self.folder("train").path, self.folder("evaluate").manifest()
        wanted = judged.settings.get("model") if judged else None
        bundles = [
            path.parent for path in sorted(folder.glob(f"*/bundle/{MODEL_FILE}")) if not path.parents[1].is_symlink()
        ]
        return next((path.parent for path in bundles if bundle_digest(path) == wanted), folder / "latest")

    @cached_property
    def found(self) -> StageFolder:
        """The detections that were judged, else those of the work folder."""
        judged = self.folder("evaluate").manifest()
        place = judged.settings.get("evaluate", {}).get("detections") if judged else None
        return StageFolder(self.path, "detect", place=Path(place) if place else None)

    @cached_property
    def history(self) -> dict[str, Any]:
        """What the last training came to, empty if there was none."""
        return read_json(self.latest / HISTORY)

    @cached_property
    def model(self) -> dict[str, Any]:
        """What `model.json` says of the network that found, else of the one that was trained last."""
        detect = self.found.manifest()
        bundle = bundle_named(str(detect.settings.get("bundle") or "")) if detect else None
        return (bundle and read_json(bundle / "model.json")) or self.trained

    @property
    def sheets(self) -> int:
        """How many sheets of photos there may be: labels, augmented, found, and those of `evaluate`."""
        return 3 + len(list(self.folder("evaluate").path.glob("drawings/*.jpg")))

    @cached_property
    def splits(self) -> list[str]:
        """The splits that were judged, the one to look at first: test, or what there is."""
        found = sorted(set(self.table("evaluate", "judged", ["split"])["split"].to_pylist()))
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
        stage, name = ("evaluate", "judged") if self.ran("evaluate") else ("index", "images")
        return sum(file.rows for file in self.folder(stage).require_manifest().files(name))

    @property
    def trained(self) -> dict[str, Any]:
        """What `model.json` says of the network that was trained last."""
        return read_json(self.latest / "bundle" / "model.json")

    def operating(self) -> Mapping[str, Any]:
        """Return what `evaluate` says of thresholds."""
        return read_json(self.folder("evaluate").path / "operating.json")

    def date(self, stage: str) -> str:
        """Return the day on which a stage's tables were put in force, in UTC."""
        written = (self.folder(stage).path / MANIFEST).stat().st_mtime
        return datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d")

    def todo(self, *stages: str) -> Html:
        """Return a sentence that says what to run before there is something to see: the last, after the others."""
        missing = [stage for stage in stages if not self.ran(stage)]
        if not missing:
            return Html("")
        after = f", after {' and '.join(missing[:-1])}" if missing[:-1] else ""
        return note("Not yet: run ", tag("code", command_of(missing[-1], self.path)), f"{after}.", kind="todo")

    def next_steps(self) -> Html:
        """Return the commands that are left to run, in order."""
        missing = [stage for stage in REPORTED if not self.ran(stage)]
        commands = (tag("li", tag("code", command_of(stage, self.path))) for stage in missing)
        return tag("div", "What is left to run:", tag("ol", *commands), class_="todo") if missing else Html("")

    def outdated(self) -> list[Html]:
        """Return a sentence for each stage whose tables are older than those that they are made from."""
        return [
            joined(f"{stage} is older than {source}: run ", tag("code", command_of(stage, self.path)), ".")
            for stage, sources in MADE_FROM.items()
            for source in sources
            if self._is_older(stage, source)
        ]

    def _is_older(self, stage: str, source: str) -> bool:
        own, before = self.folder(stage).manifest(), self.folder(source).manifest()
        elsewhere = stage == "evaluate" and (own and own.settings.get("evaluate", {}).get("detections"))
        if own is None or before is None or (elsewhere and source == "detect"):
            return False
        return bool(own.settings.get(source) != before.digest)


def command_of(stage: str, work: Path) -> str:
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
