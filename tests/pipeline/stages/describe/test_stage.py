"""Counts of boxes: right, mergeable, and the same however they were reduced."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import FacadeError
from pipeline.execution.parallel import WorkerConfig
from pipeline.stages.describe import stage as describe
from pipeline.stages.describe.histograms import (
    AREA_EDGES,
    ASPECT_EDGES,
    SIDE_BINS,
    SIDE_EDGES,
    bin_centres,
    count_shapes,
    histogram,
    merge_shapes,
)
from pipeline.stages.describe.stage import DescribeConfig, load_shapes
from pipeline.storage.schemas import table_from_rows

IMAGE = {"dataset": "set", "split": "train", "width": 400, "height": 200, "labelled_classes": ["window", "door"]}
BOX = {"truncated": False, "difficult": False, "ignore": False, "source": "yolo", "recipe": "true"}


def image(name: str, **changes: Any) -> dict[str, Any]:
    return {"image_id": f"set/{name}", **IMAGE, **changes}


def box(of: str, label: str, *xyxy: float, **changes: Any) -> dict[str, Any]:
    corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, xyxy), strict=True))
    return {"box_id": f"set/{of}#0", "image_id": f"set/{of}", "label": label, **corners, **BOX, **changes}


def extract_row(of: str, dropped: tuple = (), unknown: float = 0.0) -> dict[str, Any]:
    return {"image_id": f"set/{of}", "boxes": 0, "dropped": list(dropped), "unknown_share": unknown}


def counted(images: list, boxes: list, extracts: list) -> pa.Table:
    return count_shapes(images, table_from_rows("boxes", boxes), table_from_rows("extraction_log", extracts))


def test_every_measure_of_a_small_set() -> None:
    boxes = [box("a", "window", 0, 0, 100, 50), box("a", "window", 0, 0, 50, 100, truncated=True, suspect="merged")]
    shapes = counted([image("a"), image("b")], boxes, [extract_row("a", (("door", 3),)), extract_row("b", (), 0.021)])
    assert histogram(shapes, "images", "") == {0: 2}
    assert histogram(shapes, "boxes", "window") == {0: 2}
    assert histogram(shapes, "objects", "window") == {0: 1, 2: 1}
    assert histogram(shapes, "objects", "door") == {0: 2}
    assert histogram(shapes, "dropped", "door") == {0: 3}
    assert histogram(shapes, "unknown", "") == {0: 1, 3: 1}
    assert histogram(shapes, "truncated", "window") == histogram(shapes, "merged", "window") == {0: 1}
    assert histogram(shapes, "difficult", "window") == {}
    aspects = [round(float(bin_centres(ASPECT_EDGES)[at]), 1) for at in histogram(shapes, "aspect", "window")]
    assert aspects == [0.5, 2.1]
    (area,) = histogram(shapes, "area", "window")
    assert AREA_EDGES[area - 1] <= 5000 / 80000 < AREA_EDGES[area]
    width, height = divmod(max(histogram(shapes, "shape", "window")), SIDE_BINS)
    assert SIDE_EDGES[width - 1] <= 75 < SIDE_EDGES[width]
    assert SIDE_EDGES[height - 1] <= 75 < SIDE_EDGES[height]


def test_what_is_not_labelled_is_not_counted_as_absent() -> None:
    shapes = counted([image("a", labelled_classes=["window"])], [], [extract_row("a")])
    assert histogram(shapes, "objects", "window") == {0: 1}
    assert histogram(shapes, "objects", "door") == {}


SIDE = st.floats(1, 200, width=32)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["window", "door"]), SIDE, SIDE), max_size=30),
    st.integers(1, 5),
)
def test_parts_add_up_to_the_whole(drawn: list, cut: int) -> None:
    images = [image(str(i), split="train" if i % 2 else "val") for i in range(6)]
    boxes = [box(str(i), label, 0, 0, w, h) for i, label, w, h in drawn]
    extracts = [extract_row(str(i)) for i in range(6)]
    parts = []
    for some in (images[:cut], images[cut:]):
        ids = {row["image_id"] for row in some}
        parts.append(
            counted(some, [b for b in boxes if b["image_id"] in ids], [e for e in extracts if e["image_id"] in ids])
        )
    whole = counted(images, boxes, extracts)
    assert merge_shapes(parts).equals(whole)
    assert merge_shapes(reversed(parts)).equals(whole)


@pytest.fixture
def extracted_work(workplace: Callable, drawn: Path, cards: tuple[str, str]):
    work = workplace()
    for card in cards:
        work.index(drawn, card)
    work.extract()
    return work


def test_the_stage_counts_what_the_tables_hold(extracted_work) -> None:
    outcome = describe.run(extracted_work.context, DescribeConfig())
    assert (outcome.rows_in, outcome.rows_out, outcome.changed) == (20, 20, True)
    assert describe.run(extracted_work.context, DescribeConfig()).changed is False
    folder = extracted_work.context.folder("describe")
    shapes = load_shapes(folder, extracted_work.context.folder("extract").manifest())
    labels = [row["label"] for row in extracted_work.rows("extract", "boxes", "drawn")]
    for label in ("building", "window", "door"):
        for measure in ("boxes", "aspect", "area", "shape"):
            assert sum(histogram(shapes, measure, label, dataset="drawn").values()) == labels.count(label)
    figures = {path.name for path in (folder.path / "figures").iterdir()}
    assert figures == {f"{name}.png" for name in ("aspect_ratio", "area_ratio", "objects_per_image", "sizes_at_300")}


def test_what_looks_wrong_is_found(workplace: Callable, drawn_copy: Path, cards: tuple[str, str]) -> None:
    import shutil

    for folder, suffix in (("photos", "jpg"), ("masks", "png")):
        shutil.copy(drawn_copy / f"{folder}/facade_00000.{suffix}", drawn_copy / f"{folder}/same.{suffix}")
    work = workplace()
    tower = (
        cards[0]
        .replace('"window", "door"]', '"window", "door", "tower"]', 1)
        .replace("[legend]", '[legend]\n99 = "tower"')
    )
    work.index(drawn_copy, tower)
    work.extract()
    describe.run(work.context, DescribeConfig())
    found = {(row["kind"], row["label"]): row["count"] for row in work.rows("describe", "findings")}
    assert found["duplicate", ""] == 1
    assert found["absent", "tower"] == 0


def test_older_boxes_are_not_described(extracted_work, drawn: Path, cards: tuple[str, str]) -> None:
    extracted_work.index(drawn, cards[0] + "\n[splits]\nshares = [0.5, 0.25, 0.25]\n")
    with pytest.raises(FacadeError, match=r"is older than .*; run `facade extract"):
        describe.run(extracted_work.context, DescribeConfig())


def test_dask_gives_what_one_process_gives_on_all_real_sets(workplace: Callable, real_data: Path) -> None:
    alone, together = workplace("alone"), workplace("alone", workers=WorkerConfig(count=2))
    for name in ("cmp", "cmp_xml", "labelmefacade", "saint_petersburg"):
        together.index(real_data / name.removesuffix("_xml"), name=name)
    together.extract()
    digests, tables = [], []
    for work in (alone, together):
        digests.append(describe.run(work.context, DescribeConfig()).digest)
        folder = work.context.folder("describe")
        tables.append(load_shapes(folder, work.context.folder("extract").manifest()))
        folder.path.rename(folder.path.with_name(f"was_{len(digests)}"))
    assert digests[0] == digests[1]
    assert tables[0].equals(tables[1])
    assert np.sum(tables[0]["count"].to_numpy()) > 50_000
