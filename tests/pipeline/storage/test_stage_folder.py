"""Receipts, manifests, and what becomes of files that no longer count."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import FacadeError
from pipeline.storage.manifest import Manifest, Shard
from pipeline.storage.schemas import table_from_rows
from pipeline.storage.stage_folder import StageFolder

ROW = {"boxes": 1, "dropped": [("window", 2)], "unknown_share": 0.5}


def table(*names: str) -> dict[str, pa.Table]:
    return {"extraction_log": table_from_rows("extraction_log", [{"image_id": name, **ROW} for name in names])}


def rejected(*names: str, error: str = "BadInput") -> dict[str, pa.Table]:
    rows = [{"image_id": name, "uri": name, "stage": "extract", "error": error, "message": "m"} for name in names]
    return {"rejected": table_from_rows("rejected", rows)}


def shard(ordinal: int, digest: str, rows: int = 2) -> Shard:
    values: list[dict[str, Any]] = [{"n": number} for number in range(rows)]
    return Shard("set", ordinal, digest.ljust(64, "0"), values)


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return StageFolder(tmp_path, "extract", disk_retry_seconds=0)


def files(folder: StageFolder) -> list[str]:
    return sorted(path.relative_to(folder.path).as_posix() for path in folder.path.rglob("*") if path.is_file())


def test_a_receipt_comes_back_and_says_what_is_finished(folder: StageFolder) -> None:
    receipt = folder.write_shard(shard(0, "ab"), table("a") | rejected("b"), 1)
    assert folder.finished_receipts() == {receipt.key: receipt}
    assert (receipt.rows_in, receipt.rows_out, receipt.rejected) == (2, 1, 1)
    assert receipt.key == "set-00000-ab0000000000"


def test_a_lost_row_is_an_error(folder: StageFolder) -> None:
    with pytest.raises(FacadeError, match="2 rows in, 1 out and 0 rejected; a row was lost"):
        folder.write_shard(shard(0, "ab"), table("a"), 1)
    assert folder.finished_receipts() == {}


def test_a_shard_whose_file_is_gone_or_cut_is_not_finished(folder: StageFolder) -> None:
    receipt = folder.write_shard(shard(0, "ab"), table("a", "b"), 2)
    folder.commit(Manifest("extract", (receipt,)))
    path = folder.path / receipt.tables["extraction_log"].file
    path.write_bytes(path.read_bytes()[:-1])
    assert folder.finished_receipts() == {}
    with pytest.raises(FacadeError, match=r"cannot read .*; delete it and run `facade extract` again"):
        folder.read("extraction_log")


@pytest.mark.parametrize("text", ['{"key": "set', "[]", "3", "\xff"])
def test_a_damaged_receipt_is_as_good_as_none(folder: StageFolder, text: str) -> None:
    receipt = folder.write_shard(shard(0, "ab"), table("a", "b"), 2)
    (folder.path / "_receipts" / f"{receipt.key}.json").write_bytes(text.encode("latin-1"))
    assert folder.finished_receipts() == {}


def test_what_is_not_in_force_is_not_where_readers_look(folder: StageFolder) -> None:
    old = folder.write_shard(shard(0, "ab"), table("a", "b"), 2)
    folder.commit(Manifest("extract", (old,)))
    folder.write_shard(shard(0, "cd"), table("a", "c"), 2)
    assert files(folder)[0].startswith("_history")
    assert [path.name for path in (folder.path / "extraction_log").iterdir()] == [
        Path(old.tables["extraction_log"].file).name
    ]


@pytest.mark.parametrize(("error", "again"), [("PermissionError", True), ("BadInput", False)])
def test_a_shard_with_errors_that_may_pass_is_tried_again(folder: StageFolder, error: str, again: bool) -> None:
    folder.write_shard(shard(0, "ab"), table("a") | rejected("b", error=error), 1)
    assert (folder.finished_receipts() == {}) == again


def test_a_commit_keeps_what_it_lists_and_nothing_else(folder: StageFolder) -> None:
    old = folder.write_shard(shard(0, "ab"), table("a", "b"), 2)
    folder.commit(Manifest("extract", (old,)))
    (folder.path / "extraction_log/.x.parquet.1.part").write_bytes(b"left by a killed writer")
    (folder.path / "previews").mkdir()
    (folder.path / "previews/a.jpg").write_bytes(b"kept")
    new = folder.write_shard(shard(0, "cd"), table("a", "c"), 2)
    folder.commit(Manifest("extract", (new,), run_id="7"))
    assert files(folder) == sorted(
        [
            "_history/000001.json",
            "_history/000002.json",
            "_manifest.json",
            "previews/a.jpg",
            new.tables["extraction_log"].file,
        ]
    )
    assert folder.manifest() == Manifest("extract", (new,), run_id="7")
    assert folder.read("extraction_log")["image_id"].to_pylist() == ["a", "c"]


def test_only_the_last_few_manifests_are_kept(folder: StageFolder) -> None:
    for number in range(8):
        folder.commit(Manifest("extract", (), {"n": number}))
    kept = [json.loads(path.read_text())["settings"]["n"] for path in sorted((folder.path / "_history").iterdir())]
    assert kept == [3, 4, 5, 6, 7]


def test_the_digest_is_of_contents_not_of_names(folder: StageFolder) -> None:
    first, second = (folder.write_shard(shard(0, digest), table("a", "b"), 2) for digest in ("ab", "cd"))
    third = folder.write_shard(shard(0, "ef"), table("a", "c"), 2)
    digests = [Manifest("extract", (receipt,)).digest for receipt in (first, second, third)]
    assert digests[0] == digests[1] != digests[2]


def test_reading_before_the_stage_has_run_says_what_to_run(folder: StageFolder) -> None:
    with pytest.raises(FacadeError, match="run `facade extract` on it first"):
        folder.read("boxes")


def test_a_damaged_manifest_is_one_sentence(folder: StageFolder) -> None:
    folder.commit(Manifest("extract", ()))
    (folder.path / "_manifest.json").write_text('{"format": 1')
    with pytest.raises(FacadeError, match=r"is corrupt .*; delete it and run the stage again"):
        folder.manifest()


def test_a_newer_manifest_is_refused(folder: StageFolder) -> None:
    folder.commit(Manifest("extract", ()))
    path = folder.path / "_manifest.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(FacadeError, match="newer facade-ssd"):
        folder.manifest()
