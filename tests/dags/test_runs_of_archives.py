"""`airflow dags test` of the bulk detection, with the real program and a small network."""

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow", reason="Airflow is in an environment of its own; `make test-all` makes it")


PHOTOS = 130


def test_an_archive_with_a_bad_photo_by_a_program_that_is_killed(airflow: Any, drawn: Path) -> None:
    import psutil

    photos = Path(shutil.copytree(drawn / "drawn" / "photos", drawn / "photos"))
    (photos / "bad.jpg").write_bytes(b"no photo")
    conf = {"source": str(photos), "model": str(drawn / "bundle"), "out": str(drawn / "found")}
    process = airflow.start("detect_archive", conf)
    while not list(drawn.glob("found/_receipts/*.json")):
        assert process.poll() is None
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    (program,) = [child for child in children if "--shards" in child.cmdline()]
    program.send_signal(signal.SIGKILL)
    process.wait()
    first = airflow.finished("detect_archive")
    assert (first.state, first.tries["find"]) == ("success", 2)
    assert "shards were finished before" in first.log
    assert first.lines["report"]["photos"] == {"all": PHOTOS + 1, "done": PHOTOS, "rejected": 1}
    assert first.lines["verify"]["rows_in"] == PHOTOS + 1
    assert f"{PHOTOS} of {PHOTOS + 1} photos read, 1 rejected" in first.log

    calm = airflow.run("detect_archive", {**conf, "out": str(drawn / "calm")})
    assert calm.lines["finish"]["digest"] == first.lines["finish"]["digest"]

    again = airflow.run("detect_archive", conf)
    tasks = ("plan", "find", "finish", "verify")
    assert (again.state, {again.lines[name]["changed"] for name in tasks}) == ("success", {False})

    strict = airflow.run("detect_archive", {**conf, "max_rejected": 0})
    assert (strict.state, strict.states["find"], strict.states["finish"]) == ("failed", "success", "failed")
    assert "1 of 131 images were rejected" in strict.log
