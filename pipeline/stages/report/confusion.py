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

__all__ = ["AGAIN", "BADLY", "MISSED", "NOTHING", "confusion", "confusion_table"]

# No class is called like this: these begin with a blank.
MISSED, AGAIN, BADLY, NOTHING = " missed", " found already", " placed badly", " nothing there"
EXTRA: Final = {"duplicate": AGAIN, "localisation": BADLY, "background": NOTHING}

Cells = Mapping[tuple[str, str], int]


def confusion(verdicts: pa.Table, truths: pa.Table) -> Counter[tuple[str, str]]:
    """Return how many there are by what is true and what is found, from the tables `verdicts` and `truths`."""
    shown, counted = verdicts.filter(verdicts["chosen"]), truths.filter(pc.invert(truths["ignore"]))
    cells = Counter[tuple[str, str]]()
    for label, count in _counts(counted.filter(counted["chosen"])["label"]).items():
        cells[label, label] += count
    rest = counted.filter(pc.invert(counted["chosen"]))
    left = dict(zip(rest["box_id"].to_pylist(), rest["label"].to_pylist(), strict=True))
    others = shown.filter(pc.equal(shown["kind"], "class"))
    for row in others.sort_by([("score", "descending"), ("detection_id", "ascending")]).to_pylist():
        cells[left.pop(row["box_id"], AGAIN), row["label"]] += 1
    for label in left.values():
        cells[label, MISSED] += 1
    for kind, name in EXTRA.items():
        for label, count in _counts(shown.filter(pc.equal(shown["kind"], kind))["label"]).items():
            cells[name, label] += count
    return cells


def confusion_table(cells: Cells, classes: Sequence[str], split: str) -> Html:
    """Return the counts as a table, tinted by the share of their row, or below of their column."""
    rows = [[swatch(true), *_true_row(cells, true, classes)] for true in classes]
    shown = {label: sum(count for (_, found), count in cells.items() if found == label) for label in classes}
    for name in (AGAIN, BADLY, NOTHING):
        own = [cells.get((name, label), 0) for label in classes]
        tinted = [_cell(count, shown[label], "wrong") for label, count in zip(classes, own, strict=True)]
        rows.append([name.strip(), *tinted, "-", f"{sum(own):,}"])
    rows.append(["chosen", *(f"{shown[label]:,}" for label in classes), "-", f"{sum(shown.values()):,}"])
    head = ["true", *(tag("span", "found as ", swatch(label)) for label in classes), "missed", "all"]
    return table(head, rows, f"What is true, and as what it is found: objects and chosen detections of {split}")


def _true_row(cells: Cells, true: str, classes: Sequence[str]) -> list[str]:
    own = {found: cells.get((true, found), 0) for found in (*classes, MISSED)}
    total = sum(own.values())
    tinted = [_cell(count, total, "right" if found == true else "wrong") for found, count in own.items()]
    return [*tinted, f"{total:,}"]


def _cell(count: int, of: int, kind: str) -> Html:
    share = count / of if of else 0.0
    shown = (f"{count:,}", tag("small", f"{share:.0%}".replace("%", " %"))) if count else ("0",)
    return tag("td", *shown, class_=f"tint {kind}", style=f"--share:{share:.3f}")


def _counts(labels: pa.ChunkedArray) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(labels).to_pylist()}
