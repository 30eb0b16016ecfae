"""A detector of the new dataset, and whether it takes the champion's place.

Starts when `regenerate_dataset` has published the asset `facade_dataset`, or by hand. `train`, `detect` on photos that
were not learnt from, `evaluate`; then `promote` compares with the champion on the same photos of test: the champion is
judged on them anew where the data has changed since. The alias `champion` of the registered model `facade` moves to
what is better by more than chance, or to the first. The reason is in the log and the XCom of `promote`, and in MLflow,
on the version.

What was trained before with the same tables and settings is not trained again. `train`, `detect` and `promote` take a
slot of the pool `gpu`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import chain, dag, task

from facade_cli import DATASET, GPU, POLICY, RUN, facade, stage


@task(pool=GPU)
def promote(line: dict[str, Any]) -> dict[str, Any]:
    """Compare the candidate with the champion, and say why it takes its place or does not."""
    return facade("model", "promote", "--work", line["work"])


@dag(schedule=[DATASET], params={"run": RUN}, tags=["facade", "model"], doc_md=__doc__, **POLICY)
def train_and_compare() -> None:
    """Train, find, judge, and promote or not."""
    train = stage.override(task_id="train", pool=GPU, execution_timeout=timedelta(days=4))("train")
    detect = stage.override(task_id="detect", pool=GPU)("detect")
    evaluate = stage.override(task_id="evaluate")("evaluate")
    chain(train, detect, evaluate, promote(evaluate))


train_and_compare()
