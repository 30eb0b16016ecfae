"""Shards to workers and receipts back: the only module that knows Dask.

Futures go out in a sliding window, so that neither the scheduler nor this process holds more than a few shards at a
time. Nothing is decided here but who works on what, and what happens to a shard that kills its workers.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.forkserver
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import FacadeError

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster, Worker

    from pipeline.storage.manifest import Receipt, Shard

__all__ = [
    "Heard",
    "Task",
    "Workers",
    "import_ahead",
    "local_client",
    "map_shards",
    "shards_at_once",
    "tell",
    "worker_number",
]

# What shards tell while they are worked on goes by this name through the scheduler.
TOPIC = "facade"
# A shard that took two workers down with it is redone in children of this process, see `isolation`.
DEATHS_ALLOWED = 1
# Workers are forked from a process that has imported what they need and done nothing else; elsewhere than on Linux,
# system libraries do not survive a fork.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"
# What libraries read when they are imported: a worker is one thread. In this process, training would be half as fast
# with it. Dask has glibc give back all memory that is freed; workers keep some, as `ssd.memory` says why.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # glibc's most
}


class Task(Protocol):
    """What a stage does to a shard: `__call__` in a worker, `alone` image by image in children of this process."""

    def __call__(self, shard: Shard) -> Receipt:
        """Return the receipt of a shard worked on in one go."""

    def alone(self, shard: Shard, memory: int) -> Receipt:
        """Return the receipt of a shard whose rows may each take at most `memory` bytes and a process with them."""


@dataclass(frozen=True)
class Workers:
    """Where shards are worked on: a scheduler's address, or local processes.

    Attributes:
        scheduler: its address.
        count: so many local processes; 0 is this process itself.
        threads: shards that each of them works on at once.
    """

    scheduler: str | None = None
    count: int | None = None
    threads: int = 1

    @property
    def local_count(self) -> int:
        """The number of local processes: as asked, else one a core."""
        return len(os.sched_getaffinity(0)) if self.count is None else self.count


@dataclass(frozen=True)
class Heard:
    """Who listens while shards are worked on.

    Attributes:
        rows: called with the rows that some shard has got through; those of a shard that is done again come again.
        dashboard: called with the address where the workers can be watched.
    """

    rows: Callable[[int], None] = lambda _: None
    dashboard: Callable[[str], None] = lambda _: None


def map_shards(task: Task, shards: Sequence[Shard], workers: Workers, heard: Heard | None = None) -> Iterator[Receipt]:
    """Yield the receipts of all shards as they are finished, in any order."""
    heard = heard or Heard()
    if workers.scheduler is None and workers.local_count == 0:
        with _hearing(heard.rows):
            yield from map(task, shards)
        return
    with _client(workers) as client:
        _unwatch(client)
        heard.dashboard(client.dashboard_link)
        client.subscribe_topic(TOPIC, lambda event: heard.rows(event[1]))
        yield from _windowed(client, task, shards)


# Who hears what is told in this process.
_listener: ContextVar[Callable[[int], None] | None] = ContextVar("listener", default=None)


@contextmanager
def _hearing(listener: Callable[[int], None]) -> Iterator[None]:
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(rows: int) -> None:
    """Tell the command, from within a shard, that it got through some rows."""
    if (listener := _listener.get()) is not None:
        listener(rows)
    elif (worker := _worker()) is not None:
        worker.log_event(TOPIC, rows)


def worker_number() -> int:
    """Return the number of this worker process among the local ones; 0 where it has none."""
    worker = _worker()
    return worker.name if worker is not None and isinstance(worker.name, int) else 0


def shards_at_once() -> int:
    """Return how many shards this process works on at once."""
    worker = _worker()
    return 1 if worker is None else int(worker.state.nthreads)


def _worker() -> Worker | None:
    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:  # this is none
        return None


def _unwatch(client: Client) -> None:
    """Have no worker, of now or later, look at what its threads do, where that can stop it for ever.

    Dask does so for its dashboard every hundredth of a second. Before Python 3.11.9, a thread that is started meanwhile
    and the collector of garbage can then wait for each other (https://github.com/python/cpython/issues/106883).
    """
    from distributed import WorkerPlugin

    class Unwatched(WorkerPlugin):
        name = "facade-unwatched"

        def setup(self, worker: Worker) -> None:
            if sys.version_info < (3, 11, 9) and (watching := worker.periodic_callbacks.pop("profile", None)):
                watching.stop()  # while a worker starts it is not going yet, and out of the list it never will

    client.register_plugin(Unwatched())


@contextmanager
def _client(workers: Workers) -> Iterator[Client]:
    from distributed import Client

    if workers.scheduler is None:
        with local_client(workers.local_count, threads=workers.threads) as client:
            yield client
        return
    try:
        client = Client(workers.scheduler, timeout=10)
    except (OSError, ValueError) as error:
        message = f"no Dask scheduler answers at {workers.scheduler} ({error}); start one or check --scheduler."
        raise FacadeError(message) from None
    with client:
        yield client


def import_ahead(workers: Workers, modules: Sequence[str]) -> None:
    """Begin to import what local workers will need, in the process that they come from, and go on meanwhile."""
    if METHOD != "forkserver" or workers.scheduler is not None or workers.local_count == 0:
        return
    with _workers_environment():
        multiprocessing.set_forkserver_preload(["distributed", *modules])
        multiprocessing.forkserver.ensure_running()


@contextmanager
def local_client(count: int, memory: str | int = "auto", threads: int = 1) -> Iterator[Client]:
    """Start worker processes on this machine, each with so much memory, that listen on loopback only."""
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "distributed.scheduler.allowed-failures": DEATHS_ALLOWED,
        "distributed.worker.multiprocessing-method": METHOD,
    }
    with _workers_environment(), dask.config.set(settings):
        cluster = LocalCluster(
            n_workers=count,
            env=dict(os.environ),  # as it is now, which may not be how the process that workers come from found it
            threads_per_worker=threads,
            memory_limit=memory,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port
            silence_logs=logging.CRITICAL,  # the death of a worker is ours to tell
        )
        with cluster, Client(cluster) as client, _kept_up(cluster, count):
            yield client


@contextmanager
def _kept_up(cluster: LocalCluster, count: int, pause: float = 5.0) -> Iterator[None]:
    """Replace workers that Dask has given up: those that died, or took too long, while they were started again."""
    done = Event()

    def keep_up() -> None:
        while not done.wait(pause):
            cluster.scale(count)

    thread = Thread(target=keep_up, name="workers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def _workers_environment() -> Iterator[None]:
    """Have in this process what workers inherit, but for what the user has set, and take it back."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


def _windowed(client: Client, task: Task, shards: Sequence[Shard]) -> Iterator[Receipt]:
    from distributed import as_completed

    waiting = iter(shards)
    under_way: dict[Any, Shard] = {}
    completed = as_completed(raise_errors=False)

    def submit(count: int) -> None:
        for shard in islice(waiting, count):
            future = client.submit(task, shard, pure=False)
            under_way[future.key] = shard
            completed.add(future)

    submit(_window(client))
    for future in completed:
        submit(max(1, _window(client) - len(under_way) + 1))
        yield _result(client, future, task, under_way.pop(future.key))


def _result(client: Client, future: Future[Any], task: Task, shard: Shard) -> Receipt:
    """Return a shard's receipt; where the worker that holds it dies before it is fetched, another makes it anew.

    A shard that has no memory, or kills its workers, is worked on in children of this process.
    """
    from distributed import KilledWorker

    try:
        receipt: Receipt = future.result()
        return receipt
    except (KilledWorker, MemoryError):
        return task.alone(shard, _memory(client))
    except CancelledError:
        raise FacadeError("the Dask scheduler went away; start it and run the same command again.") from None


def _window(client: Client) -> int:
    threads: int = sum(client.ncores().values())
    return 2 * max(threads, 1) + 2


def _memory(client: Client) -> int:
    """Return the bytes that one worker may take, as a bound for a child that redoes its work."""
    workers: dict[str, Any] = client.scheduler_info()["workers"]
    limits = [int(worker["memory_limit"]) for worker in workers.values() if worker.get("memory_limit")]
    return min(limits) if limits else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
