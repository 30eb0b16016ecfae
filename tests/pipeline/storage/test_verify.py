"""`verify` finds what was done to tables behind their manifest's back."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.storage.verify import verify


@pytest.fixture
def work(workplace: Callable, drawn: Path, cards: tuple[str, str]) -> Path:
    place = workplace()
    place.index(drawn, cards[0])
    place.extract()
    return place.context.work


def test_untouched_tables_are_fine(work: Path) -> None:
    findings = verify(work)
    assert findings.problems == ()
    assert (findings.stages, findings.rows_in, findings.rows_out, findings.rejected) == (
        ("extract", "index"),
        20,
        20,
        0,
    )


def test_every_change_is_found(work: Path) -> None:
    (boxes,) = (work / "extract/boxes").glob("*.parquet")
    (extracts,) = (work / "extract/extraction_log").glob("*.parquet")
    (images,) = (work / "index/images").glob("*.parquet")
    table = pq.read_table(boxes)
    boxes.with_name("copy.parquet").write_bytes(boxes.read_bytes())
    pq.write_table(table.slice(1), boxes)
    extracts.unlink()
    images.write_bytes(images.read_bytes()[:-7])
    problems = "\n".join(verify(work).problems)
    for word in (
        f"{boxes} is not the file",
        f"{extracts} is missing",
        f"{images} is not the file",
        "copy.parquet is in no",
    ):
        assert word in problems
