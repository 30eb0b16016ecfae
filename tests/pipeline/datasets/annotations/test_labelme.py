"""LabelMe JSON, a file a photo."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.annotations import AnnotatedBoxes, read_annotation
from pipeline.datasets.card import Card, parse_card
from pipeline.errors import BadInputError
from pipeline.stages.extract.recipes import annotated_objects

TEXT = """\
name = "s"
title = ""
source = ""
licence = ""
kind = "labelme"
images = "photos/{id}.jpg"
annotations = "labels/{id}.json"
labelled_classes = ["building", "window"]
[legend]
wall = "building"
window = "window"
sky = "sky"
"""
LABELME = parse_card(TEXT, "test")


def shape(kind: str | None, *points: tuple[object, object], label: object = "window", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": [list(point) for point in points], "shape_type": kind, **more}


def read(*shapes: dict[str, Any], card: Card = LABELME, **more: Any) -> AnnotatedBoxes:
    found = read_annotation(card, json.dumps({"shapes": shapes, **more}).encode(), 400, 200)
    assert isinstance(found, AnnotatedBoxes)
    return found


def test_all_shapes_with_an_inside_are_boxes() -> None:
    found = read(
        shape("rectangle", (30, 5), (10, 25), label="wall"),
        shape("rectangle", (10, 5), (30, 5), (30, 25), (10, 25)),
        shape("polygon", (1, 2), (9, 4), (5, 8.5)),
        shape(None, (1, 2), (9, 4), (5, 8.5)),
        shape("circle", (50, 60), (53, 64)),
        imageWidth=400,
        imageHeight=200,
    )
    assert found.labels == ("building", "window", "window", "window", "window")
    corners = [[10, 5, 30, 25]] * 2 + [[1, 2, 9, 8.5]] * 2 + [[45, 55, 55, 65]]
    assert found.xyxy.tolist() == corners


def test_a_group_of_one_label_is_one_object() -> None:
    first, second = ((0, 0), (10, 10)), ((20, 5), (30, 15))
    found = read(
        shape("rectangle", *first, group_id=0),
        shape("rectangle", *second, group_id=0, flags={"difficult": True}),
        shape("rectangle", *first, group_id=0, label="wall"),
        shape("rectangle", *first, group_id=None, flags={"difficult": False}),
        shape("rectangle", *first, group_id=None, flags=None),
    )
    assert found.labels == ("window", "building", "window", "window")
    assert found.xyxy.tolist() == [[0, 0, 30, 15]] + [[0, 0, 10, 10]] * 3
    assert found.difficult.tolist() == [True, False, False, False]


def test_points_and_lines_are_counted_as_dropped() -> None:
    found = read(
        shape("point", (3, 3)),
        shape("line", (0, 0), (9, 9)),
        shape("linestrip", (0, 0), (9, 9), (3, 3), label="wall"),
        shape("point", (3, 3), label="sky"),
        shape("point", (3, 3), label="no such"),
        shape("rectangle", (0, 0), (10, 10), group_id=1),
        shape("point", (90, 90), group_id=1),
    )
    objects = annotated_objects(LABELME, found, 400, 200)
    assert objects.xyxy.tolist() == [[0, 0, 10, 10]]
    assert objects.dropped == {"building": 1, "window": 3}
    assert found.unknown_share == 0


def test_an_empty_file_is_a_photo_without_objects() -> None:
    assert read(imageWidth=None).xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    ("shapes", "more", "reason"),
    [
        ([], {"imageWidth": 200, "imageHeight": 400}, "is of 200x400 pixels and its photo has 400x200"),
        ([shape("polygon", (1, 2), (3, 4))], {}, "shape 1 is no polygon: it has 4 numbers"),
        ([shape("circle", (1, 2))], {}, "a circle of 1 points"),
        ([shape("rectangle", (1, 2))], {}, "a rectangle of 1 points"),
        ([shape("mask", (1, 2), (3, 4))], {}, "a mask of 2 points, which is not understood"),
        ([shape("rectangle", (1, 2), (float("nan"), 4))], {}, "not a number"),
        ([shape("rectangle", (1, 2), ("3", 4))], {}, "no list of numbers"),
        ([shape("rectangle", (1, 2), (10**400, 4))], {}, "no list of numbers"),
        ([{**shape("rectangle"), "points": [[1, 2, 3], [4, 5, 6]]}], {}, "not .x, y."),
        ([shape("rectangle")], {}, "shape 1 has no points"),
        ([shape("rectangle", (1, 2), (3, 4), label=None)], {}, "shape 1 has no label"),
        ([shape("rectangle", (1, 2), (3, 4), label="balcony")], {}, "boxes of 'balcony'"),
        (["rectangle"], {}, "no list `shapes`"),
    ],
)
def test_broken_shapes_are_refused_with_a_reason(shapes: list[Any], more: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        read(*shapes, **more)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed"),
        (b"[1]", "holds list, expected an object"),
        (b"{}", "no list `shapes`"),
        (b"\xff\xfe\x00\x81", "malformed"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_what_is_not_labelme_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        read_annotation(LABELME, data, 400, 200)


def test_a_set_goes_through_with_hashes_in_its_names(workplace: Callable, drawn_copy: Path) -> None:
    (drawn_copy / "labels").mkdir()
    for path in sorted((drawn_copy / "photos").iterdir()):
        path.rename(path.with_name(f"no#{path.name}"))
        content = {"shapes": [shape("rectangle", (30, 5), (10, 25), flags={"difficult": True})]}
        (drawn_copy / f"labels/no#{path.stem}.json").write_text(json.dumps(content))
    work = workplace()
    work.index(drawn_copy, TEXT)
    assert (work.extract().rows_out, work.rows("index", "warnings")) == (10, [])
    assert {(row["xmin"], row["ymax"], row["difficult"]) for row in work.rows("extract", "boxes")} == {(10, 25, True)}
