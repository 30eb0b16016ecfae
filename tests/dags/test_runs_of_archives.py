"""`airflow dags test` of the bulk detection, with the real program and a small network."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow", reason="Airflow is in an environment of its own; `make test-all` makes it")


PHOTOS = 70


def test_archive_with_a_bad_photo_and_a_killed_program(airflow: Any, drawn: Path) -> None:
    photos = Path(shutil.copytree(drawn / "drawn" / "photos", drawn / "photos"))
    (photos / "bad.jpg").write_bytes(b"no photo")
    conf = {"source": str(photos), "model": str(drawn / "bundle"), "out": str(drawn / "found")}
    receipts = drawn / "found/_receipts"
    strict = airflow.run_killed("detect_archive", {**conf, "max_rejected": 0}, receipts, "--shards")
    assert (strict.state, strict.states["detect_shards"], strict.tries["detect_shards"]) == ("failed", "success", 2)
    assert (strict.states["publish_tables"], strict.states["verify"]) == ("failed", "upstream_failed")
    assert "shards were finished before" in strict.log
    assert f"1 of {PHOTOS + 1} images were rejected" in strict.log

    done = airflow.run("detect_archive", conf)
    assert (done.state, done.lines["detect_shards"]["changed"]) == ("success", False)
    assert done.lines["report"]["photos"] == {"all": PHOTOS + 1, "done": PHOTOS, "rejected": 1}
    assert f"{PHOTOS} of {PHOTOS + 1} photos read, 1 rejected" in done.log
    # With the options of the DAGs: as many threads, since on some processors sums depend on their number.
    options = ("--workers", "0", "--tracking", "off")
    command = [os.environ["FACADE"], "detect", photos, "--model", conf["model"], "--out", drawn / "calm", *options]
    calm = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(calm.stdout)["digest"] == done.lines["publish_tables"]["digest"]

    again = airflow.run("detect_archive", conf)
    tasks = ("plan", "detect_shards", "publish_tables", "verify")
    assert (again.state, {again.lines[name]["changed"] for name in tasks}) == ("success", {False})
