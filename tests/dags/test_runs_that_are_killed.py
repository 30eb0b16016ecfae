"""A program that is killed in the middle of the weekly DAG: the task is tried again, and goes on."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow", reason="Airflow is in an environment of its own; `make test-all` makes it")


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
    assert ({line["changed"] for line in late.lines.values() if "changed" in line}, late.states["publish"]) == (
        {False},
        "success",
    )
    assert airflow.events(calm)[-1]["digests"] == digests
