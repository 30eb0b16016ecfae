"""Train a detector on the new dataset, and promote it to champion if it is better.

Starts when `regenerate_dataset` has published the asset `facade_dataset`, or by hand. Runs `train`, `detect` on the
held-out photos, and `evaluate`; then `promote` compares with the champion on the same test photos: where the data has
changed since, the champion is evaluated on them first. The alias `champion` of the registered model `facade` moves to
the candidate if it is better beyond chance, or to the first model. The reason is in the log and the XCom of `promote`,
and in MLflow, on the version.

A model that was trained before with the same tables and settings is not trained again. `train`, `detect` and `promote`
take a slot of the pool `gpu`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import chain, dag, task

from facade_cli import DATASET, GPU, POLICY, RUN, facade, stage


@task(pool=GPU)
def promote(line: dict[str, Any]) -> dict[str, Any]:
    """Compare the candidate with the champion; return whether it replaces it, and why."""
    return facade("model", "promote", "--work", line["work"])


@dag(schedule=[DATASET], params={"run": RUN}, tags=["facade", "model"], doc_md=__doc__, **POLICY)
def train_and_compare() -> None:
    """Train, detect, evaluate, and promote or not."""
    train = stage.override(task_id="train", pool=GPU, execution_timeout=timedelta(days=4))("train")
    detect = stage.override(task_id="detect", pool=GPU)("detect")
    evaluate = stage.override(task_id="evaluate")("evaluate")
    chain(train, detect, evaluate, promote(evaluate))


train_and_compare()
