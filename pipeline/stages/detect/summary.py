"""The summary of a detection job: counts, rejection reasons and timing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from pipeline.execution.runner import Outcome
from pipeline.stages.detect.job import Job
from pipeline.storage.files import write_bytes
from pipeline.storage.schemas import value_counts
from pipeline.storage.stage_folder import StageFolder

SUMMARY_FILE: Final = "summary.json"


def write_summary(folder: StageFolder, outcome: Outcome, job: Job, listing_seconds: float) -> None:
    """Write what people ask first: how many of what, what was wrong, and how long it took."""
    manifest = folder.require_manifest()
    found, selected = Counter[str](), Counter[str]()
    for entry in manifest.files("detections"):
        table = folder.read_files("detections", [entry], ["label", "selected"])
        found.update(value_counts(table["label"]))
        selected.update(value_counts(table["label"].filter(table["selected"])))
    reasons = Counter[str]()
    for entry in manifest.files("rejected"):
        reasons.update(value_counts(folder.read_files("rejected", [entry], ["message"])["message"]))
    summary = {
        "source": job.source,
        "model": job.detector.digest,
        "photos": {"all": outcome.rows_in, "done": outcome.rows_out, "rejected": outcome.rejected},
        "detections": dict(found.most_common()),
        "selected": dict(selected.most_common()),
        "rejected": dict(reasons.most_common(20)),
        "seconds": {"listing": round(listing_seconds, 3), "detecting": outcome.seconds},
        "photos_per_second": outcome.per_second,
        "digest": outcome.digest,
    }
    write_bytes(folder.path / SUMMARY_FILE, json_lines(summary), folder.disk_retry_seconds)


def is_summarised(folder: StageFolder, outcome: Outcome) -> bool:
    """Return whether the summary is of these tables."""
    try:
        return bool(json.loads((folder.path / SUMMARY_FILE).read_bytes())["digest"] == outcome.digest)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def json_lines(value: Mapping[str, Any]) -> bytes:
    """Format a JSON file that people read too."""
    return (json.dumps(value, indent=1) + "\n").encode()
