"""`report`: one page of everything that a work folder has come to, to look at, to send, and to keep.

The page needs nothing but itself, and the same tables give the same page.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from pipeline.config import Settings
from pipeline.execution.runner import Context, Outcome
from pipeline.stages.report import dataset_sections as report_dataset
from pipeline.stages.report import result_sections as report_results
from pipeline.stages.report.html import ImageLimit, render_page
from pipeline.stages.report.work_folder import REPORTED, WorkFolder
from pipeline.storage.files import write_bytes
from pipeline.storage.lock import locked
from pipeline.tracking.run_logger import open_run

__all__ = ["NAME", "ReportConfig", "build_page", "run"]

NAME: Final = "report"
PAGE_FILE: Final = "index.html"
SHEETS_SHARE: Final = 0.62  # of the page's bytes, before they are written as letters, which takes a third more


class ReportConfig(Settings):
    """How the page looks.

    Attributes:
        title: of the page; the work folder's name by default.
        width: sheets of photos are made no wider than this, in pixels.
        megabytes: of the page, about; the more sheets there are, the smaller they become.
    """

    title: str | None = None
    width: int = Field(default=1400, ge=100)
    megabytes: float = Field(default=6.0, gt=0)


def build_page(work: WorkFolder, config: ReportConfig) -> str:
    """Return the page of a work folder."""
    limit = ImageLimit(config.width, round(SHEETS_SHARE * 1e6 * config.megabytes / work.num_sheets))
    sections = [
        report_results.headline_section(work),
        report_dataset.dataset_section(work, limit),
        report_dataset.histograms_section(work),
        report_dataset.priors_section(work),
        report_dataset.training_section(work, limit),
        report_results.scores_section(work),
        report_results.errors_section(work),
        report_results.operating_point_section(work),
        report_results.photos_section(work, limit),
    ]
    return render_page(config.title or work.name, _subtitle(work), [part for part in sections if part.body])


def run(context: Context, config: ReportConfig) -> Outcome:
    """Return what became of the work folder: a page, written anew if it says something else than before."""
    started, work = time.monotonic(), WorkFolder(context.work)
    work.folder("index").require_manifest()
    folder = context.folder(NAME).path
    with locked(folder, reads=[context.folder(stage).path for stage in REPORTED]):
        data, path = build_page(work, config).encode(), folder / PAGE_FILE
        if path.is_file() and path.read_bytes() == data:
            return _outcome(work, path, data, started)
        with open_run(NAME, context.tracking, context.parent_run()) as tracked:
            tracked.log_settings({NAME: config.model_dump()})
            write_bytes(path, data, context.disk_retry_seconds)
            outcome = _outcome(work, path, data, started, changed=True, run_id=tracked.run_id)
            tracked.log({"bytes": float(len(data))}, {"digest": outcome.digest})
            tracked.log_files([path])
        context.log(f"report: {path}, {len(data) / 1e6:.1f} MB, all in one file; open it in a browser")
        return outcome


def _subtitle(work: WorkFolder) -> str:
    """Return the line under the title: how far the work has come."""
    done = [stage for stage in REPORTED if work.has_run(stage)]
    return f"facade-ssd: {', '.join(done)}" + (
        "" if len(done) == len(REPORTED) else f" ({len(done)} of {len(REPORTED)})"
    )


def _outcome(work: WorkFolder, path: Path, data: bytes, started: float, **values: Any) -> Outcome:
    """Make the outcome of this stage, whose rows are photos and which has no tables."""
    seconds = time.monotonic() - started
    return Outcome(
        stage=NAME,
        rows_in=work.photos,
        rows_out=work.photos,
        seconds=round(seconds, 3),
        per_second=round(work.photos / max(seconds, 1e-9), 1),
        outputs={"page": str(path), "bytes": len(data)},
        digest=hashlib.sha256(data).hexdigest(),
        **values,
    )
