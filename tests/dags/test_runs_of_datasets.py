"""`airflow dags test` of the weekly DAG and of the training, on drawn facades, with the real program."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow", reason="Airflow is in an environment of its own; `make test-all` makes it")


PHOTOS = 70


def events(airflow: Any) -> list[dict[str, Any]]:
    return [json.loads(extra) for (extra,) in airflow.rows("select extra from asset_event order by id")]


def changed(lines: dict[str, Any]) -> set[bool]:
    return {line["changed"] for line in lines.values() if "changed" in line}


def test_tables_are_published_once_and_trained_once(airflow: Any, work: Path) -> None:
    conf = {"run": str(work / "run.toml")}
    first = airflow.run("regenerate_dataset", conf)
    assert (first.state, set(first.states.values())) == ("success", {"success"})
    (event,) = events(airflow)
    assert event["images"] == {"rows": PHOTOS, "added": PHOTOS, "removed": 0, "modified": 0}
    assert event["boxes"]["rows"] == event["boxes"]["added"] > PHOTOS
    assert event["run"] == conf["run"]
    again = airflow.run("regenerate_dataset", conf)
    assert (again.state, changed(again.lines), again.states["publish"]) == ("success", {False}, "skipped")
    assert len(events(airflow)) == 1

    trained = airflow.run("train_and_compare", conf)
    assert (trained.state, trained.lines["promote"]["changed"]) == ("success", True)
    assert "is the first champion: there was none" in trained.lines["promote"]["reason"]
    again = airflow.run("train_and_compare", conf)
    assert (again.state, changed(again.lines)) == ("success", {False})
    assert again.lines["promote"]["reason"] == "version 1 is the champion already"


def test_a_killed_task_goes_on_and_what_was_never_published_is_published_next(airflow: Any, work: Path) -> None:
    import psutil

    file = work / "run.toml"
    process = airflow.start("regenerate_dataset", {"run": str(file)})
    while not list(work.glob("work/extract/_receipts/*.json")):
        assert process.poll() is None
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    (program,) = [child for child in children if "extract" in child.cmdline()]
    program.send_signal(signal.SIGKILL)
    process.wait()
    done = airflow.finished("regenerate_dataset")
    assert (done.state, done.tries["extract"], done.tries["describe"]) == ("success", 2, 1)
    assert "of 2 shards were finished before" in done.log

    (work / "calm").mkdir()
    calm = work / "calm" / "run.toml"
    calm.write_text(file.read_text().replace("../", "../../"))
    command = [os.environ["FACADE"], "run", calm, "--to", "calibrate", "--workers", "0", "--tracking", "off"]
    line = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    digests = {name: outcome["digest"] for name, outcome in line["stages"].items()}
    assert done.lines["publish"]["digests"] == digests

    # As if the run before this one had been stopped between `calibrate` and `publish`: nothing changes, all is new.
    late = airflow.run("regenerate_dataset", {"run": str(calm)})
    assert (changed(late.lines), late.states["publish"]) == ({False}, "success")
    assert events(airflow)[-1]["digests"] == digests
