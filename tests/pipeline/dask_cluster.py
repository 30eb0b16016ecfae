"""Schedulers and workers as people start them: from Dask's command line, on loopback."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
LOOPBACK_OPTIONS = ("--host", "127.0.0.1", "--no-dashboard")


@contextlib.contextmanager
def dask_process(*words: str) -> Iterator[subprocess.Popen[str]]:
    """A process of Dask's command line that ends with the block."""
    arguments = [str(Path(sys.executable).with_name("dask")), *words]
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE)},
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def scheduler() -> Iterator[str]:
    """The address of a scheduler that ends with the block."""
    with dask_process("scheduler", *LOOPBACK_OPTIONS, "--port", "0") as process:
        assert process.stderr is not None
        yield next(found[0] for line in process.stderr if (found := re.search(r"tcp://127\.0\.0\.1:\d+", line)))


def worker(address: str, folder: Path) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """A worker of one thread that ends with the block."""
    return dask_process("worker", address, *LOOPBACK_OPTIONS, "--nthreads", "1", "--local-directory", str(folder))
