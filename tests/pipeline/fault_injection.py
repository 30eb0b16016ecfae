"""Row functions that spoil their process, which workers and children import from here; and the workers to kill."""

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Barrier
from typing import Any

import psutil
import pyarrow as pa

from pipeline.execution.parallel import concurrent_shards
from pipeline.storage.manifest import Shard
from pipeline.storage.schemas import table_from_rows

BARRIER = Barrier(2)


def extract_with_faults(rows: Sequence[dict[str, Any]]) -> Mapping[str, pa.Table]:
    """One `extracts` row a row, unless a row says to die, to eat all memory, or to raise."""
    for row in rows:
        if row.get("does") == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if row.get("does") == "eat":
            eaten = []
            while True:
                eaten.append(bytearray(1 << 26))
        if row.get("does") == "raise":
            raise ValueError("the stage itself is broken")
    done = [{"image_id": row["image_id"], "boxes": 1, "dropped": [], "unknown_share": 0.0} for row in rows]
    return {"extraction_log": table_from_rows("extraction_log", done), "rejected": table_from_rows("rejected", [])}


def extract_together(rows: Sequence[dict[str, Any]]) -> Mapping[str, pa.Table]:
    """The same, when another shard is under way in this process, which knows of both."""
    BARRIER.wait(timeout=60)
    if concurrent_shards() != 2:
        raise ValueError("there are two")
    return extract_with_faults(rows)


class ProfilerProbe:
    """A task that tells whether Dask watches its worker's threads; the first kills its worker."""

    def __call__(self, shard: Shard) -> Any:
        """Return that."""
        from distributed import get_worker

        mark = Path(shard.rows[0]["uri"])
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "profile" in get_worker().periodic_callbacks

    def run_isolated(self, shard: Shard, memory: int) -> Any:
        """Nobody calls it: one death is allowed."""
        raise NotImplementedError


def worker_processes(pid: int) -> list[psutil.Process]:
    """The worker processes of a process: what was forked from its server of processes."""
    found: list[psutil.Process] = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            lines = [" ".join(one.cmdline()) for one in (child, child.parent()) if one]
            found += [child] if all("forkserver" in line for line in lines) else []
    return found
