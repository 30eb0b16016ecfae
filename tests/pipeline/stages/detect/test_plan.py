"""The plan of an archive: old shards stay, new photos make new ones, and no photo is in it twice."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import FacadeError
from pipeline.stages.detect.plan import MAX_SHARD_PHOTOS, DetectionPlan, PlanChanges, shard_size

from ....conftest import SilentProgress


def rows(numbers: Iterable[int], stamp: str = "1") -> list[dict[str, Any]]:
    empty = {"member": None, "latitude": None, "longitude": None, "heading": None, "extra": None}
    return [{"image_id": f"{number}.jpg", "uri": f"/{number}.jpg", "version": stamp, **empty} for number in numbers]


pytestmark = pytest.mark.usefixtures("even_shards")


def update(archive: DetectionPlan, listed: list[dict[str, Any]], limit: int | None = None) -> PlanChanges:
    return archive.update(iter(listed), limit, SilentProgress())  # type: ignore[arg-type]


def planned(archive: DetectionPlan) -> list[list[str]]:
    return [[row["image_id"] for row in shard.rows] for shard in archive.shards()]


def names(numbers: Iterable[int]) -> list[str]:
    return [f"{number}.jpg" for number in numbers]


def test_the_first_shards_are_small_and_the_others_of_one_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [shard_size(ordinal) for ordinal in (0, 7, 8, 16, 24, 31, 32, 10_000)] == [
        32,
        32,
        64,
        128,
        256,
        256,
        512,
        512,
    ]
    archive = DetectionPlan(tmp_path)
    update(archive, rows(range(450)))
    assert [len(shard.rows) for shard in archive.shards()] == [*[32] * 8, 64, 64, 64, 2]
    update(archive, rows(range(500)))
    assert [len(shard.rows) for shard in archive.shards()] == [*[32] * 8, 64, 64, 64, 2, 50]


def test_photos_come_into_shards_of_one_size(tmp_path: Path) -> None:
    archive = DetectionPlan(tmp_path)
    assert update(archive, rows(range(1200))) == PlanChanges(1200, 0, 0)
    assert planned(archive) == [names(range(512)), names(range(512, 1024)), names(range(1024, 1200))]
    assert [len(shard.rows) for shard in archive.shards()] == [MAX_SHARD_PHOTOS, MAX_SHARD_PHOTOS, 176]
    before = [(shard.digest, shard.rows.path.stat().st_mtime_ns) for shard in archive.shards()]
    assert update(archive, rows(range(1200))) == PlanChanges(0, 0, 0)
    assert [(shard.digest, shard.rows.path.stat().st_mtime_ns) for shard in archive.shards()] == before


def test_later_photos_make_new_shards_wherever_they_are_listed(tmp_path: Path) -> None:
    archive = DetectionPlan(tmp_path)
    update(archive, rows(range(100, 700)))
    before = [shard.digest for shard in archive.shards()]
    assert update(archive, rows(range(900))) == PlanChanges(300, 0, 0)
    assert planned(archive)[2:] == [[*names(range(100)), *names(range(700, 900))]]
    assert [shard.digest for shard in archive.shards()][:2] == before


def test_a_changed_photo_changes_its_shard_alone(tmp_path: Path) -> None:
    archive = DetectionPlan(tmp_path)
    update(archive, rows(range(1100)))
    before = [shard.digest for shard in archive.shards()]
    assert update(archive, [*rows(range(600)), *rows([600], "2"), *rows(range(601, 1100))]) == PlanChanges(0, 1, 0)
    after = [shard.digest for shard in archive.shards()]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]
    assert planned(archive)[1] == names(range(512, 1024))
    assert len(list(archive.path.iterdir())) == 3


def test_what_is_gone_from_the_source_stays_in_the_plan(tmp_path: Path) -> None:
    archive = DetectionPlan(tmp_path)
    update(archive, rows(range(10)))
    assert update(archive, rows(range(2, 11))) == PlanChanges(1, 0, 2)
    assert planned(archive) == [names(range(10)), names([10])]


def test_a_limit_is_of_all_photos_and_may_be_raised(tmp_path: Path) -> None:
    archive = DetectionPlan(tmp_path)
    assert update(archive, rows(range(2000)), limit=10) == PlanChanges(10, 0, 0)
    assert update(archive, rows(range(2000)), limit=10) == PlanChanges(0, 0, 0)
    assert update(archive, rows(range(2000)), limit=600) == PlanChanges(590, 0, 0)
    assert [len(shard.rows) for shard in archive.shards()] == [10, 512, 78]
    assert update(archive, rows(range(2000)), limit=5) == PlanChanges(0, 0, 0)
    assert [name for shard in planned(archive) for name in shard] == names(range(600))


def test_a_limit_stops_the_listing(tmp_path: Path) -> None:
    taken = 0

    def listed() -> Iterable[dict[str, Any]]:
        nonlocal taken
        for row in rows(range(100_000)):
            taken += 1
            yield row

    DetectionPlan(tmp_path).update(listed(), 1000, SilentProgress())  # type: ignore[arg-type]
    assert taken <= 1024


@pytest.mark.parametrize("first", [0, 1, 700])
def test_one_id_twice_is_refused_and_nothing_is_planned(tmp_path: Path, first: int) -> None:
    archive = DetectionPlan(tmp_path)
    with pytest.raises(FacadeError, match=rf"the id '{first}\.jpg'"):
        update(archive, [*rows(range(1000)), *rows([first], "2")])
    assert archive.shards() == []
    update(archive, rows(range(1000)))
    with pytest.raises(FacadeError, match=rf"the id '{first}\.jpg'"):
        update(archive, [*rows(range(1000)), *rows([first], "2")])
    assert [name for shard in planned(archive) for name in shard] == names(range(1000))


def test_a_listing_that_stops_leaves_the_plan_as_it_was(tmp_path: Path) -> None:
    archive = DetectionPlan(tmp_path)
    update(archive, rows(range(600)))

    def listed() -> Iterable[dict[str, Any]]:
        yield from rows(range(3000))
        raise FacadeError("the store is away")

    with pytest.raises(FacadeError, match="away"):
        archive.update(listed(), None, SilentProgress())  # type: ignore[arg-type]
    assert [name for shard in planned(archive) for name in shard] == names(range(600))
    assert update(archive, rows(range(3000))) == PlanChanges(2400, 0, 0)
    assert [name for shard in planned(archive) for name in shard] == names(range(3000))


def test_a_comparison_writes_nothing_of_the_plan(tmp_path: Path) -> None:
    archive = DetectionPlan(tmp_path / "out")
    found = archive.compare(iter(rows(range(600))), None, tmp_path / "aside", SilentProgress())  # type: ignore[arg-type]
    assert found == PlanChanges(600, 0, 0)
    assert not (tmp_path / "out").exists()
