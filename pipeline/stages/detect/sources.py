"""Where an archive's photos come from: each source is listed as a stream of rows, and each row can be read.

A row has `image_id`, `uri`, `inside` (where in an archive file), `stamp` (tells that the photo changed), `latitude`,
`longitude`, `heading`, and `extra`, a list's own columns. No more than one folder's names are held at a time.
"""

from __future__ import annotations

import csv
import fnmatch
import glob
import math
import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import BadInputError, FacadeError
from pipeline.storage.files import (
    ABSENT_VERSION,
    inode_of,
    is_remote,
    json_digest,
    read_bytes,
    remote_version,
    safe_text,
    size_and_version,
    walk_remote,
)

__all__ = ["list_photos", "read_photo"]

PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".jp2")
UNSUPPORTED_SUFFIXES: Final = (
    ".heic",
    ".heif",
    ".avif",
)  # photos, but without a decoder here: they are listed, and rejected
PHOTO_SUFFIXES: Final = PICTURE_SUFFIXES + UNSUPPORTED_SUFFIXES
# More bytes are no photo; of a zip file this is what it says that it unpacks to.
MAX_PHOTO_BYTES: Final = 1 << 29
# What the columns of a list may be called; all others come through as they are.
COLUMN_ALIASES: Final[Mapping[str, Sequence[str]]] = {
    "uri": ("uri", "path", "file", "filename", "image", "photo", "url"),
    "image_id": ("image_id", "id", "photo_id"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon", "lng"),
    "heading": ("heading", "bearing", "compass_angle"),
}
LOCATION_LIMITS: Final = {"latitude": 90.0, "longitude": 180.0, "heading": 360.0}
BATCH_ROWS: Final = 4096

Row = dict[str, Any]


def list_photos(source: str, exclude: Path | None = None) -> Iterator[Row]:
    """Return the rows of a folder, a pattern, a .tar, a .zip, a list, an fsspec address, or one photo.

    `exclude` is a folder that is not looked into: that of the results.
    """
    path = Path(source)
    if is_remote(source):
        return _list_remote(source)
    if path.is_dir():
        return _list_matches(path, ("**", "*"), exclude, PHOTO_SUFFIXES)
    if path.is_file():
        readers = {
            ".tar": _list_tar,
            ".zip": _list_zip,
            ".txt": _list_text,
            ".csv": _list_csv,
            ".parquet": _list_parquet,
        }
        return readers.get(path.suffix.lower(), _list_single)(path)
    if glob.has_magic(source):
        parts = path.parts
        fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
        if (base := Path(*parts[:fixed])).is_dir():
            return _list_matches(base, parts[fixed:], exclude)
    raise FacadeError(
        f"{source} is not there; give a folder, a pattern, a .tar, a .zip, a list (.txt, .csv, .parquet), an address "
        "as s3://…, or a work folder."
    )


def read_photo(row: Mapping[str, Any]) -> bytes:
    """Return the bytes of a listed photo."""
    uri, inside = row["uri"], row["member"]
    if inside is None:
        if not is_remote(uri):
            _check_size(os.stat(uri).st_size)
        return read_bytes(uri)
    kind, _, place = inside.partition(":")
    archive = uri.removeprefix(f"{kind}://{row['image_id']}::")
    if kind == "tar":
        return _read_span(archive, *map(int, place.split("+")))
    if kind == "zip":
        return _read_zipped(archive, place)
    raise BadInputError(place)


def _make_row(image_id: str, uri: str, version: str, inside: str | None = None, **columns: Any) -> Row:
    if (name := safe_text(uri)) != uri:
        uri, image_id, inside = name, safe_text(image_id), "bad:the file's name is not valid UTF-8; rename it"
    empty = {"latitude": None, "longitude": None, "heading": None, "extra": None}
    return {"image_id": image_id, "uri": uri, "member": inside, "version": version, **empty, **columns}


def _file_version(path: str) -> str:
    try:
        return "{}:{}".format(*size_and_version(path))
    except (OSError, ValueError):  # it may be there when its turn comes, or it becomes a rejected row
        return ABSENT_VERSION


# Files


def _list_single(path: Path) -> Iterator[Row]:
    yield _make_row(path.name, str(path.absolute()), _file_version(str(path)))


def _list_matches(
    base: Path, parts: Sequence[str], exclude: Path | None, endings: tuple[str, ...] = ("",)
) -> Iterator[Row]:
    """Yield the files below a folder that fit a pattern, in the order of their names, folder by folder.

    A folder is entered once, by its own name before any link to it, so that a loop of links ends; names that begin with
    a dot are left out.
    """
    base, seen, left_out = base.absolute(), set[tuple[int, int, int]](), inode_of(exclude) if exclude else None

    def below(folder: str, rest: Sequence[str]) -> Iterator[str]:
        own = inode_of(folder)
        if own is None or own == left_out or (key := (*own, len(rest))) in seen:
            return
        seen.add(key)
        part, *later = rest
        if part == "**" and later:
            yield from below(folder, later)
        for entry in sorted(_entries(folder), key=lambda entry: (entry.is_symlink(), entry.name)):
            if _is_folder(entry):
                if part == "**":
                    yield from below(entry.path, rest)
                elif later and fnmatch.fnmatchcase(entry.name, part):
                    yield from below(entry.path, later)
            elif not later and (part == "**" or fnmatch.fnmatchcase(entry.name, part)):
                yield entry.path

    for path in below(str(base), parts):
        if path.lower().endswith(endings):
            yield _make_row(Path(path).relative_to(base).as_posix(), path, _file_version(path))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: no folder, and a photo that will be rejected
        return False


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:  # what is left out without a word would never be missed
        raise FacadeError(f"cannot list {folder}: {error.strerror}; fix that, or move the folder away.") from None


def _list_remote(address: str) -> Iterator[Row]:
    for relative, uri, info in walk_remote(address):
        if relative.lower().endswith(PHOTO_SUFFIXES):
            yield _make_row(relative, uri, "{}:{}".format(*remote_version(info)))


# Archive files


def _is_photo(name: str) -> bool:
    """Return whether a member of an archive file is a photo, by its name; macOS packs a `._NAME` next to each NAME."""
    return name.lower().endswith(PHOTO_SUFFIXES) and not any(
        part.startswith(".") for part in name.split("/") if part != ".."
    )


def _list_tar(path: Path) -> Iterator[Row]:
    """Yield the photos of a tar file, with their bytes' places: read from there, nothing is ever unpacked."""
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # or they would all be kept
                if _is_photo(member.name) and not member.isdir():
                    whole = member.isreg() and not member.issparse()
                    inside = f"tar:{member.offset_data}+{member.size}" if whole else "bad:it is a link in the archive"
                    stamp = f"{member.size}:{member.mtime}:{member.offset_data}"
                    yield _make_row(member.name, f"tar://{member.name}::{path.absolute()}", stamp, inside)
            _check_end(path, archive.offset)
    except tarfile.TarError as error:
        raise FacadeError(f"{path} is no whole tar file ({error}); a compressed one must be unpacked first.") from None


def _check_end(path: Path, end: int) -> None:
    """Raise unless a tar file ends where its listing did: `tarfile` takes any broken header for the end."""
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"cut or damaged at byte {end:,}")
        while chunk := file.read(1 << 20):
            if chunk.strip(b"\0"):
                raise tarfile.ReadError(f"more follows its end at byte {end:,}; one tar file was put behind another")


def _read_span(path: str, begin: int, size: int) -> bytes:
    _check_size(size)
    with open(path, "rb") as file:
        file.seek(begin)
        data = file.read(size)
    if len(data) < size:
        raise BadInputError("the archive ends in the middle of it")
    return data


def _list_zip(path: Path) -> Iterator[Row]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if _is_photo(member.filename):
                    stamp = f"{member.file_size}:{member.CRC:08x}"
                    uri = f"zip://{member.filename}::{path.absolute()}"
                    yield _make_row(member.filename, uri, stamp, f"zip:{member.filename}")
    except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError) as error:
        raise FacadeError(f"{path} is not a complete zip file ({error}); re-create the archive.") from None


@lru_cache(4)
def _open_zip(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _read_zipped(path: str, name: str) -> bytes:
    try:
        archive = _open_zip(path)
        _check_size(archive.getinfo(name).file_size)
        return archive.read(name)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, KeyError) as error:  # locked, or packed unknown ways
        raise BadInputError(f"it cannot be unpacked: {error}") from None


def _check_size(size: int) -> None:
    if size > MAX_PHOTO_BYTES:
        raise BadInputError(f"it has {size:,} bytes, more than the {MAX_PHOTO_BYTES:,} allowed")


# Lists


def _list_text(path: Path) -> Iterator[Row]:
    return _list_rows(path, ({"uri": line.strip()} for line in _read_lines(path) if line.strip()))


def _list_csv(path: Path) -> Iterator[Row]:
    return _list_rows(path, _read_csv(path))


def _read_csv(path: Path) -> Iterator[Mapping[str, Any]]:
    reader = csv.DictReader(_read_lines(path), strict=True)
    try:
        for row in reader:
            if None in row:
                raise FacadeError(f"{path}: line {reader.line_num} has more cells than the first; fix it.")
            yield row
    except csv.Error as error:  # a quote that never closes would swallow all that follows
        raise FacadeError(f"{path}: line {reader.line_num} cannot be read ({error}); fix it.") from None


def _list_parquet(path: Path) -> Iterator[Row]:
    try:
        batches = pq.ParquetFile(path).iter_batches(BATCH_ROWS)
        yield from _list_rows(path, (row for batch in batches for row in batch.to_pylist()))
    except (OSError, pa.ArrowInvalid) as error:
        raise FacadeError(f"{path} cannot be read: {str(error).splitlines()[0]}.") from None


def _read_lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise FacadeError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8.") from None


def _list_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield the rows of a list; relative paths are from the list's folder.

    Where no column has ids, an id is the path and how often the list has named it before: it stays when lines move.
    """
    names: dict[str, str] = {}
    times: dict[int, int] = {}  # by hash: paths would take several times the memory
    for number, row in enumerate(rows):
        if not number:
            names = _find_columns(path, list(row))
        written = str(row[names["uri"]] or "")
        if "image_id" in names:
            image_id = str(row[names["image_id"]] or "")
        else:
            before = times.get(hash(written), 0)
            times[hash(written)] = before + 1
            image_id = f"{written}#{before}"
        if not image_id:
            raise FacadeError(f"{path}: row {number + 1} has no {names['image_id']}; give each photo its own.")
        yield _listing_row(path.absolute().parent, written, image_id, row, names)


def _find_columns(path: Path, column_names: Sequence[str]) -> dict[str, str]:
    """Map the columns of a list to their meanings."""
    lower = {name.lower(): name for name in reversed(column_names) if isinstance(name, str)}
    names = {what: next((lower[name] for name in known if name in lower), "") for what, known in COLUMN_ALIASES.items()}
    if not names["uri"]:
        columns = ", ".join(map(str, column_names))
        raise FacadeError(
            f"{path} has no column of paths, named {' or '.join(COLUMN_ALIASES['uri'])}; it has {columns}."
        )
    return {what: name for what, name in names.items() if name}


def _listing_row(folder: Path, path: str, image_id: str, row: Mapping[str, Any], names: Mapping[str, str]) -> Row:
    uri = path if is_remote(path) else os.path.join(folder, path)
    places: dict[str, Any] = {
        what: _parse_number(row[names[what]], most) for what, most in LOCATION_LIMITS.items() if what in names
    }
    # What should be a number and is none is kept as text.
    used = {name for what, name in names.items() if places.get(what, 0) is not None or row[name] in (None, "")}
    extra = [(str(key), str(row[key])) for key in row if key not in used and row[key] is not None]
    stamp = f"{'' if is_remote(path) else _file_version(uri)}:{json_digest([uri, places, extra])[:16]}"
    return _make_row(image_id, uri, stamp, **places, extra=extra or None)


def _parse_number(value: Any, limit: float) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and -limit <= number <= limit else None
