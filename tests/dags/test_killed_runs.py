"""A program that is killed in the middle of the weekly DAG: the task is retried and resumes."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow", reason="Airflow is in an environment of its own; `make test-all` makes it")


def test_killed_task_resumes_and_unpublished_tables_are_published(airflow: Any, work: Path) -> None:
    file = work / "run.toml"
    receipts = work / "work/extract/_receipts"
    done = airflow.run_killed("regenerate_dataset", {"run": str(file)}, receipts, "extract")
    assert (done.state, done.tries["extract"], done.tries["describe"]) == ("success", 2, 1)
    assert "of 2 shards were finished before" in done.log

    (work / "calm").mkdir()
    calm = work / "calm" / "run.toml"
    calm.write_text(file.read_text().replace("../", "../../"))
    command = [os.environ["FACADE"], "run", calm, "--to", "priors", "--workers", "0", "--tracking", "off"]
    line = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    digests = {name: outcome["digest"] for name, outcome in line["stages"].items()}
    assert done.lines["publish"]["digests"] == digests

    # As if the run before this one had been stopped between `priors` and `publish`: nothing changes, all is new.
    late = airflow.run("regenerate_dataset", {"run": str(calm)})
    assert (late.changed, late.states["publish"]) == ({False}, "success")
    assert airflow.events(calm)[-1]["digests"] == digests
