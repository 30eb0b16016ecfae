"""The confusion matrix: every object and every selected detection counted once.

An object is detected as its own class; or as another class, that of the selected detection with the highest score on
it; or missed. A selected detection that accounts for no object in this way is a duplicate, poorly localised, or on
background. So the row of a class adds up to its objects, and the column of a class to its selected detections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stages.report.blocks import Cell, CellOrText, Table, class_cell, format_count, make_table
from pipeline.storage.schemas import value_counts

__all__ = ["BACKGROUND", "DUPLICATE", "MISLOCALISED", "MISSED", "confusion_table", "count_confusion"]

# The leading blank keeps these apart from the names of classes.
MISSED: Final = " missed"
DUPLICATE: Final = " duplicate"
MISLOCALISED: Final = " poorly localised"
BACKGROUND: Final = " background"
ERROR_ROWS: Final = {"duplicate": DUPLICATE, "localisation": MISLOCALISED, "background": BACKGROUND}

# (true class or kind of error, detected class or MISSED) to a count.
ConfusionCounts = Mapping[tuple[str, str], int]


def count_confusion(detection_matches: pa.Table, ground_truths: pa.Table) -> Counter[tuple[str, str]]:
    """Count objects and selected detections by true and detected class.

    Args:
        detection_matches: the table of this name, of the photos to count.
        ground_truths: the table of this name, of the same photos.
    """
    detections = detection_matches.filter(detection_matches["selected"])
    objects = ground_truths.filter(pc.invert(ground_truths["ignore"]))
    counts = Counter[tuple[str, str]]()
    for label, count in value_counts(objects.filter(objects["selected"])["label"]).items():
        counts[label, label] += count
    undetected = objects.filter(pc.invert(objects["selected"]))
    label_of = dict(zip(undetected["box_id"].to_pylist(), undetected["label"].to_pylist(), strict=True))
    wrong_class = detections.filter(pc.equal(detections["outcome"], "class"))
    for row in wrong_class.sort_by([("score", "descending"), ("detection_id", "ascending")]).to_pylist():
        counts[label_of.pop(row["box_id"], DUPLICATE), row["label"]] += 1
    for label in label_of.values():
        counts[label, MISSED] += 1
    for outcome, name in ERROR_ROWS.items():
        for label, count in value_counts(detections.filter(pc.equal(detections["outcome"], outcome))["label"]).items():
            counts[name, label] += count
    return counts


def confusion_table(counts: ConfusionCounts, classes: Sequence[str], split: str) -> Table:
    """Make the table of the counts; a tint shows the share of the row, or for the kinds of errors of the column."""
    rows: list[list[CellOrText]] = [[class_cell(label), *_class_row(counts, label, classes)] for label in classes]
    totals = {label: sum(count for (_, detected), count in counts.items() if detected == label) for label in classes}
    for name in ERROR_ROWS.values():
        errors = {label: counts.get((name, label), 0) for label in classes}
        cells = [_count_cell(count, totals[label], "wrong") for label, count in errors.items()]
        rows.append([name.strip(), *cells, "-", format_count(sum(errors.values()))])
    rows.append(
        ["selected", *(format_count(totals[label]) for label in classes), "-", format_count(sum(totals.values()))]
    )
    headers: list[CellOrText] = ["ground truth", *(Cell("detected as ", label) for label in classes), "missed", "all"]
    return make_table(headers, rows, f"Confusion matrix: objects and selected detections of {split}")


def _class_row(counts: ConfusionCounts, label: str, classes: Sequence[str]) -> list[CellOrText]:
    by_detected = {detected: counts.get((label, detected), 0) for detected in (*classes, MISSED)}
    total = sum(by_detected.values())
    cells = [
        _count_cell(count, total, "right" if detected == label else "wrong") for detected, count in by_detected.items()
    ]
    return [*cells, format_count(total)]


def _count_cell(count: int, total: int, tint: Literal["right", "wrong"]) -> Cell:
    share = count / total if total else 0.0
    small = f"{share:.0%}".replace("%", " %") if count else ""
    return Cell(format_count(count), small=small, tint=tint, share=share)
