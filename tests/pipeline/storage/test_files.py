"""Bytes in, bytes out."""

import errno
import os
from pathlib import Path

import pytest

from pipeline.errors import BadInputError, FacadeError
from pipeline.storage.files import is_transient, json_digest, list_files, read_bytes, retry_with_backoff, write_bytes


def test_listing_is_sorted_and_leaves_hidden_files_out(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a/1 é'.jpg", ".hidden/3.jpg", "a/._1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [entry.path for entry in list_files(str(tmp_path))] == ["a", "a/1 é'.jpg", "b", "b/2.jpg"]


def test_a_loop_of_links_ends_and_a_dangling_link_is_listed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.jpg").write_bytes(b"x")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    paths = [entry.path for entry in list_files(str(tmp_path))]
    assert paths == ["a", "a/1.jpg", "a/loop", "gone.jpg"]


def test_a_remote_folder_is_listed_and_read_like_a_local_one() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/set/photos/1.jpg", b"one")
    memory.pipe("/set/.x/2.jpg", b"two")
    (entry,) = list_files("memory://set")
    assert (entry.path, entry.size, read_bytes(entry.uri)) == ("photos/1.jpg", 3, b"one")


def test_one_folder_may_be_left_out(tmp_path: Path) -> None:
    for name in ("photos/1.jpg", "work/2.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    paths = [entry.path for entry in list_files(str(tmp_path), exclude=tmp_path / "work")]
    assert paths == ["photos", "photos/1.jpg", "work"]


def test_a_folder_that_cannot_be_listed_stops_the_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").mkdir()
    real = os.scandir

    def denied(path: object) -> object:
        if str(path).endswith("secret"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(FacadeError, match=r"cannot list .*secret: Permission denied"):
        list_files(str(tmp_path))


@pytest.mark.parametrize("root", ["s3://bucket/set", "gs://bucket/set", "nonsense://set"])
def test_an_address_without_keys_or_its_package_is_one_sentence(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nowhere")
    with pytest.raises(FacadeError, match=f"{root} cannot be listed: "):
        list_files(root)


def test_no_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FacadeError, match="is not a folder"):
        list_files(str(tmp_path / "no"))


def test_what_is_no_file_is_bad_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(BadInputError, match="a pipe"):
        read_bytes(str(tmp_path / "pipe.jpg"))
    with pytest.raises(BadInputError, match="folder"):
        read_bytes(str(tmp_path))
    with pytest.raises(FileNotFoundError):  # it may come back
        read_bytes(str(tmp_path / "no"))


def test_a_write_is_whole_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_bytes(tmp_path / "deep/file", b"one")
    write_bytes(tmp_path / "deep/file", b"two")
    assert (tmp_path / "deep/file").read_bytes() == b"two"
    assert os.listdir(tmp_path / "deep") == ["file"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "file", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FacadeError, match="free some space"):
        write_bytes(tmp_path / "file", b"new")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_patience_outlasts_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    tries = []

    def attempt() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return "done"

    assert retry_with_backoff(attempt, tmp_path / "file", retry_seconds=60) == "done"
    assert len(tries) == 3


def test_another_fault_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FacadeError, match="check that the folder exists"):
        write_bytes(tmp_path / "file/below", b"", retry_seconds=600)


def test_which_errors_may_pass() -> None:
    assert all(map(is_transient, ("PermissionError", "FileNotFoundError", "StaleInput")))
    assert not any(map(is_transient, ("BadInput", "ValueError", "KeyError", "nonsense")))


def test_json_digests_ignore_the_order_of_keys() -> None:
    assert json_digest({"a": 1, "b": [2]}) == json_digest({"b": [2], "a": 1}) != json_digest({"a": 2, "b": [2]})
