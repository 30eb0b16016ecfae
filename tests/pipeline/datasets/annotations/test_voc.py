"""Pascal VOC XML: read back what a drawn set says, and refuse what is broken."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.datasets.annotations import AnnotatedBoxes, read_annotation
from pipeline.datasets.card import Card, resolve_card
from pipeline.errors import BadInputError

VOC = Card.model_validate(
    {
        "name": "s",
        "title": "",
        "source": "",
        "licence": "",
        "kind": "voc",
        "images": "{id}.jpg",
        "annotations": "{id}.xml",
        "labelled_classes": ["building", "window"],
        "legend": {"facade": "building", "window": "window"},
    }
)
SIZE = "<size><width>{}</width><height>{}</height><depth>3</depth></size>"
BOX = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"


def thing(*corners: object, name: str = "window", more: str = "") -> str:
    return f"<object>{more}<name>{name}</name><pose>Unspecified</pose>{BOX.format(*corners)}</object>"


def read(*parts: str) -> AnnotatedBoxes:
    found = read_annotation(VOC, f"<annotation>{''.join(parts)}</annotation>".encode(), 400, 200)
    assert isinstance(found, AnnotatedBoxes)
    return found


def test_pixels_count_from_one_and_include_the_last() -> None:
    found = read(SIZE.format(400, 200), thing(1, 1, 400, 200, name=" facade\n"), thing(5, 7, 5, 7))
    assert found.labels == ("building", "window")
    assert found.xyxy.tolist() == [[0, 0, 400, 200], [4, 6, 5, 7]]


def test_difficult_is_kept_and_parts_are_no_objects() -> None:
    part = f"<part><name>window</name>{BOX.format(1, 1, 2, 2)}</part>"
    flags = [f"<difficult>{value}</difficult><truncated>1</truncated>" for value in ("1", "0", "")]
    found = read(*(thing(5, 5, 9, 9, more=part + flag) for flag in flags))
    assert found.xyxy.tolist() == [[4, 4, 9, 9]] * 3
    assert found.difficult.tolist() == [True, False, False]
    assert not found.ignore.any()


@pytest.mark.parametrize("size", ["", SIZE.format(0, 0), SIZE.format(" 400 ", 200), SIZE.format("400.0", 200)])
def test_a_size_may_be_left_out(size: str) -> None:
    assert read(size).xyxy.shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SIZE.format(200, 400), "the annotation is of 200x400 pixels and its photo has 400x200"),
        (SIZE.format("wide", 200), "not a number: 'wide'"),
        (thing(9, 1, 5, 5), "ends before it begins"),
        (thing(1, 1, "nan", 5), "not a number: 'nan'"),
        (thing(1, 1, "", 5), "not a number"),
        ("<object><name>window</name></object>", "<bndbox/xmin> of an <object> is not a number"),
        (thing(1, 1, 5, 5, name="balcony"), "boxes of 'balcony'"),
        ("<object>", "malformed"),
    ],
)
def test_a_broken_file_is_refused_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        read(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<html><object/></html>", "root is <html>, expected <annotation>"),
        ('<!DOCTYPE x [<!ENTITY a "aaaa">]><annotation>&a;</annotation>', "refused"),
        ("", "malformed"),
        ('<?xml version="1.0" encoding="gbk"?><annotation/>', "cannot be read"),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "malformed|cannot be read"),
    ],
)
def test_what_is_not_voc_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        read_annotation(VOC, text.encode(), 400, 200)


def write_voc(drawn: Path, root: Path) -> dict[str, list[list[object]]]:
    """Write the drawn set as VOC; return the true boxes by name."""
    (root / "JPEGImages").mkdir(parents=True)
    (root / "Annotations").mkdir()
    truth = {}
    for line in (drawn / "truth.jsonl").read_text().splitlines():
        entry = json.loads(line)
        name = entry["name"]
        (root / f"JPEGImages/{name}.jpg").write_bytes((drawn / f"photos/{name}.jpg").read_bytes())
        truth[name] = [[box[key] for key in ("label", "xmin", "ymin", "xmax", "ymax")] for box in entry["boxes"]]
        objects = [
            thing(x0 + 1, y0 + 1, x1, y1, name=label, more=f"<difficult>{rank % 2}</difficult>")
            for rank, (label, x0, y0, x1, y1) in enumerate(truth[name])
        ]
        text = f"<annotation>{SIZE.format(entry['width'], entry['height'])}{''.join(objects)}</annotation>"
        (root / f"Annotations/{name}.xml").write_text(text)
    return truth


def test_a_drawn_set_comes_back_as_it_was(workplace: Callable, drawn: Path, tmp_path: Path) -> None:
    truth = write_voc(drawn, tmp_path / "voc")
    work = workplace()
    work.index(tmp_path / "voc", name="voc")
    outcome = work.extract()
    assert (outcome.rows_out, outcome.rejected) == (10, 0)
    rows = work.rows("extract", "boxes")
    for name, boxes in truth.items():
        own = [row for row in rows if Path(row["image_id"]).stem == name]
        found = [[row[key] for key in ("label", "xmin", "ymin", "xmax", "ymax")] for row in own]
        assert sorted(found) == sorted(boxes)
        assert sum(row["difficult"] for row in own) == len(boxes) // 2
    assert len(rows) == sum(map(len, truth.values()))
    assert {(row["source"], row["recipe"], row["ignore"]) for row in rows} == {("voc", "true", False)}


def test_torchvision_reads_the_same(drawn: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    truth = write_voc(drawn, tmp_path / "voc")
    card = resolve_card("voc")[0]
    for name in truth:
        path = tmp_path / f"voc/Annotations/{name}.xml"
        told = datasets.VOCDetection.parse_voc_xml(ElementTree.parse(path).getroot())["annotation"]
        size = {key: int(value) for key, value in told["size"].items()}
        found = read_annotation(card, path.read_bytes(), size["width"], size["height"])
        assert isinstance(found, AnnotatedBoxes)
        theirs = [[int(entry["bndbox"][key]) for key in ("xmin", "ymin", "xmax", "ymax")] for entry in told["object"]]
        assert np.array_equal(found.xyxy, np.array(theirs) - [1, 1, 0, 0])
        assert found.labels == tuple(entry["name"] for entry in told["object"])
