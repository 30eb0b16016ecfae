"""Bytes in, bytes out: listing, reading (local or any fsspec address), and writing that is whole or absent."""

from __future__ import annotations

import builtins
import contextlib
import errno
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import BadInputError, FacadeError

__all__ = [
    "ABSENT_VERSION",
    "FileEntry",
    "inode_of",
    "is_remote",
    "is_transient",
    "json_digest",
    "list_files",
    "read_bytes",
    "remote_version",
    "retry_with_backoff",
    "safe_text",
    "size_and_version",
    "walk_remote",
    "write_bytes",
]

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
TEMPORARY_SUFFIX = ".part"
ABSENT_VERSION = "absent"  # the version of a broken symlink
TRANSIENT_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNREFUSED,
    errno.EHOSTDOWN,
}


@dataclass(frozen=True)
class FileEntry:
    """One file (or folder) below a root: its posix path there, its address, and what tells that it changed."""

    path: str
    uri: str
    size: int
    version: str


def json_digest(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_remote(uri: str) -> bool:
    """Return whether an address is one for fsspec (`s3://…`), not a path on this machine."""
    return "://" in uri


def list_files(root: str, exclude: Path | None = None) -> list[FileEntry]:
    """Return all files and folders below `root`, sorted by path, but names that begin with a dot, and one folder."""
    found = _list_remote(root) if is_remote(root) else _list_local(Path(root).resolve(), exclude)
    return sorted(found, key=lambda listed: listed.path)


def _list_local(root: Path, exclude: Path | None) -> Iterator[FileEntry]:
    if not root.is_dir():
        raise FacadeError(f"{root} is not a folder; give the dataset's folder with --root.")
    seen: set[tuple[int, int]] = set()  # a linked folder is followed once, so a loop of links ends
    if exclude and (place := inode_of(exclude)):
        seen.add(place)
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_raise_listing_error):
        if (own := inode_of(folder)) is None or own in seen:
            subfolders.clear()
            continue
        seen.add(own)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in subfolders + [name for name in names if not name.startswith(".")]:
            yield _file_entry(root, Path(folder, name))


def inode_of(folder: str | Path) -> tuple[int, int] | None:
    """Return the inode of a folder, the same for all paths to it; None if it does not exist."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _raise_listing_error(error: OSError) -> None:
    """Stop: a folder that is left out would take its photos out of the tables without a word."""
    raise FacadeError(f"cannot list {error.filename}: {error.strerror}; fix that, or move the folder away.")


def _file_entry(root: Path, path: Path) -> FileEntry:
    try:
        size, stamp = size_and_version(str(path))
    except OSError:  # a broken symlink: listed, so that it becomes a rejected row
        size, stamp = 0, ABSENT_VERSION
    return FileEntry(path.relative_to(root).as_posix(), str(path), size, stamp)


def size_and_version(uri: str) -> tuple[int, str]:
    """Return the version of a file, the same as in its listing; asked each time, never cached."""
    if not is_remote(uri):
        status = os.stat(uri)
        return status.st_size, str(status.st_mtime_ns)
    import fsspec

    system, path = fsspec.core.url_to_fs(uri)
    system.invalidate_cache()
    return remote_version(system.info(path))


def remote_version(info: Mapping[str, Any]) -> tuple[int, str]:
    """Return the same of a file on an object store, from what its listing says."""
    names = ("ETag", "etag", "LastModified", "mtime", "created")
    return int(info.get("size") or 0), str(next((info[name] for name in names if info.get(name)), ""))


def walk_remote(address: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield the relative path, the address, and what the listing says of each file below an address, folder by folder.

    Names that begin with a dot are left out; a folder that cannot be listed stops it, or it would never be missed.
    """
    import fsspec

    try:
        system, base = fsspec.core.url_to_fs(address)
        for folder, _, files in system.walk(base, detail=True, on_error="raise"):
            for name in sorted(files):
                path = f"{folder}/{name}"
                relative = path[len(base) :].lstrip("/") or name
                if not any(part.startswith(".") for part in relative.split("/")):
                    yield relative, system.unstrip_protocol(path), files[name]
    except Exception as error:  # the protocol's package is missing, or the store is away or closed: errors of its own
        raise FacadeError(f"{address} cannot be listed: {error or type(error).__name__}.") from None


def _list_remote(root: str) -> Iterator[FileEntry]:
    for relative, uri, info in walk_remote(root):
        yield FileEntry(relative, uri, *remote_version(info))


def read_bytes(uri: str) -> bytes:
    """Return all bytes of a file, local or remote; a folder is bad input, a file that is gone may come back."""
    try:
        if is_remote(uri):
            return _read_remote(uri)
        mode = os.stat(uri).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe would be waited for, a device never ends
            raise BadInputError("it is a pipe or a device, not a file")
        return Path(uri).read_bytes()
    except IsADirectoryError:
        raise BadInputError("it is a folder, not a file") from None


def _read_remote(uri: str) -> bytes:
    import fsspec

    try:
        with fsspec.open(uri, "rb") as file:
            return bytes(file.read())
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # each store has errors of its own for being away
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from None


def safe_text(text: str) -> str:
    """Return a name as text that any table can hold, whatever bytes the file system has for it."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_transient(error: str) -> bool:
    """Return whether an error of this class, a `rejected` row's, may be gone when the command is run again."""
    found = getattr(builtins, error, None)
    return error == "StaleInput" or (isinstance(found, type) and issubclass(found, OSError))


def write_bytes(path: Path, data: bytes, retry_seconds: float = 0.0) -> None:
    """Write a file atomically: under another name, then renamed; wait while the disk is full."""

    def attempt() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    retry_with_backoff(attempt, path, retry_seconds)


def retry_with_backoff(attempt: Callable[[], Result], path: Path, retry_seconds: float) -> Result:
    """Call `attempt`, and retry with longer and longer waits while its disk or store is away."""
    start, wait = time.monotonic(), 0.5
    while True:
        try:
            return attempt()
        except OSError as error:
            if error.errno not in TRANSIENT_ERRORS or time.monotonic() - start + wait > retry_seconds:
                raise write_error(path, error) from error
            logger.warning("%s: %s; trying again in %.0f s", path.parent, error.strerror, wait)
            time.sleep(wait)
            wait = min(2 * wait, 30.0)


def write_error(path: Path, error: OSError) -> FacadeError:
    """Return the sentence for a file that could not be written."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        advice = "free some space and run the same command again, finished shards are kept"
    else:
        advice = "check that the folder exists and may be written"
    return FacadeError(f"cannot write {path}: {error.strerror or error}; {advice}.")
