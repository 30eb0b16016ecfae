"""What a model finds in an archive of photos.

`plan` lists the archive and names groups of shards; `detect_shards` does them, as many at a time as the pool `gpu` has slots;
`finish` puts the tables in force; `verify` checks them; `report` counts.

Started by hand, with `source`, `model` and `out`. The same again goes on where the last one was stopped, and takes in
photos that have come since. A photo that cannot be read is a row of `rejected`, and fails nothing; more than
`max_rejected` of them fail `finish`.
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
        description="A bundle's folder, an address of MLflow, or default, the model that comes along.",
    ),
    "out": Param(
        type="string",
        pattern="^/",
        title="Results",
        description="A folder, an absolute path that all workers see. It is of one source and one model.",
    ),
    "limit": Param(None, type=["null", "integer"], minimum=1, title="At most so many photos"),
    "max_rejected": Param(
        0.05, type="number", minimum=0, maximum=1, title="Fail above this share of photos that cannot be read"
    ),
}


def detect(*more: object, model: str | None = None) -> dict[str, Any]:
    """Return the line of `facade detect` on this run's archive."""
    params: Any = get_current_context()["params"]
    words = [params["source"], "--model", model or params["model"], "--out", params["out"], *options()]
    words += ["--limit", params["limit"]] if params["limit"] else []
    return facade("detect", *words, *more)


@task
def plan() -> dict[str, Any]:
    """List the archive; the line says which bundle the model is, should its alias move meanwhile."""
    return detect("--plan")


@task
def groups(line: dict[str, Any]) -> list[str]:
    """Return the groups of shards, one for each task of `detect_shards`."""
    return list(line["groups"])


@task(pool=GPU, map_index_template="{{ task.op_kwargs['group'] }}")
def detect_shards(group: str, line: dict[str, Any]) -> dict[str, Any]:
    """Find in one group of shards; how many photos may be bad is judged over all of them, by `publish_tables`."""
    return detect("--shards", group, "--max-rejected", 1, model=line["bundle"])


@task(pool=GPU)
def publish_tables(line: dict[str, Any]) -> dict[str, Any]:
    """Put the tables in force, of all that was found."""
    share: float = get_current_context()["params"]["max_rejected"]
    return detect("--max-rejected", share, model=line["bundle"])


@task
def verify() -> dict[str, Any]:
    """Check the tables: files, digests, schemas, counts."""
    return facade("verify", get_current_context()["params"]["out"])


@task
def report() -> dict[str, Any]:
    """Say how many of what were found."""
    folder = Path(get_current_context()["params"]["out"])
    summary = dict(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
    photos, reasons = summary["photos"], summary["rejected"]
    log.info("%s: %s of %s photos read, %s rejected", folder, photos["done"], photos["all"], photos["rejected"])
    log.info("selected: %s", ", ".join(f"{count} {label}" for label, count in summary["selected"].items()) or "nothing")
    for reason, count in reasons.items():
        log.info("rejected: %s x %s", count, reason)
    return summary


@dag(schedule=None, params=PARAMS, tags=["facade", "detection"], doc_md=__doc__, **POLICY)
def detect_archive() -> None:
    """Plan, find in mapped groups of shards, finish, verify, report."""
    planned = plan()
    found = detect_shards.partial(line=planned).expand(group=groups(planned))
    chain(found, publish_tables(planned), verify(), report())


detect_archive()
