"""`airflow dags test` of the weekly DAG and of the training, on drawn facades, with the real program."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow", reason="Airflow is in an environment of its own; `make test-all` makes it")


PHOTOS = 70


def test_tables_are_published_and_trained_on_once(airflow: Any, work: Path) -> None:
    conf = {"run": str(work / "run.toml")}
    first = airflow.run("regenerate_dataset", conf)
    assert (first.state, set(first.states.values())) == ("success", {"success"})
    (event,) = airflow.events(work / "run.toml")
    assert event["images"] == {"rows": PHOTOS, "added": PHOTOS, "removed": 0, "modified": 0}
    assert event["boxes"]["rows"] == event["boxes"]["added"] > PHOTOS
    again = airflow.run("regenerate_dataset", conf)
    assert (again.state, again.changed, again.states["publish"]) == ("success", {False}, "skipped")
    assert len(airflow.events(work / "run.toml")) == 1

    trained = airflow.run("train_and_compare", conf)
    assert (trained.state, trained.lines["promote"]["changed"]) == ("success", True)
    assert "is the first champion: there was none" in trained.lines["promote"]["reason"]
    again = airflow.run("train_and_compare", conf)
    assert (again.state, again.changed) == ("success", {False})
    assert again.lines["promote"]["reason"] == "version 1 is the champion already"
