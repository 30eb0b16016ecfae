"""Turn datasets into boxes, statistics and priors, once a week.

Runs `index`, `extract`, `describe` and `priors` on the datasets that the file of `facade run` names. What has not
changed is not done again. If the tables differ from those published last, `publish` updates the asset
`facade_dataset`, which starts `train_and_compare`; else it is skipped.

How many images and boxes were added, removed and modified is in MLflow, on the runs `index` and `extract`, and in the
asset's event.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import chain, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from facade_cli import DATASET, POLICY, RUN, run_file, stage

COUNTS = ("added", "removed", "modified")


@task(inlets=[DATASET], outlets=[DATASET])
def publish(lines: list[dict[str, Any]], inlet_events: Any = None, outlet_events: Any = None) -> dict[str, Any]:
    """Update the asset if the tables differ from those of its last event.

    It compares with the event, not with what this run has changed: a run that was stopped before it could publish has
    changed the tables, and the next one changes nothing.
    """
    run = run_file()
    stages = {name: outcome for line in lines for name, outcome in line["stages"].items()}
    digests = {name: outcome["digest"] for name, outcome in stages.items()}
    events = inlet_events[DATASET].ascending(False).limit(100)
    last: dict[str, Any] = next((event.extra for event in events if event.extra.get("run") == run), {})
    if last.get("digests") == digests:
        raise AirflowSkipException("The tables have not changed since the last publish.")
    images = [outcome for name, outcome in stages.items() if name.startswith("index ")]
    change = {"images": _change(images, "images"), "boxes": _change([stages["extract"]], "boxes")}
    mlflow = {name: outcome["run_id"] for name, outcome in stages.items()}
    published = {"run": run, "digests": digests, **change, "mlflow_runs": mlflow}
    outlet_events[DATASET].extra = published
    return published


def _change(outcomes: list[dict[str, Any]], table: str) -> dict[str, int]:
    """Count the rows of a table, and those added, removed and modified."""
    counts = {name: sum(outcome[name] for outcome in outcomes) for name in COUNTS}
    return {"rows": sum(outcome["outputs"].get(table, 0) for outcome in outcomes), **counts}


@dag(schedule="@weekly", params={"run": RUN}, tags=["facade", "dataset"], doc_md=__doc__, **POLICY)
def regenerate_dataset() -> None:
    """Run the dataset stages one after the other, and publish the tables."""
    stages = [stage.override(task_id=name)(name) for name in ("index", "extract", "describe", "priors")]
    chain(*stages)
    publish(stages)


regenerate_dataset()
