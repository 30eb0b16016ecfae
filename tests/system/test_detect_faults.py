"""`detect` in a bad night, with real processes: the tables are those of a quiet one, row for row."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline.execution.parallel import local_client
from pipeline.storage.stage_folder import StageFolder
from pipeline.storage.verify import verify

from ..pipeline.dask_cluster import scheduler, worker
from .test_faults import fill, small_disk, workers_of

__all__ = ["small_disk"]  # a fixture

HERE = Path(__file__).parents[1] / "pipeline"
PHOTOS = 5_000  # 35 shards
TABLES = ("photos", "detections", "rejected")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many small photos: 20 under many names, and two that cannot be read."""
    folder = tmp_path_factory.mktemp("archive")
    few = [write_photo(folder / f"{number}.png", number) for number in range(20)]
    for number in range(20, PHOTOS):
        os.link(few[number % 20], folder / f"{number}.png")
    for number in (700, 4000):
        (folder / f"{number}.png").unlink()
        (folder / f"{number}.png").write_bytes(b"no photo")
    return folder


def write_photo(path: Path, number: int) -> Path:
    pixels = np.full((48, 64, 3), 9, np.uint8)
    pixels[10 + number : 30, 5 : 30 + number] = 200 + number
    Image.fromarray(pixels).save(path)
    return path


def command(source: object, out: Path, *more: str) -> list[str]:
    return [sys.executable, str(HERE / "stub_networks.py"), str(source), str(out), *more]


def start(arguments: list[str], **env: str) -> subprocess.Popen[str]:
    everything = {**os.environ, **env}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=everything)


def finish(process: subprocess.Popen[str]) -> str:
    _, messages = process.communicate()
    assert (process.returncode, "Traceback" in messages) == (0, False), messages
    return messages


def tables(out: Path) -> dict[str, list[dict[str, Any]]]:
    folder = StageFolder(out.parent, "detect", custom_path=out)
    assert verify(out).problems == ()
    return {name: folder.read(name).to_pylist() for name in TABLES}


@pytest.fixture(scope="module")
def expected(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The tables of a quiet run, in one process."""
    out = tmp_path_factory.mktemp("calm") / "out"
    finish(start(command(archive, out, "lights", "0")))
    results = tables(out)
    assert (len(results["photos"]), len(results["detections"]), len(results["rejected"])) == (PHOTOS, PHOTOS - 2, 2)
    return results


def wait_for_receipts(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    while len(list((out / "_receipts").glob("*.json"))) < count:
        if process.poll() is not None:
            raise AssertionError(f"it ended before it could be disturbed: {process.communicate()[1]}")
        time.sleep(0.02)


def test_killed_workers_and_command_lose_and_duplicate_nothing(
    archive: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    process = start(command(archive, out), STUB_DELAY="0.004")
    for count in (1, 2, 3, 4, 5):
        wait_for_receipts(out, count, process)
        workers_of(process)[count % 2 - 1].kill()
    wait_for_receipts(out, 6, process)
    workers = workers_of(process)
    process.kill()
    process.communicate()
    psutil.wait_procs(workers, timeout=30)
    assert not (out / "_manifest.json").exists()
    messages = finish(start(command(archive, out)))
    assert "shards were finished before" in messages
    assert tables(out) == expected
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize(("kind", "cause"), [("die", "signal 9"), ("eat", "out of memory")])
def test_photo_that_kills_its_worker_is_the_only_rejected_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, cause: str
) -> None:
    monkeypatch.syspath_prepend(HERE)  # the scheduler of this process reads what it passes on
    source = tmp_path / "photos"
    source.mkdir()
    for number in range(5):  # few: each half of a shard that kills is tried in a process of its own
        write_photo(source / f"{number:02d}.png", number)
    Image.new("RGB", (64, 48)).save(source / "03.png")
    with local_client(2, memory=1_500_000_000) as client:
        finish(start(command(source, tmp_path / "out", kind, "2", client.scheduler.address), PYTHONPATH=str(HERE)))
    results = tables(tmp_path / "out")
    assert [(row["image_id"], row["status"]) for row in results["photos"]] == [
        (f"{number:02d}.png", "rejected" if number == 3 else "done") for number in range(5)
    ]
    (row,) = results["rejected"]
    assert (row["image_id"], cause in row["message"]) == ("03.png", True)
    assert len(results["detections"]) == 4


def test_full_disk_is_waited_for(archive: Path, small_disk: Path, expected: dict[str, Any]) -> None:
    out = small_disk / "out"
    some = sorted(archive.iterdir(), key=lambda path: int(path.stem))[:1200]
    listed = small_disk / "list.csv"
    listed.write_text("path,id\n" + "".join(f"{path},{path.name}\n" for path in some))
    process = start(command(listed, out, "lights", "1"), STUB_DELAY="0.004")
    wait_for_receipts(out, 1, process)
    ballast = fill(small_disk, 4096)
    assert process.stderr is not None
    assert any("No space left on device; trying again" in line for line in process.stderr)
    ballast.unlink()
    finish(process)
    names = {path.name for path in some}
    kept = {name: [row for row in rows if row["image_id"] in names] for name, rows in expected.items()}
    for name, rows in tables(out).items():
        key = {row["image_id"]: row for row in kept[name]}
        assert len(rows) == len(kept[name])
        assert all({**row, "extra": None} == {**key[row["image_id"]], "extra": None} for row in rows)


class Refusing:
    """A WSGI application that answers every tenth request with 503."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application, self.lock, self.count, self.refused = application, threading.Lock(), 0, 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self.lock:
            self.count += 1
            refused = self.count % 10 == 0
            self.refused += refused
        if refused:
            start_response("503 Slow Down", [("Content-Type", "text/plain")])
            return [b"try again"]
        return self.application(environ, start_response)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Refusing, dict[str, str]]]:
    """An S3 server on loopback that refuses every tenth request, and what a process needs to use it."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = Refusing(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    env = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    yield application, env
    server.shutdown()
    thread.join()


@pytest.mark.filterwarnings("ignore")
def test_store_that_refuses_requests_is_retried(
    store: tuple[Refusing, dict[str, str]], tmp_path: Path, archive: Path
) -> None:
    import boto3

    application, env = store
    client = boto3.client("s3", config=boto3.session.Config(retries={"max_attempts": 10}))
    client.create_bucket(Bucket="photos")
    for number in range(120):
        client.upload_file(str(archive / f"{number}.png"), "photos", f"city/{number % 3}/{number:03d}.png")
    application.refused = 0
    out = tmp_path / "out"
    finish(start(command("s3://photos/city", out), **env))
    assert application.refused >= 12
    results = tables(out)
    assert [row["image_id"] for row in results["photos"]] == [
        f"{part}/{number:03d}.png" for part in range(3) for number in range(part, 120, 3)
    ]
    assert {row["status"] for row in results["photos"]} == {"done"}
    assert len(results["detections"]) == 120


def test_scheduler_workers_come_and_go(archive: Path, tmp_path: Path, expected: dict[str, Any]) -> None:
    out = tmp_path / "out"
    with scheduler() as address, contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker(address, tmp_path)) for _ in range(2)]
        process = start(command(archive, out, "lights", "2", address), STUB_DELAY="0.004")
        wait_for_receipts(out, 2, process)
        workers[0].terminate()
        wait_for_receipts(out, 4, process)
        stack.enter_context(worker(address, tmp_path))
        finish(process)
    assert tables(out) == expected
    shutil.rmtree(out)
