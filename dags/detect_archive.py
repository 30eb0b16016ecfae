"""Detect in an archive of photos.

`plan` lists the archive and names groups of shards; `detect_shards` works on them, as many at a time as the pool `gpu`
has slots; `publish_tables` commits the tables; `verify` checks them; `report` counts.

Started by hand, with `source`, `model` and `out`. The same run again resumes where the last one was stopped, and adds
new photos. A photo that cannot be read becomes a row of `rejected` and fails nothing; more than `max_rejected` of them
fail `publish_tables`.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from airflow.sdk import Param, chain, dag, get_current_context, task

from facade_cli import GPU, POLICY, facade, options

log = logging.getLogger(__name__)

PARAMS = {
    "source": Param(
        type="string", minLength=1, title="Photos", description="A folder, a pattern, a .tar, a .zip, a list, s3://..."
    ),
    "model": Param(
        "models:/facade@champion",
        type="string",
        minLength=1,
        title="Model",
        description="A bundle's folder, an address of MLflow, or `default` for the bundled default model.",
    ),
    "out": Param(
        type="string",
        pattern="^/",
        title="Results",
        description="A folder: an absolute path that all workers see. It holds results of one source and one model.",
    ),
    "limit": Param(None, type=["null", "integer"], minimum=1, title="Maximum number of photos"),
    "max_rejected": Param(
        0.05, type="number", minimum=0, maximum=1, title="Fail above this share of photos that cannot be read"
    ),
}


def detect(*more: object, model: str | None = None) -> dict[str, Any]:
    """Run `facade detect` on this run's archive; return its line of JSON."""
    params: Any = get_current_context()["params"]
    words = [params["source"], "--model", model or params["model"], "--out", params["out"], *options()]
    words += ["--limit", params["limit"]] if params["limit"] else []
    return facade("detect", *words, *more)


@task
def plan() -> dict[str, Any]:
    """List the archive; the line names the bundle, in case the model's alias moves meanwhile."""
    return detect("--plan")


@task
def groups(line: dict[str, Any]) -> list[str]:
    """Return the groups of shards, one for each task of `detect_shards`."""
    return list(line["groups"])


@task(pool=GPU, map_index_template="{{ task.op_kwargs['group'] }}")
def detect_shards(group: str, line: dict[str, Any]) -> dict[str, Any]:
    """Detect in one group of shards; `publish_tables` checks the share of rejected photos, over all groups."""
    return detect("--shards", group, "--max-rejected", 1, model=line["bundle"])


@task(pool=GPU)
def publish_tables(line: dict[str, Any]) -> dict[str, Any]:
    """Commit the tables of all groups."""
    share: float = get_current_context()["params"]["max_rejected"]
    return detect("--max-rejected", share, model=line["bundle"])


@task
def verify() -> dict[str, Any]:
    """Check the tables: files, digests, schemas, counts."""
    return facade("verify", get_current_context()["params"]["out"])


@task
def report() -> dict[str, Any]:
    """Log the number of photos, detections and rejections."""
    folder = Path(get_current_context()["params"]["out"])
    summary = dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
    photos = summary["photos"]
    log.info("%s: %s of %s photos read, %s rejected", folder, photos["done"], photos["all"], photos["rejected"])
    log.info("selected: %s", ", ".join(f"{count} {label}" for label, count in summary["selected"].items()) or "nothing")
    for reason, count in summary["rejected"].items():
        log.info("rejected: %s x %s", count, reason)
    return summary


@dag(schedule=None, params=PARAMS, tags=["facade", "detection"], doc_md=__doc__, **POLICY)
def detect_archive() -> None:
    """Plan, detect in mapped groups of shards, publish the tables, verify, report."""
    planned = plan()
    detected = detect_shards.partial(line=planned).expand(group=groups(planned))
    chain(detected, publish_tables(planned), verify(), report())


detect_archive()
