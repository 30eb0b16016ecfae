"""The sections as data: rejected photos, incomplete labels, scores by protocol, split and dataset."""

from __future__ import annotations

import re
from typing import Any

from pipeline.datasets.card import parse_card
from pipeline.datasets.synthetic.cards import BOX_CARD
from pipeline.stages.report.blocks import Note, Section, Table
from pipeline.stages.report.dataset_sections import incomplete_labels_note, rejected_block
from pipeline.stages.report.html import render_page
from pipeline.stages.report.result_sections import protocols_table, splits_table

EVIL = """<script>alert(1)</script>"onload='x'&"""


def render(block: Table | Note) -> str:
    return render_page("", "", [Section("a", "", (block,))])


def score(label: str, value: float, **changes: Any) -> dict:
    row = {"split": "test", "dataset": "", "label": label, "part": "", "protocol": "voc11_50", "value": value}
    return {**row, "positives": 1, "images": 7, "low": value - 0.1, "high": value + 0.1, **changes}


def test_rejected_photos_are_counted_and_escaped() -> None:
    page = render(rejected_block([{"stage": "index", "message": EVIL, "image_id": EVIL}] * 3))
    assert "<script" not in page
    assert ">3<" in page


def test_only_the_most_frequent_reasons_are_listed() -> None:
    rows = [{"stage": "index", "message": f"reason {n}", "image_id": "b"} for n in range(14)]
    rows += [{"stage": "index", "message": "reason 13", "image_id": "a"}]
    table = rejected_block(rows)
    assert isinstance(table, Table)
    assert table.caption == "15 rejected, the 12 most frequent of 14 reasons"
    assert len(table.rows) == 12
    assert [cell.text for cell in table.rows[0]] == ["index", "reason 13", "2", "a"]


def test_no_rejected_photo_is_said() -> None:
    assert rejected_block([]) == Note("No photo was rejected.")


def test_incomplete_labels_are_said() -> None:
    complete = parse_card(BOX_CARD, "test")
    incomplete = parse_card("complete = false\n" + BOX_CARD.replace('"drawn_boxes"', '"streets"'), "test")
    note = incomplete_labels_note([complete, incomplete])
    assert note is not None
    assert note.text.startswith("The labels of streets are incomplete: some objects are not labelled, so false")
    assert incomplete_labels_note([complete]) is None


def test_scores_by_protocol_split_and_dataset() -> None:
    rows = [score("", 0.644), score("window", 0.7), score("window", 0.9, part="size XS"), score("", 0.85, split="val")]
    rows += [score("", 0.3, protocol="coco_100", low=None, high=None), score("window", 0.1, dataset="cmp")]
    rows += [
        score("window", 0.71, part="without suspicious labels"),
        score("door", 1.5, protocol="count_error_selected"),
    ]
    table = protocols_table(rows, "test", ["window", "door"])
    page = render(table)
    assert "64.4<small>54.4 to 74.4</small>" in page
    assert ("30.0" in page, "71.0" in page) == (True, True)
    shown = {number for row in table.rows for cell in row for number in re.findall(r"[\d.]+", cell.text)}
    assert not {"90.0", "85.0", "10.0", "150.0"} & shown
    names = [row[0].text for row in splits_table(rows, ["test", "val"], ["window"]).rows]
    assert names == ["test, all", "test, cmp", "val, all"]
