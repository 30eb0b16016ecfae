"""What holds for every DAG and every task of it."""

import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow", reason="Airflow is in an environment of its own; `make test-all` makes it")

DAGS = Path(__file__).resolve().parents[2] / "dags"
NAMES = ("detect_archive", "regenerate_dataset", "train_and_compare")


@pytest.fixture(scope="module")
def bag() -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from airflow.dag_processing.dagbag import BundleDagBag

        for _ in range(2):  # the second time as in Airflow, which has its own modules in memory when it reads DAGs
            bag = BundleDagBag(dag_folder=str(DAGS), bundle_path=DAGS, bundle_name="dags")
    return bag


def test_dags_parse_in_time_without_errors(bag: Any) -> None:
    assert bag.import_errors == {}
    assert sorted(bag.dags) == list(NAMES)
    assert all(stats.duration < timedelta(seconds=2) for stats in bag.dagbag_stats)


@pytest.mark.parametrize("name", NAMES)
def test_dag_keeps_the_policies(bag: Any, name: str) -> None:
    dag = bag.dags[name]
    assert (dag.catchup, dag.max_active_runs, dag.deadline) == (False, 1, None)
    assert "facade" in dag.tags
    assert len(dag.doc_md) > 200
    params = [dag.params.get_param(key) for key in dag.params]
    assert all({"type", "title"} <= param.schema.keys() for param in params)
    for task in dag.tasks:
        assert (task.owner, task.retries, task.retry_exponential_backoff) == ("facade", 3, 2)
        assert task.max_retry_delay == timedelta(hours=1)
        assert timedelta(hours=1) <= task.execution_timeout <= timedelta(days=4)
        assert task.on_failure_callback
        assert task.doc or task.doc_md or task.python_callable.__doc__


def test_long_tasks_take_a_slot_of_the_pool(bag: Any) -> None:
    taken = {task.task_id for dag in bag.dags.values() for task in dag.tasks if task.pool == "gpu"}
    assert taken == {"train", "detect", "promote", "detect_shards", "publish_tables"}


def test_dataset_asset_triggers_the_training(bag: Any) -> None:
    (asset,) = bag.dags["regenerate_dataset"].task_dict["publish"].outlets
    assert list(bag.dags["train_and_compare"].timetable.asset_condition.objects) == [asset]
