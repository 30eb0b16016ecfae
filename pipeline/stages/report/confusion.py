"""Which class is taken for which: every object and every chosen detection counted once.

An object is found as what it is; or as another class, by the surest chosen detection that lies on it; or missed. A
chosen detection that finds no object in this way is of an object that is found already, placed badly, or of nothing.
So a row of a class adds up to its objects, and a column of a class to its chosen detections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stages.report.html import Html, swatch, table, tag
from pipeline.storage.schemas import value_counts

__all__ = ["BACKGROUND", "DUPLICATE", "MISLOCALISED", "MISSED", "confusion_table", "count_confusion"]

# No class is called like this: these begin with a blank.
MISSED, DUPLICATE, MISLOCALISED, BACKGROUND = " missed", " found already", " placed badly", " nothing there"
ERROR_ROWS: Final = {"duplicate": DUPLICATE, "localisation": MISLOCALISED, "background": BACKGROUND}

Cells = Mapping[tuple[str, str], int]


def count_confusion(detection_matches: pa.Table, ground_truths: pa.Table) -> Counter[tuple[str, str]]:
    """Return how many there are by what is true and what is found, from the tables `detection_matches` and `ground_truths`."""
    shown, counted = (
        detection_matches.filter(detection_matches["selected"]),
        ground_truths.filter(pc.invert(ground_truths["ignore"])),
    )
    cells = Counter[tuple[str, str]]()
    for label, count in value_counts(counted.filter(counted["selected"])["label"]).items():
        cells[label, label] += count
    rest = counted.filter(pc.invert(counted["selected"]))
    left = dict(zip(rest["box_id"].to_pylist(), rest["label"].to_pylist(), strict=True))
    others = shown.filter(pc.equal(shown["outcome"], "class"))
    for row in others.sort_by([("score", "descending"), ("detection_id", "ascending")]).to_pylist():
        cells[left.pop(row["box_id"], DUPLICATE), row["label"]] += 1
    for label in left.values():
        cells[label, MISSED] += 1
    for kind, name in ERROR_ROWS.items():
        for label, count in value_counts(shown.filter(pc.equal(shown["outcome"], kind))["label"]).items():
            cells[name, label] += count
    return cells


def confusion_table(cells: Cells, classes: Sequence[str], split: str) -> Html:
    """Return the counts as a table, tinted by the share of their row, or below of their column."""
    rows = [[swatch(true), *_class_row(cells, true, classes)] for true in classes]
    shown = {label: sum(count for (_, found), count in cells.items() if found == label) for label in classes}
    for name in (DUPLICATE, MISLOCALISED, BACKGROUND):
        own = [cells.get((name, label), 0) for label in classes]
        tinted = [_cell(count, shown[label], "wrong") for label, count in zip(classes, own, strict=True)]
        rows.append([name.strip(), *tinted, "-", f"{sum(own):,}"])
    rows.append(["selected", *(f"{shown[label]:,}" for label in classes), "-", f"{sum(shown.values()):,}"])
    head = ["true", *(tag("span", "found as ", swatch(label)) for label in classes), "missed", "all"]
    return table(head, rows, f"What is true, and as what it is found: objects and chosen detections of {split}")


def _class_row(cells: Cells, label: str, classes: Sequence[str]) -> list[str]:
    own = {found: cells.get((label, found), 0) for found in (*classes, MISSED)}
    total = sum(own.values())
    tinted = [_cell(count, total, "right" if found == label else "wrong") for found, count in own.items()]
    return [*tinted, f"{total:,}"]


def _cell(count: int, total: int, kind: str) -> Html:
    share = count / total if total else 0.0
    shown = (f"{count:,}", tag("small", f"{share:.0%}".replace("%", " %"))) if count else ("0",)
    return tag("td", *shown, class_=f"tint {kind}", style=f"--share:{share:.3f}")
