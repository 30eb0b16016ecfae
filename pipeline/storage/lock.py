"""One writer a folder: the kernel's file lock, which a killed process lets go by itself."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from pipeline.errors import FacadeError
from pipeline.storage.files import write_error

__all__ = ["locked"]


@contextmanager
def locked(writes: Path, reads: Sequence[Path] = ()) -> Iterator[None]:
    """Take an exclusive lock on `writes` and shared locks on `reads`; raise if another command holds one of them."""
    with ExitStack() as stack:
        stack.enter_context(_lock(writes, fcntl.LOCK_EX))
        for folder in reads:
            if folder.is_dir():
                stack.enter_context(_lock(folder, fcntl.LOCK_SH))
        yield


@contextmanager
def _lock(folder: Path, mode: int) -> Iterator[None]:
    with _open_lock_file(folder / ".lock") as file:
        try:
            fcntl.flock(file, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_holder(file) or "another command"
            message = f"{folder} is in use by {holder}; wait until it is done, or stop it, and run this again."
            raise FacadeError(message) from None
        _write_holder(file)
        yield


def _open_lock_file(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a+", encoding="utf-8", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC))
    except OSError as error:
        raise write_error(path, error) from error


def _read_holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()


def _write_holder(file: IO[str]) -> None:
    """Write who holds the lock, for the sentence that the next one sees; a full disk is no reason to stop here."""
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%H:%M:%S')}")
        file.flush()
    except OSError:
        return
