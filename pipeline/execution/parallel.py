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
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pipeline.errors import FacadeError

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster, Worker

    from pipeline.storage.manifest import Receipt, Shard

__all__ = [
    "ProgressCallbacks",
    "ShardTask",
    "WorkerConfig",
    "WorkerPool",
    "concurrent_shards",
    "cpu_count",
    "local_client",
    "preload_imports",
    "report_progress",
    "worker_number",
]

Item = TypeVar("Item")
Result = TypeVar("Result")
# What shards tell while they are worked on goes by this name through the scheduler.
EVENT_TOPIC = "facade"
# How long to wait for a scheduler to answer.
CONNECT_SECONDS = 10.0
# A shard that took two workers down with it is redone in children of this process, see `isolation`.
MAX_WORKER_DEATHS = 1
# Workers are forked from a process that has imported what they need and done nothing else; elsewhere than on Linux,
# system libraries do not survive a fork.
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
# What libraries read when they are imported: a worker is one thread. In this process, training would be half as fast
# with it. Dask has glibc give back all memory that is freed; workers keep some, as `ssd.memory` says why.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # glibc's most
}


class ShardTask(Protocol):
    """The work on a shard: `__call__` in a worker, `run_isolated` in child processes that may crash."""

    def __call__(self, shard: Shard) -> Receipt:
        """Return the receipt of a shard worked on in one go."""

    def run_isolated(self, shard: Shard, memory: int) -> Receipt:
        """Return the receipt of a shard whose rows may each take at most `memory` bytes and a process with them."""


@dataclass(frozen=True)
class WorkerConfig:
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
        return cpu_count() if self.count is None else self.count


def cpu_count() -> int:
    """Return the number of cores that this process may use: the machine's, its affinity or its container's quota."""
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)


@dataclass(frozen=True)
class ProgressCallbacks:
    """Who listens while shards are worked on.

    Attributes:
        on_rows: called with the rows that some shard has got through; those of a shard that is done again come again.
        on_dashboard: called with the address where the workers can be watched.
    """

    on_rows: Callable[[int], None] = lambda _: None
    on_dashboard: Callable[[str], None] = lambda _: None


class WorkerPool:
    """The worker processes of a command.

    Within `with`, they are started for the first shards and kept for those of later stages; without, they are started
    and stopped for each call.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._stack: ExitStack | None = None
        self._config: WorkerConfig | None = None
        self._client: Client | None = None

    def __enter__(self) -> WorkerPool:
        """Keep workers from now on."""
        self._stack = ExitStack()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the workers."""
        if self._stack is not None:
            self._stack.close()
        self._stack = self._config = self._client = None

    def map_shards(
        self,
        task: ShardTask,
        shards: Sequence[Shard],
        workers: WorkerConfig,
        callbacks: ProgressCallbacks | None = None,
    ) -> Iterator[Receipt]:
        """Yield the receipts of all shards as they are finished, in any order."""
        callbacks = callbacks or ProgressCallbacks()
        if workers.scheduler is None and workers.local_count == 0:
            with _progress_listener(callbacks.on_rows):
                yield from map(task, shards)
            return
        with self._open(workers) as client:
            callbacks.on_dashboard(client.dashboard_link)
            client.subscribe_topic(EVENT_TOPIC, lambda event: callbacks.on_rows(event[1]))
            for future, shard in _submit_with_backpressure(client, task, shards):
                yield _collect_receipt(client, future, task, shard)

    def map_items(
        self, function: Callable[[Item], Result], items: Sequence[Item], workers: WorkerConfig
    ) -> Iterator[Result]:
        """Yield the results of a function that needs no shards, in any order; its errors are the caller's."""
        if workers.scheduler is None and workers.local_count == 0:
            yield from map(function, items)
            return
        with self._open(workers) as client:
            for future, _ in _submit_with_backpressure(client, function, items):
                yield future.result()

    @contextmanager
    def _open(self, workers: WorkerConfig) -> Iterator[Client]:
        if self._stack is None:
            with _client(workers) as client:
                yield client
            return
        if self._client is None or self._config != workers:
            self._stack.close()  # of other workers
            self._client = self._stack.enter_context(_client(workers))
            self._config = workers
        yield self._client


# Called with the progress reported in this process.
_listener: ContextVar[Callable[[int], None] | None] = ContextVar("listener", default=None)


@contextmanager
def _progress_listener(listener: Callable[[int], None]) -> Iterator[None]:
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report_progress(rows: int) -> None:
    """Tell the command, from within a shard, that it got through some rows."""
    if (listener := _listener.get()) is not None:
        listener(rows)
    elif (worker := _current_worker()) is not None:
        worker.log_event(EVENT_TOPIC, rows)


def worker_number() -> int:
    """Return the number of this worker process among the local ones; 0 where it has none."""
    worker = _current_worker()
    return worker.name if worker is not None and isinstance(worker.name, int) else 0


def concurrent_shards() -> int:
    """Return the number of shards that this process works on at once."""
    worker = _current_worker()
    return 1 if worker is None else int(worker.state.nthreads)


def _current_worker() -> Worker | None:
    if "distributed" not in sys.modules:
        return None
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:  # this is none
        return None


def _disable_profiler(client: Client) -> None:
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
def _client(workers: WorkerConfig) -> Iterator[Client]:
    from distributed import Client

    if workers.scheduler is None:
        with local_client(workers.local_count, threads=workers.threads) as client:
            _disable_profiler(client)
            yield client
        return
    try:
        client = Client(workers.scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        message = f"no Dask scheduler answers at {workers.scheduler} ({error}); start one or check --scheduler."
        raise FacadeError(message) from None
    with client:
        _disable_profiler(client)
        yield client


def preload_imports(workers: WorkerConfig, modules: Sequence[str]) -> None:
    """Begin to import what local workers will need, in the process that they come from, and go on meanwhile."""
    if START_METHOD != "forkserver" or workers.scheduler is not None or workers.local_count == 0:
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
        "distributed.scheduler.allowed-failures": MAX_WORKER_DEATHS,
        "distributed.worker.multiprocessing-method": START_METHOD,
    }
    with dask.config.set(settings):
        with _workers_environment():  # only while workers start: with it, training in this process would be slow
            cluster = LocalCluster(
                n_workers=count,
                env=dict(os.environ),  # as it is now, and for workers that are started later
                threads_per_worker=threads,
                memory_limit=memory,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",  # any free port
                silence_logs=logging.CRITICAL,  # the death of a worker is ours to tell
            )
        with cluster, Client(cluster) as client, _keep_workers_alive(cluster, count):
            yield client


@contextmanager
def _keep_workers_alive(cluster: LocalCluster, count: int, pause: float = 5.0) -> Iterator[None]:
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
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = old


def _submit_with_backpressure(
    client: Client, function: Callable[[Item], Any], items: Sequence[Item]
) -> Iterator[tuple[Future[Any], Item]]:
    """Yield the finished futures, each with its item."""
    from distributed import as_completed

    waiting = iter(items)
    under_way: dict[Any, Item] = {}
    completed = as_completed(raise_errors=False)

    def submit(count: int) -> None:
        for item in islice(waiting, count):
            future = client.submit(function, item, pure=False)
            under_way[future.key] = item
            completed.add(future)

    submit(_max_in_flight(client))
    for future in completed:
        submit(max(1, _max_in_flight(client) - len(under_way) + 1))
        yield future, under_way.pop(future.key)


def _collect_receipt(client: Client, future: Future[Any], task: ShardTask, shard: Shard) -> Receipt:
    """Return a shard's receipt; where the worker that holds it dies before it is fetched, another worker repeats it.

    A shard that has no memory, or kills its workers, is worked on in children of this process.
    """
    from distributed import KilledWorker

    try:
        receipt: Receipt = future.result()
        return receipt
    except (KilledWorker, MemoryError):
        return task.run_isolated(shard, _worker_memory(client))
    except CancelledError:
        raise FacadeError("the Dask scheduler went away; start it and run the same command again.") from None


def _max_in_flight(client: Client) -> int:
    threads: int = sum(client.ncores().values())
    return 2 * max(threads, 1) + 2


def _worker_memory(client: Client) -> int:
    """Return the bytes that one worker may take, as a bound for a child that redoes its work."""
    workers: dict[str, Any] = client.scheduler_info()["workers"]
    limits = [int(worker["memory_limit"]) for worker in workers.values() if worker.get("memory_limit")]
    return min(limits) if limits else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
