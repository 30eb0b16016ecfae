"""Listing: every photo of a source once, whatever kind the source is, and nothing else."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import BadInputError, FacadeError
from pipeline.stages.detect.sources import list_photos, read_photo

DATA = b"some bytes"


def write(path: Path, data: bytes = DATA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def ids(source: object, **more: Any) -> list[str]:
    return [row["image_id"] for row in list_photos(str(source), **more)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in ("b.jpg", "a/c.PNG", "a/deep/er/d.jpeg", "z.webp", "e.heic", "notes.txt", ".hidden.jpg", ".git/x.jpg"):
        write(root / name)
    return root


def test_a_folder_at_any_depth(folder: Path) -> None:
    assert sorted(ids(folder)) == ["a/c.PNG", "a/deep/er/d.jpeg", "b.jpg", "e.heic", "z.webp"]
    rows = {row["image_id"]: row for row in list_photos(str(folder))}
    assert rows["b.jpg"]["uri"] == str(folder / "b.jpg")
    assert all(read_photo(row) == DATA for row in rows.values())


def test_links_are_followed_and_a_loop_of_them_ends(folder: Path, tmp_path: Path) -> None:
    (folder / "a" / "up").symlink_to(folder)
    write(tmp_path / "elsewhere" / "f.jpg")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "nothing.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = ids(folder)
    assert len(found) == len(set(found)) == 7
    assert {"linked/f.jpg", "nothing.jpg"} < set(found)


def test_results_below_the_source_are_no_photos(folder: Path) -> None:
    write(folder / "out" / "previews" / "b.jpg")
    assert "out/previews/b.jpg" in ids(folder)
    assert "out/previews/b.jpg" not in ids(folder, exclude=folder / "out")
    assert "out/previews/b.jpg" not in ids(folder, exclude=folder / ".." / "photos" / "out")


def test_a_link_that_comes_later_changes_no_id(folder: Path) -> None:
    before = ids(folder)
    (folder / "0").symlink_to(folder / "a")
    assert sorted(ids(folder)) == sorted(before)


def test_ids_of_a_list_stay_when_lines_come_between(folder: Path) -> None:
    before = ids(write(folder / "list.txt", b"b.jpg\nz.webp\nb.jpg\n"))
    after = ids(write(folder / "list.txt", b"a/c.PNG\nb.jpg\nz.webp\nb.jpg\n"))
    assert sorted(after) == sorted([*before, "a/c.PNG#0"])


def test_what_a_list_says_of_a_photo_is_part_of_its_stamp(folder: Path) -> None:
    stamps = set()
    for line in (b"b.jpg,1,x", b"b.jpg,2,x", b"b.jpg,1,y", b"z.webp,1,x", b"b.jpg,,x"):
        (row,) = list_photos(str(write(folder / "list.csv", b"path,lat,street\n" + line + b"\n")))
        stamps.add(row["version"])
    assert len(stamps) == 5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b'path,id,street\nb.jpg,1,"open\nz.webp,2,x\n', "cannot be read"),
        (b"path,id\nb.jpg,1,2,3\n", "line 2 has more cells"),
        (b"path,id\nb.jpg,1\nz.webp\n", "row 2 has no id"),
    ],
)
def test_a_list_that_would_lose_rows_is_refused(folder: Path, text: bytes, sentence: str) -> None:
    with pytest.raises(FacadeError, match=sentence):
        ids(write(folder / "list.csv", text))


def test_numbers_that_are_none_are_kept_as_text(folder: Path) -> None:
    (row,) = list_photos(str(write(folder / "list.csv", b'path,lat,lon\nb.jpg,"59,5",\n')))
    assert (row["latitude"], row["longitude"], row["extra"]) == (None, None, [("lat", "59,5")])


def tar_of(path: Path, count: int = 6) -> bytes:
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(DATA)
            archive.addfile(member, io.BytesIO(DATA))
    return path.read_bytes()


@pytest.mark.parametrize("harm", ["flipped", "in a header", "at a header", "two in one"])
def test_a_tar_that_was_cut_or_changed_is_refused(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "photos.tar"
    whole = bytearray(tar_of(path))
    assert len(ids(path)) == 6
    if harm == "flipped":
        whole[3 * 1024 + 5] ^= 1
    elif harm == "two in one":
        whole = whole + whole
    else:
        del whole[3 * 1024 + (100 if harm == "in a header" else 0) :]
    path.write_bytes(whole)
    with pytest.raises(FacadeError, match="no whole tar file"):
        ids(path)


def test_what_macos_packs_beside_photos_is_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("p/0.jpg", "__MACOSX/p/._0.jpg", "a::b.jpg"):
            archive.writestr(name, DATA)
    rows = list(list_photos(str(tmp_path / "a.zip")))
    assert [row["image_id"] for row in rows] == ["p/0.jpg", "a::b.jpg"]
    assert all(read_photo(row) == DATA for row in rows)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["b.jpg"]),
        ("**/*.jp*g", ["a/deep/er/d.jpeg", "b.jpg"]),
        ("a/*", ["a/c.PNG"]),
        ("[bz].*", ["b.jpg", "z.webp"]),
        ("*/deep/**/*.jpeg", ["a/deep/er/d.jpeg"]),
    ],
)
def test_a_pattern(folder: Path, pattern: str, expected: list[str]) -> None:
    found = [Path(row["uri"]).relative_to(folder).as_posix() for row in list_photos(str(folder / pattern))]
    assert sorted(found) == expected


def test_one_photo(folder: Path) -> None:
    assert ids(folder / "b.jpg") == ["b.jpg"]


def tar(path: Path, members: dict[str, bytes | None]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


def test_a_tar_file_is_read_in_place_and_nothing_is_unpacked(tmp_path: Path) -> None:
    members = {"a/b.jpg": b"one", "../../evil.jpg": b"two", "/abs.png": b"three", "no.txt": b"", "link.jpg": None}
    before = sorted(tmp_path.rglob("*"))
    source = tar(tmp_path / "photos.tar", members)
    rows = {row["image_id"]: row for row in list_photos(str(source))}
    assert set(rows) == {"a/b.jpg", "../../evil.jpg", "/abs.png", "link.jpg"}
    assert [read_photo(rows[name]) for name in ("a/b.jpg", "../../evil.jpg", "/abs.png")] == [b"one", b"two", b"three"]
    with pytest.raises(BadInputError, match="a link"):
        read_photo(rows["link.jpg"])
    assert sorted(tmp_path.rglob("*")) == sorted([*before, source])


def test_a_tar_file_that_is_cut_or_packed(tmp_path: Path) -> None:
    source = tar(tmp_path / "photos.tar", {"a.jpg": b"x" * 5000, "b.jpg": b"y" * 5000})
    rows = list(list_photos(str(source)))
    source.write_bytes(source.read_bytes()[:7000])
    assert read_photo(rows[0]) == b"x" * 5000
    with pytest.raises(BadInputError, match="ends in the middle"):
        read_photo(rows[1])
    packed = write(tmp_path / "packed.tar", b"\x1f\x8b" + b"0" * 600)
    with pytest.raises(FacadeError, match="no whole tar file"):
        ids(packed)


def test_a_zip_file_and_a_bomb_in_it(tmp_path: Path) -> None:
    source = tmp_path / "photos.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.jpg", b"one")
        archive.writestr("../up.jpg", b"two")
        archive.writestr("no.txt", b"")
        archive.writestr("bomb.jpg", bytes(1 << 29) + b"0")
    rows = {row["image_id"]: row for row in list_photos(str(source))}
    assert set(rows) == {"a/b.jpg", "../up.jpg", "bomb.jpg"}
    assert [read_photo(rows[name]) for name in ("a/b.jpg", "../up.jpg")] == [b"one", b"two"]
    with pytest.raises(BadInputError, match=r"536,?870,?913|more than"):
        read_photo(rows["bomb.jpg"])
    with pytest.raises(FacadeError, match=r"no.*zip"):
        ids(write(tmp_path / "no.zip"))


def test_lists_in_text_and_csv(folder: Path) -> None:
    text = write(folder / "list.txt", b"b.jpg\n\na/c.PNG\nb.jpg\n")
    assert ids(text) == ["b.jpg#0", "a/c.PNG#0", "b.jpg#1"]
    assert [row["uri"] for row in list_photos(str(text))] == [str(folder / n) for n in ("b.jpg", "a/c.PNG", "b.jpg")]
    csv = write(
        folder / "list.csv",
        b"Path,ID,lat,lon,heading,street\nb.jpg,one,59.9,30.3,12,Nevsky\na/c.PNG,two,91,,north,\n",
    )
    first, second = list_photos(str(csv))
    assert (first["image_id"], first["uri"]) == ("one", str(folder / "b.jpg"))
    assert (first["latitude"], first["longitude"], first["heading"]) == (59.9, 30.3, 12.0)
    assert dict(first["extra"]) == {"street": "Nevsky"}
    assert (second["latitude"], second["longitude"], second["heading"]) == (None, None, None)


def test_lists_in_parquet(folder: Path) -> None:
    table = pa.table({"uri": ["b.jpg", "s3://bucket/c.jpg"], "photo_id": [7, 8], "year": [2019, None]})
    pq.write_table(table, folder / "list.parquet")
    first, second = list_photos(str(folder / "list.parquet"))
    assert (first["image_id"], first["uri"], dict(first["extra"])) == ("7", str(folder / "b.jpg"), {"year": "2019"})
    assert (second["uri"], second["extra"]) == ("s3://bucket/c.jpg", None)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.csv", b"street,year\nx,1\n", "no column of paths"),
        ("a.csv", b"path\n\xff\xfe\n", "not UTF-8"),
        ("a.txt", b"\xff\xfe\n", "not UTF-8"),
        ("a.parquet", b"PAR1", r"a\.parquet"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, name: str, data: bytes, sentence: str) -> None:
    with pytest.raises(FacadeError, match=sentence):
        ids(write(tmp_path / name, data))


@pytest.mark.parametrize("source", ["nothing", "nothing.tar", "no/where/*.jpg", "nope://x/y"])
def test_a_source_that_is_not_there(tmp_path: Path, source: str) -> None:
    with pytest.raises(FacadeError):
        ids(source if "://" in source else tmp_path / source)


def test_an_address() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("a.jpg", "deep/b.png", "no.txt", ".x/c.jpg"):
        memory.pipe(f"/bucket/{name}", DATA)
    rows = list(list_photos("memory://bucket"))
    assert [row["image_id"] for row in rows] == ["a.jpg", "deep/b.png"]
    assert [read_photo(row) for row in rows] == [DATA, DATA]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(folder: Path) -> None:
    (folder / "a").chmod(0)
    with pytest.raises(FacadeError, match="cannot list"):
        ids(folder)
    (folder / "a").chmod(0o755)


def test_names_that_are_no_text(folder: Path) -> None:
    os.rename(os.fsencode(folder / "b.jpg"), os.fsencode(folder) + b"/b\xff.jpg")
    (row,) = [row for row in list_photos(str(folder)) if row["image_id"].startswith("b")]
    assert row["image_id"] == "b\\udcff.jpg"
    with pytest.raises(BadInputError, match="not valid UTF-8"):
        read_photo(row)


def test_listing_is_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        write(tmp_path / f"{number // 10}" / f"{number}.jpg")
    opened: list[str] = []
    scandir: Callable[..., Any] = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(str(path)) or scandir(path))
    rows = list_photos(str(tmp_path))
    next(rows)
    assert len(set(opened)) == 2  # the folder itself and the first below it
