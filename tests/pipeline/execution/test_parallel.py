"""Shards to workers: what is killed is redone, and the killer is found."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.errors import FacadeError
from pipeline.execution.isolation import run_isolated
from pipeline.execution.parallel import WorkerConfig, WorkerPool, local_client
from pipeline.execution.runner import Stage, StagePlan, run_stage
from pipeline.execution.sharding import make_shards, row_counter
from pipeline.storage.manifest import Shard
from pipeline.storage.schemas import table_from_rows

from ..fault_injection import worker_processes

STAGE = Stage("extract", algorithm=1, rows_out=row_counter("extraction_log"), primary="extraction_log")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    import fault_injection as module

    return module


def rows(count: int, **does: str) -> list[dict[str, Any]]:
    return [{"image_id": f"set/{i}", "uri": f"/{i}", "does": does.get(f"at{i}")} for i in range(count)]


def plan(faults: Any, listed: Sequence[dict[str, Any]]) -> StagePlan:
    return StagePlan(
        make_shards("set", listed, lambda piece: str(len(piece)).ljust(64, "0")), faults.extract_with_faults, {}
    )


@pytest.fixture
def small_workers() -> Iterator[WorkerConfig]:
    """Two workers of 600 MB each, so that eating all memory is soon done."""
    with local_client(2, memory=600_000_000) as client:
        yield WorkerConfig(scheduler=client.scheduler.address)


@pytest.mark.parametrize(("does", "cause"), [("die", "signal 9"), ("eat", "out of memory")])
def test_a_row_that_kills_its_worker_is_rejected_and_no_other(
    workplace: Callable, faults: Any, small_workers: WorkerConfig, does: str, cause: str
) -> None:
    work = workplace(workers=small_workers)
    outcome = run_stage(STAGE, work.context, plan(faults, rows(200, at70=does)))
    assert (outcome.rows_in, outcome.rows_out, outcome.rejected) == (200, 199, 1)
    (row,) = work.rows("extract", "rejected")
    assert row["image_id"] == "set/70"
    assert row["message"] == f"it crashes the worker process ({cause})"
    ids = [row["image_id"] for row in work.rows("extract", "extraction_log")]
    assert sorted(ids) == sorted(f"set/{i}" for i in range(200) if i != 70)


def test_rows_alone_are_halved_until_the_killers_stand_alone(faults: Any) -> None:
    def reject(row: dict[str, Any], message: str) -> dict[str, Any]:
        entry = {"image_id": row["image_id"], "uri": "", "stage": "extract", "error": "x", "message": message}
        return {
            "extraction_log": table_from_rows("extraction_log", []),
            "rejected": table_from_rows("rejected", [entry]),
        }

    tables = run_isolated(faults.extract_with_faults, rows(6, at1="die", at4="die"), reject, 1 << 33)
    assert tables["extraction_log"]["image_id"].to_pylist() == ["set/0", "set/2", "set/3", "set/5"]
    assert tables["rejected"]["image_id"].to_pylist() == ["set/1", "set/4"]
    assert set(tables["rejected"]["message"].to_pylist()) == {"it crashes the worker process (signal 9)"}


@pytest.mark.parametrize("count", [0, 1])
def test_an_error_of_the_stage_itself_stops_the_command(workplace: Callable, faults: Any, count: int) -> None:
    work = workplace(workers=WorkerConfig(count=count))
    with pytest.raises(ValueError, match="the stage itself is broken"):
        run_stage(STAGE, work.context, plan(faults, rows(3, at1="raise")))
    assert work.context.folder("extract").manifest() is None


def test_a_scheduler_that_is_not_there_is_one_sentence(workplace: Callable, faults: Any) -> None:
    work = workplace(workers=WorkerConfig(scheduler="tcp://127.0.0.1:1"))
    with pytest.raises(FacadeError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        run_stage(STAGE, work.context, plan(faults, rows(3)))


def test_a_scheduler_elsewhere_gives_the_same_tables(workplace: Callable, faults: Any) -> None:
    here, there = workplace("here"), None
    ours = run_stage(STAGE, here.context, plan(faults, rows(150)))
    with local_client(2) as client:
        there = workplace("there", workers=WorkerConfig(scheduler=client.scheduler.address))
        theirs = run_stage(STAGE, there.context, plan(faults, rows(150)))
    assert ours.digest == theirs.digest


def test_too_many_rejected_rows_stop_the_command_but_not_the_work(
    workplace: Callable, drawn_copy: Path, cards: Any
) -> None:
    for number in range(3):
        (drawn_copy / f"masks/facade_0000{number}.png").write_bytes(b"")
    work = workplace()
    work.index(drawn_copy, cards[0])
    with pytest.raises(
        FacadeError, match=r"3 of 10 images were rejected \(30\.0%, allowed are 5\.0%\): 3 x the file is empty"
    ):
        work.extract()
    again = workplace(max_rejected=0.3)
    outcome = again.extract()
    assert (outcome.rejected, outcome.per_second) == (3, 0.0)


def test_local_workers_listen_on_loopback_only() -> None:
    import psutil

    with local_client(2):
        ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = [link for process in ours for link in process.net_connections("inet") if link.status == "LISTEN"]
    assert len(listening) >= 3
    assert {link.laddr.ip for link in listening} == {"127.0.0.1"}


def test_what_workers_are_told_is_not_told_to_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_NUM_THREADS", "2")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with local_client(2) as client:
        assert dict(os.environ) == before  # a command keeps its workers while it trains in this process
        told = client.run(lambda: (os.environ["OMP_NUM_THREADS"], os.environ["MKL_NUM_THREADS"]))
    assert set(told.values()) == {("1", "2")}
    assert dict(os.environ) == before


def test_a_worker_with_two_threads_works_on_two_shards_at_once(workplace: Callable, faults: Any) -> None:
    work = workplace(workers=WorkerConfig(count=1, threads=2))
    both = StagePlan(
        make_shards("set", rows(128), lambda piece: piece[0]["uri"].ljust(64, "0")), faults.extract_together, {}
    )
    assert run_stage(STAGE, work.context, both).rows_out == 128


def test_no_worker_is_watched_where_python_may_stop_for_it(tmp_path: Path, faults: Any) -> None:
    """Neither those that are there nor the one that comes for one that died."""
    with local_client(1) as client:
        for workers in (WorkerConfig(count=1), WorkerConfig(scheduler=client.scheduler.address)):
            marks = [tmp_path / f"{workers.count}-{number // 2}" for number in range(4)]
            shards = [Shard("set", number, "0" * 64, [{"uri": str(mark)}]) for number, mark in enumerate(marks)]
            assert (
                list(WorkerPool().map_shards(faults.ProfilerProbe(), shards, workers))
                == [sys.version_info >= (3, 11, 9)] * 4
            )


def test_a_worker_that_dies_while_it_is_started_again_is_replaced() -> None:
    """Dask gives it up, and would wait for ever if it was the last."""
    import dask

    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}), local_client(1) as client:
        (first,) = client.run(os.getpid).values()
        os.kill(first, signal.SIGKILL)
        child = _started_after(first)
        child.kill()
        future = client.submit(os.getpid, pure=False)
        assert future.result(timeout=120) not in (first, child.pid)


def _started_after(pid: int) -> psutil.Process:
    """The next worker process of this one, caught before it has come up."""
    while True:
        for child in worker_processes(os.getpid()):
            if child.pid != pid:
                return child


@pytest.mark.parametrize("count", [0, 2])
def test_items_are_mapped_in_any_order(count: int) -> None:
    assert sorted(WorkerPool().map_items(abs, range(-40, 1), WorkerConfig(count=count))) == list(range(41))


@pytest.mark.parametrize("count", [0, 1])
def test_an_error_of_an_item_is_the_callers(count: int) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(WorkerPool().map_items(int, ["1", "two"], WorkerConfig(count=count)))
