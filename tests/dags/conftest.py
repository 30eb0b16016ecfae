"""An Airflow for each pytest process, and synthetic facades; the pipeline is in another environment."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
DAGS = HERE.parents[1] / "dags"
FACADE = os.environ.get("FACADE", "")  # the program, in its own environment
AIRFLOW = str(Path(sys.executable).with_name("airflow"))
PHOTOS = 70  # two shards
RUN_TOML = """\
work = "work"

[[datasets]]
card = "../card.toml"
root = "../drawn"

[extract]
previews = 0

[train]
preset = "demo"
priors = "paper_coco"
epochs = 1
device = "cpu"

[evaluate]
bootstrap_samples = 50
previews = 0
"""


@dataclass(frozen=True)
class Airflow:
    """An Airflow without servers: its folder, and the environment of its tasks."""

    home: Path
    env: dict[str, str]

    def start(self, dag: str, conf: dict[str, Any] | None = None, **env: str) -> subprocess.Popen[bytes]:
        """Start `airflow dags test`, whose log goes to a file."""
        with (self.home / f"{dag}.log").open("w", encoding="utf-8") as log:
            words = [AIRFLOW, "dags", "test", dag, "-c", json.dumps(conf or {})]
            streams = {"stdout": log, "stderr": log, "cwd": self.home, "start_new_session": True}
            return subprocess.Popen(words, env={**self.env, **env}, **streams)

    def run(self, dag: str, conf: dict[str, Any] | None = None, **env: str) -> DagRun:
        """Run a DAG to its end."""
        self.start(dag, conf, **env).wait()
        return self.last_run(dag)

    def run_killed(self, dag: str, conf: dict[str, Any], receipts: Path, word: str) -> DagRun:
        """Run a DAG to its end, the program with a word in its command killed once it has finished a shard."""
        import psutil

        process = self.start(dag, conf)
        while not list(receipts.glob("*.json")):
            assert process.poll() is None
            time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
        (program,) = [child for child in children if word in child.cmdline()]
        program.kill()
        process.wait()
        return self.last_run(dag)

    def last_run(self, dag: str) -> DagRun:
        """Read the last run of a DAG."""
        newest = "select run_id, state from dag_run where dag_id = ? order by id desc limit 1"
        run_id, state = self.rows(newest, dag)[0]
        tasks = self.rows("select task_id, state, try_number from task_instance where run_id = ?", run_id)
        lines = self.rows(
            "select task_id, value from xcom where key = 'return_value' and run_id = ? order by map_index", run_id
        )
        return DagRun(
            state,
            {task: task_state for task, task_state, _ in tasks},
            {task: tries for task, _, tries in tasks},
            {task: json.loads(value) for task, value in lines},
            (self.home / f"{dag}.log").read_text(encoding="utf-8"),
        )

    def events(self, run: Path) -> list[dict[str, Any]]:
        """Return the asset events of a file of `facade run`."""
        events = [json.loads(extra) for (extra,) in self.rows("select extra from asset_event order by id")]
        return [event for event in events if event["run"] == str(run)]

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return rows of Airflow's database."""
        with sqlite3.connect(self.home / "airflow.db") as database:
            return database.execute(query, values).fetchall()


@dataclass(frozen=True)
class DagRun:
    """A run of a DAG: its state; the state, tries and XCom of each task; the log."""

    state: str
    states: dict[str, str]
    tries: dict[str, int]
    lines: dict[str, Any]
    log: str

    @property
    def changed(self) -> set[bool]:
        """The values of `changed` that tasks report."""
        return {line["changed"] for line in self.lines.values() if "changed" in line}


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with synthetic facades, their card, and a bundle."""
    if not FACADE:
        pytest.skip("FACADE does not name the program; `make test-all` sets it")
    folder = tmp_path_factory.mktemp("facades")
    python = Path(FACADE).with_name("python")
    subprocess.run([python, HERE / "synthetic_data.py", folder, str(PHOTOS)], check=True)
    return folder


@pytest.fixture
def work(drawn: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with a file of `facade run`."""
    return make_run_folder(drawn, request.node.name)


def make_run_folder(drawn: Path, name: str) -> Path:
    """Make a folder next to the synthetic facades, with a file of `facade run`."""
    folder = drawn / name
    folder.mkdir()
    (folder / "run.toml").write_text(RUN_TOML)
    return folder


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """An Airflow with our DAGs and an empty database."""
    home = tmp_path_factory.mktemp("airflow")
    env = os.environ | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
        "AIRFLOW_VAR_FACADE": FACADE,
        "AIRFLOW_VAR_FACADE_OPTIONS": "--workers 0",
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
    }
    subprocess.run([AIRFLOW, "db", "migrate"], env=env, check=True, capture_output=True, cwd=home)
    return Airflow(home, env)
