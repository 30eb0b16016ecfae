"""The confusion matrix: a known answer, and sums that count everything once."""

from __future__ import annotations

import pyarrow as pa

from pipeline.stages.evaluate import stage as evaluate
from pipeline.stages.report.blocks import Section
from pipeline.stages.report.confusion import (
    BACKGROUND,
    DUPLICATE,
    MISLOCALISED,
    MISSED,
    confusion_table,
    count_confusion,
)
from pipeline.stages.report.html import render_page
from pipeline.storage.schemas import table_from_rows

from ...noise_model import make_noisy_evaluation

LABELS = ("building", "window", "door")


def match_row(
    name: str, label: str, outcome: str, box: str | None = None, selected: bool = True, score: float = 0.5
) -> dict:
    row = {"detection_id": name, "image_id": "a", "label": label, "score": score, "outcome": outcome}
    return {**row, "selected": selected, "iou": 0.0, "box_id": box}


def ground_truth_row(box: str, label: str, selected: bool = False, ignore: bool = False) -> dict:
    row = {"box_id": box, "image_id": "a", "label": label, "ignore": ignore}
    return {**row, "detected": selected, "selected": selected, "size": "M", "shape": "M"}


def test_confusion_has_the_known_answer() -> None:
    ground_truths = [
        ground_truth_row("w1", "window", True),
        ground_truth_row("w2", "window"),
        ground_truth_row("w3", "window"),
        ground_truth_row("d1", "door"),
        ground_truth_row("d2", "door", True),
        ground_truth_row("i", "door", ignore=True),
    ]
    matches = [
        match_row("1", "window", "correct", "w1"),
        match_row("2", "door", "correct", "d2"),
        match_row("3", "door", "class", "w2", score=0.4),
        match_row("4", "building", "class", "w2", score=0.9),  # the higher score decides what w2 is confused with
        match_row("5", "window", "duplicate", "w1"),
        match_row("6", "door", "class", "w1"),  # of a window that is detected as one
        match_row("7", "window", "localisation", "w3"),
        match_row("8", "door", "background"),
        match_row("9", "door", "ignored", "i"),
        match_row("10", "door", "background", selected=False),
    ]
    counts = count_confusion(
        table_from_rows("detection_matches", matches), table_from_rows("ground_truths", ground_truths)
    )
    assert counts == {
        ("window", "window"): 1,
        ("door", "door"): 1,
        ("window", "building"): 1,
        ("window", MISSED): 1,
        ("door", MISSED): 1,
        (DUPLICATE, "door"): 2,
        (DUPLICATE, "window"): 1,
        (MISLOCALISED, "window"): 1,
        (BACKGROUND, "door"): 1,
    }


def test_confusion_counts_everything_once() -> None:
    tables = evaluate.evaluate_images(make_noisy_evaluation(20, 3).data, "model", 0)
    counts = count_confusion(tables["detection_matches"], tables["ground_truths"])
    matches = tables["detection_matches"].to_pylist()
    selected = [row for row in matches if row["selected"] and row["outcome"] != "ignored"]
    for label in LABELS:
        assert sum(n for (true, _), n in counts.items() if true == label) == _count_objects(
            tables["ground_truths"], label
        )
        assert sum(n for (_, detected), n in counts.items() if detected == label) == sum(
            row["label"] == label for row in selected
        )
    correct = sum(n for (true, detected), n in counts.items() if true == detected)
    assert correct == sum(row["outcome"] == "correct" for row in selected)


def _count_objects(ground_truths: pa.Table, label: str) -> int:
    return sum(row["label"] == label and not row["ignore"] for row in ground_truths.to_pylist())


def test_confusion_table_shows_shares_and_sums() -> None:
    counts = {("window", "window"): 30, ("window", MISSED): 10, (BACKGROUND, "window"): 20}
    page = _render(confusion_table(counts, ["window"], ""))
    assert '<td class="tint right" style="--share:0.750">30<small>75 %</small></td>' in page
    assert '<td class="tint wrong" style="--share:0.250">10<small>25 %</small></td>\n<td class="number">40</td>' in page
    assert '<td class="tint wrong" style="--share:0.400">20<small>40 %</small></td>' in page
    assert "nan" not in _render(confusion_table({}, LABELS, "test"))


def _render(table) -> str:
    return render_page("", "", [Section("errors", "Errors", (table,))])
