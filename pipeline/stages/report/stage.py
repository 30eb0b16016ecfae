"""The report stage: one page with all results of a work folder.

The page is self-contained, and the same tables give the same page.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from pipeline.config import Settings
from pipeline.execution.runner import Context, Outcome
from pipeline.stages.report import dataset_sections, result_sections
from pipeline.stages.report.html import render_page
from pipeline.stages.report.pictures import ImageLimit
from pipeline.stages.report.work_folder import REPORTED, WorkFolder
from pipeline.storage.files import write_bytes
from pipeline.storage.lock import locked
from pipeline.tracking.run_logger import open_run

__all__ = ["NAME", "ReportConfig", "build_page", "run"]

NAME: Final = "report"
PAGE_FILE: Final = "index.html"
SHEETS_SHARE: Final = 0.62  # of the page's bytes; base64 then makes the sheets a third larger


class ReportConfig(Settings):
    """Settings of the page.

    Attributes:
        title: title of the page; the work folder's name by default.
        width: maximum width of the sheets of photos, in pixels.
        megabytes: approximate size of the page; the more sheets there are, the smaller they become.
    """

    title: str | None = None
    width: int = Field(default=1400, ge=100)
    megabytes: float = Field(default=6.0, gt=0)


def build_page(work: WorkFolder, config: ReportConfig) -> str:
    """Build the page of a work folder."""
    limit = ImageLimit(config.width, round(SHEETS_SHARE * 1e6 * config.megabytes / work.num_sheets))
    sections = [
        result_sections.headline_section(work),
        dataset_sections.dataset_section(work, limit),
        dataset_sections.histograms_section(work),
        dataset_sections.priors_section(work),
        dataset_sections.training_section(work, limit),
        result_sections.scores_section(work),
        result_sections.errors_section(work),
        result_sections.operating_point_section(work),
        result_sections.photos_section(work, limit),
    ]
    return render_page(config.title or work.name, _subtitle(work), [section for section in sections if section.blocks])


def run(context: Context, config: ReportConfig) -> Outcome:
    """Write the page of the work folder, if it differs from the one that is there."""
    started = time.monotonic()
    work = WorkFolder(context.work)
    work.folder("index").require_manifest()
    folder = context.folder(NAME).path
    with locked(folder, reads=[context.folder(stage).path for stage in REPORTED]):
        data = build_page(work, config).encode()
        path = folder / PAGE_FILE
        if path.is_file() and path.read_bytes() == data:
            return _outcome(work, path, data, started)
        with open_run(NAME, context.tracking, context.parent_run()) as run_logger:
            run_logger.log_settings({NAME: config.model_dump()})
            write_bytes(path, data, context.disk_retry_seconds)
            outcome = _outcome(work, path, data, started, changed=True, run_id=run_logger.run_id)
            run_logger.log({"bytes": float(len(data))}, {"digest": outcome.digest})
            run_logger.log_files([path])
        context.log(f"report: {path}, {len(data) / 1e6:.1f} MB, self-contained; open it in a browser")
        return outcome


def _subtitle(work: WorkFolder) -> str:
    """Return the line under the title: the stages that have run."""
    stages = [stage for stage in REPORTED if work.has_run(stage)]
    progress = "" if len(stages) == len(REPORTED) else f" ({len(stages)} of {len(REPORTED)})"
    return f"facade-ssd: {', '.join(stages)}{progress}"


def _outcome(work: WorkFolder, path: Path, data: bytes, started: float, **values: Any) -> Outcome:
    """Build the stage's outcome; its rows are photos, and `changed` is false unless `values` says otherwise."""
    seconds = time.monotonic() - started
    return Outcome(
        stage=NAME,
        rows_in=work.num_photos,
        rows_out=work.num_photos,
        seconds=round(seconds, 3),
        per_second=round(work.num_photos / max(seconds, 1e-9), 1),
        outputs={"page": str(path), "bytes": len(data)},
        digest=hashlib.sha256(data).hexdigest(),
        **values,
    )
