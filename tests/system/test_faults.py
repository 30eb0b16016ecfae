"""Faults with real processes and files: nothing is lost, nothing is duplicated, and an error is one sentence."""

import io
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from pipeline.datasets.synthetic import write_dataset
from pipeline.stages.extract.stage import ExtractConfig
from pipeline.storage.stage_folder import StageFolder

from ..pipeline import fault_injection

IMAGES = 640  # ten shards


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 640 photos (8 drawings under many names) whose masks take a while to read."""
    few, many = tmp_path_factory.mktemp("few"), tmp_path_factory.mktemp("many")
    write_dataset(few, 8, seed=3, width=1600, height=1200)
    for folder, suffix in (("photos", "jpg"), ("masks", "png")):
        (many / folder).mkdir()
        for number in range(IMAGES):
            source = few / folder / f"facade_{number % 8:05d}.{suffix}"
            os.link(source, many / folder / f"facade_{number:05d}.{suffix}")
    return many


@pytest.fixture
def indexed_work(
    large: Path, workplace: Callable, cards: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A work folder in which the large set is indexed_work."""
    cache = large / "indexed"
    if not cache.exists():
        work = workplace("made")
        work.index(large, cards[0])
        shutil.copytree(work.context.work, cache)
    return Path(shutil.copytree(cache, tmp_path_factory.mktemp("work") / "work"))


def extract_command(command: Callable, work: Path, *more: object) -> list[str]:
    return command("extract", "--work", work, "--tracking", "off", "--set", "extract.previews=0", "--workers", 2, *more)


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_receipts(work: Path, count: int, process: subprocess.Popen[str]) -> None:
    while len(list((work / "extract/_receipts").glob("*.json"))) < count:
        assert process.poll() is None, "it ended before it could be disturbed"
        time.sleep(0.02)


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The worker processes there are, at least one: a killed one may not have been replaced yet."""
    workers: list[psutil.Process] = []
    while not workers:
        assert process.poll() is None, "it ended before it could be disturbed"
        workers = fault_injection.worker_processes(process.pid)
    return workers


def tables(work: Path) -> dict[str, list[dict[str, Any]]]:
    folder = StageFolder(work, "extract")
    return {name: folder.read(name).to_pylist() for name in ("boxes", "extraction_log", "rejected")}


@pytest.fixture(scope="module")
def expected(large: Path, tmp_path_factory: pytest.TempPathFactory, cards: tuple[str, str]) -> dict[str, Any]:
    """The tables of a run that nobody disturbed, in one process."""
    from pipeline.datasets.card import parse_card
    from pipeline.execution.parallel import WorkerConfig
    from pipeline.execution.runner import Context
    from pipeline.stages.extract import stage as extract
    from pipeline.stages.index import stage as index

    context = Context(tmp_path_factory.mktemp("calm"), WorkerConfig(count=0), "off")
    index.run(context, index.IndexConfig(), parse_card(cards[0], "test"), cards[0], str(large))
    extract.run(context, ExtractConfig(previews=0))
    return tables(context.work)


def test_killed_worker_loses_and_duplicates_nothing(
    command: Callable, indexed_work: Path, expected: dict[str, Any]
) -> None:
    process = start(extract_command(command, indexed_work))
    for count in (1, 3):
        wait_for_receipts(indexed_work, count, process)
        workers_of(process)[0].kill()
    out, err = process.communicate()
    assert (process.returncode, "Traceback" in err) == (0, False), err
    assert f'"rows_out": {IMAGES}' in out
    assert tables(indexed_work) == expected


def test_killed_command_resumes(command: Callable, indexed_work: Path, expected: dict[str, Any]) -> None:
    process = start(extract_command(command, indexed_work))
    wait_for_receipts(indexed_work, 2, process)
    workers = workers_of(process)
    process.kill()
    process.communicate()
    assert not (indexed_work / "extract/_manifest.json").exists()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
    (indexed_work / "extract/_staged/boxes/.left.parquet.1.part").write_bytes(b"by a killed writer")
    again = subprocess.run(extract_command(command, indexed_work), capture_output=True, text=True, check=True)
    assert "shards were finished before" in again.stderr
    assert tables(indexed_work) == expected
    assert not list(indexed_work.rglob("*.part"))
    third = subprocess.run(extract_command(command, indexed_work), capture_output=True, text=True, check=True)
    assert '"changed": false' in third.stdout
    assert "nothing to do" in third.stderr


def test_two_commands_at_once(
    command: Callable, indexed_work: Path, facade: Callable, expected: dict[str, Any]
) -> None:
    process = start(extract_command(command, indexed_work))
    wait_for_receipts(indexed_work, 1, process)
    process.send_signal(signal.SIGSTOP)  # it must not end before the others have come
    second = facade("extract", "--work", indexed_work, "--tracking", "off")
    third = facade("index", "--card", "cmp", "--root", indexed_work, "--work", indexed_work, "--tracking", "off")
    process.send_signal(signal.SIGCONT)
    process.communicate()
    assert second.code == 1
    assert f"is in use by process {process.pid}" in second.line["error"]
    assert (third.code, "is in use" in third.line["error"]) == (1, True)
    assert process.returncode == 0
    assert tables(indexed_work) == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 600 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here (that takes root)")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, left: int = 24_576) -> Path:
    """Fill the disk but for a few kB, so that the command starts and its tables do not fit."""
    ballast = folder / "ballast"
    free = shutil.disk_usage(folder).free
    ballast.write_bytes(b"x" * max(0, free - left))
    return ballast


def test_full_disk_is_one_sentence_and_resumable(
    facade: Callable, indexed_work: Path, small_disk: Path, expected: dict[str, Any]
) -> None:
    work = Path(shutil.copytree(indexed_work, small_disk / "work"))
    ballast = fill(small_disk)
    arguments = extract_command(lambda *words: list(words), work)
    full = facade(*arguments, "--set", "store.disk_retry_seconds=1")
    assert full.code == 1
    assert "No space left on device; free some space and run the same command again" in full.line["error"]
    ballast.unlink()
    assert facade(*arguments).code == 0
    assert tables(work) == expected


def test_disk_full_for_a_while_is_waited_for(
    command: Callable, indexed_work: Path, small_disk: Path, expected: dict[str, Any]
) -> None:
    work = Path(shutil.copytree(indexed_work, small_disk / "work"))
    ballast = fill(small_disk)
    process = start(extract_command(command, work))
    assert process.stderr is not None
    assert any("No space left on device; trying again" in line for line in process.stderr)
    ballast.unlink()
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert tables(work) == expected


def bomb() -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (40_000, 40_000)).save(buffer, "PNG")
    return buffer.getvalue()


def spoil(folder: Path) -> dict[str, str]:
    """Damage a synthetic dataset in every known way; return the expected message for each photo."""
    photos, masks = folder / "photos", folder / "masks"
    whole = (photos / "facade_00000.jpg").read_bytes()
    mask = (masks / "facade_00000.png").read_bytes()
    odd = np.full((240, 320), 77, np.uint8)
    cases: dict[str, tuple[bytes | None, bytes | None, str]] = {
        "truncated photo": (whole[: len(whole) // 2], mask, "damaged"),
        "truncated mask": (whole, mask[: len(mask) // 2], "damaged"),
        "empty photo": (b"", mask, "the file is empty"),
        "empty mask": (whole, b"", "the file is empty"),
        "folder": (None, mask, "it is a folder, not a file"),
        "one pixel": (png(np.zeros((1, 1, 3), np.uint8)), mask, "1x1 pixels, at least 8"),
        "bomb": (bomb(), mask, "40000x40000 pixels, more than"),
        "bomb mask": (whole, bomb(), "40000x40000 pixels, more than"),
        "another size": (whole, png(np.zeros((20, 20), np.uint8)), "the mask has 20x20 pixels and its photo 320x240"),
        "no known index": (whole, png(odd), "100.0% of the annotation is indices"),
        "a text": (b"this is no picture", mask, "not an image"),
        "a text mask": (whole, b"this is no picture", "not an image"),
        "no mask": (whole, None, "has no annotation"),
    }
    for name, (photo, annotation, _) in cases.items():
        place(photos / f"{name}.jpg", photo)
        if annotation is not None:
            (masks / f"{name}.png").write_bytes(annotation)
    for name in ('it\'s a "fine" naïve façade', "дом 1", "家", "a#1?x=%20&y", "-rf"):
        (photos / f"{name}.jpg").write_bytes(whole)
        (masks / f"{name}.png").write_bytes(mask)
    return {f"drawn/photos/{name}.jpg": message for name, (_, _, message) in cases.items()}


def place(path: Path, data: bytes | None) -> None:
    if data is None:
        path.mkdir()
    else:
        path.write_bytes(data)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def test_bad_files_are_rejected_and_odd_names_are_not(
    facade: Callable, drawn_copy: Path, tmp_path: Path, cards: tuple[str, str]
) -> None:
    expected = spoil(drawn_copy)
    (tmp_path / "card.toml").write_text(cards[0])
    common = ("--work", "work", "--tracking", "off", "--max-rejected", 1, "--workers", 1)
    lines = [
        facade("index", "--card", "card.toml", "--root", drawn_copy, *common).line,
        facade("extract", *common).line,
    ]
    assert [line["rows_in"] for line in lines] == [28, lines[0]["rows_out"]]
    assert all(line["rows_in"] == line["rows_out"] + line["rejected"] for line in lines)
    assert lines[1]["rows_out"] == 15
    told = {}
    for stage in ("index", "extract"):
        for row in StageFolder(tmp_path / "work", stage).read("rejected").to_pylist():
            assert row["stage"] == stage
            told[row["image_id"]] = row["message"]
    assert told.keys() == expected.keys()
    for image, message in expected.items():
        assert message in told[image], image
    boxes = StageFolder(tmp_path / "work", "extract").read("boxes").to_pylist()
    alike = {len([row for row in boxes if row["image_id"] == f"drawn/photos/{name}.jpg"]) for name in ("家", "-rf")}
    assert alike == {len([row for row in boxes if row["image_id"] == "drawn/photos/facade_00000.jpg"])}


def test_name_that_is_not_text_is_rejected(workplace: Callable, drawn_copy: Path, cards: tuple[str, str]) -> None:
    for folder, suffix in ((b"photos", b".jpg"), (b"masks", b".png")):
        place = os.path.join(os.fsencode(drawn_copy), folder)
        shutil.copy(os.path.join(place, b"facade_00001" + suffix), os.path.join(place, b"caf\xe9" + suffix))
    work = workplace(max_rejected=0.2)
    assert work.index(drawn_copy, cards[0]).rejected == 1
    (row,) = work.rows("index", "rejected")
    assert row["image_id"] == "drawn/photos/caf\\udce9.jpg"
    assert "not valid UTF-8; rename it" in row["message"]


def test_photo_without_permission_is_retried(workplace: Callable, drawn_copy: Path, monkeypatch, cards) -> None:
    from pipeline.storage import files

    real = Path.read_bytes

    def denied(path: Path) -> bytes:
        if path.name == "facade_00002.jpg":
            raise PermissionError(13, "Permission denied")
        return real(path)

    work = workplace(max_rejected=0.2)
    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "read_bytes", denied)
        assert work.index(drawn_copy, cards[0]).rejected == 1
    outcome = work.index(drawn_copy, cards[0])
    assert (outcome.rejected, outcome.added, outcome.changed) == (0, 1, True)
