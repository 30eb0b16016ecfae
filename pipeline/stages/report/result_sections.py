"""The report's sections on the results: scores, errors, thresholds, photos to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.models.score_format import format_ap, format_ap_interval
from pipeline.stages.evaluate.scores import ALL, CLEAN_PART, HEADLINE, headline_rows
from pipeline.stages.report.blocks import (
    Cell,
    CellOrText,
    DefinitionList,
    MissingStage,
    Note,
    Section,
    Table,
    Tile,
    Tiles,
    class_cell,
    format_count,
    format_percent,
    make_section,
    make_table,
    short_digest,
)
from pipeline.stages.report.confusion import confusion_table, count_confusion
from pipeline.stages.report.pictures import ImageLimit, read_chart, read_sheet
from pipeline.stages.report.work_folder import WorkFolder

__all__ = [
    "errors_section",
    "headline_section",
    "operating_point_section",
    "photos_section",
    "protocols_table",
    "scores_section",
    "splits_table",
]

Rows = Sequence[Mapping[str, Any]]
PROTOCOLS: Final = {
    HEADLINE: "VOC, 11-point, IoU .5",
    "voc_50": "VOC, all points, IoU .5",
    "voc11_75": "VOC, 11-point, IoU .75",
    "coco_100": "COCO, IoU .5 to .95",
    "coco_500": "COCO, up to 500 detections per photo",
}
ERROR_TITLES: Final = {
    "duplicate": "duplicate",
    "localisation": "poorly localised",
    "class": "wrong class",
    "background": "background",
    "missed": "missed",
}
SUSPICION_TITLES: Final = {
    "missing": "Suspicious labels: probably an object without a label",
    "undetected": "Suspicious labels: a label that no detection matches",
    "class": "Suspicious labels: probably another class",
}


def headline_section(work: WorkFolder) -> Section:
    """Show the most important results: the model and its precision, or which stages are still to run."""
    blocks = _evaluation_headline(work) if work.has_run("evaluate") else _progress_headline(work)
    facts = _evaluation_facts(work) if work.has_run("evaluate") else _index_facts(work)
    next_commands = None if work.has_run("evaluate") else work.next_commands()
    return make_section("headline", "Summary", *blocks, *work.stale_stages(), next_commands, facts)


def _evaluation_headline(work: WorkFolder) -> list[Note | Tiles]:
    rows = headline_rows(work.rows("evaluate", "scores"), work.splits[0])
    tiles = [
        Tile(
            format_ap(rows[label]["value"]),
            name="" if label else "mAP",
            label=label,
            detail=format_ap_interval(rows[label]["low"], rows[label]["high"]),
        )
        for label in (ALL, *work.classes)
        if label in rows
    ]
    protocol = f"VOC AP (11-point) on {work.splits[0]} at IoU .5, in percent, with 95 % bootstrap intervals."
    return [Note(protocol), Tiles(tuple(tiles))]


def _progress_headline(work: WorkFolder) -> list[Tiles]:
    tables = {"index": ("images", "photos"), "extract": ("boxes", "labelled boxes")}
    tiles = [
        Tile(format_count(work.count_rows(stage, table)), name=name)
        for stage, (table, name) in tables.items()
        if work.has_run(stage)
    ]
    return [Tiles(tuple(tiles))]


def _evaluation_facts(work: WorkFolder) -> DefinitionList:
    counts = Counter(work.table("evaluate", "evaluated_images", ["split"])["split"].to_pylist())
    manifest = work.folder("evaluate").require_manifest()
    size = " x ".join(map(str, work.model.get("priors", {}).get("input_size", ())))
    backbone = work.model.get("backbone", {}).get("name", "")
    return DefinitionList(
        (
            ("model", f"SSD on {backbone}, input {size}" if backbone else ""),
            ("model digest", short_digest(str(manifest.settings.get("model", "")))),
            ("evaluated photos", ", ".join(f"{counts[split]:,} {split}" for split in work.splits)),
            ("date of the tables", work.date("evaluate")),
            ("digest of the tables", short_digest(manifest.digest)),
            ("work folder", str(work.path)),
        )
    )


def _index_facts(work: WorkFolder) -> DefinitionList:
    digest = short_digest(work.folder("index").require_manifest().digest)
    return DefinitionList(
        (("date of the tables", work.date("index")), ("index digest", digest), ("work folder", str(work.path)))
    )


def scores_section(work: WorkFolder) -> Section:
    """Show the quality of the detections, by protocol, split, dataset, size and shape."""
    if not work.has_run("evaluate"):
        return make_section("scores", "Scores", _missing_evaluation(work))
    rows = work.rows("evaluate", "scores")
    folder = work.folder("evaluate").path / "figures"
    split = work.splits[0]
    return make_section(
        "scores",
        "Scores",
        protocols_table(rows, split, work.classes),
        splits_table(rows, work.splits, work.classes),
        read_chart(folder / "precision_recall.png", f"Precision and recall at IoU .5; solid line: {split}"),
        read_chart(folder / "scores.png", f"Precision, recall and F1 by score threshold; {split}"),
        read_chart(folder / "calibration.png", "Calibration: the probability that a detection is correct, by score"),
        read_chart(folder / "by_size.png", f"Normalised average precision and recall by size of the object; {split}"),
        read_chart(folder / "by_shape.png", f"Normalised average precision and recall by shape of the object; {split}"),
    )


def protocols_table(rows: Rows, split: str, classes: Sequence[str]) -> Table:
    """Make the table of average precision by protocol and class on one split."""
    other_names = {row["protocol"]: row["protocol"] for row in rows if row["protocol"].startswith(("voc", "coco"))}
    rows_of = {name: _select_rows(rows, split, protocol=name) for name in {**PROTOCOLS, **other_names}}
    cells: list[list[CellOrText]] = [
        [PROTOCOLS.get(name, name), *_class_cells(selected, classes)] for name, selected in rows_of.items() if selected
    ]
    if clean_rows := _select_rows(rows, split, part=CLEAN_PART):
        cells.insert(1, [f"{PROTOCOLS[HEADLINE]}, without suspicious labels", *_class_cells(clean_rows, classes)])
    headers: list[CellOrText] = ["protocol", *map(class_cell, (ALL, *classes))]
    return make_table(headers, cells, f"Average precision on {split}, in percent", 0)


def splits_table(rows: Rows, splits: Sequence[str], classes: Sequence[str]) -> Table:
    """Make the table of the headline score by split, dataset and class."""
    cells: list[list[CellOrText]] = []
    for split in splits:
        split_rows = [
            row for row in rows if row["split"] == split and row["protocol"] == HEADLINE and row["part"] == ALL
        ]
        for dataset in sorted({row["dataset"] for row in split_rows}):
            selected = [row for row in split_rows if row["dataset"] == dataset]
            photos = format_count(selected[0]["images"])
            cells.append([f"{split}, {dataset or 'all'}", photos, *_class_cells(selected, classes)])
    headers: list[CellOrText] = ["split, dataset", "photos", *map(class_cell, (ALL, *classes))]
    return make_table(headers, cells, f"Average precision by split and dataset, in percent: {PROTOCOLS[HEADLINE]}")


def _select_rows(rows: Rows, split: str, protocol: str = HEADLINE, part: str = ALL) -> list[Mapping[str, Any]]:
    """Select the scores of all datasets together, of one split, protocol and part."""
    key = (split, ALL, part, protocol)
    return [row for row in rows if (row["split"], row["dataset"], row["part"], row["protocol"]) == key]


def _class_cells(rows: Rows, classes: Sequence[str]) -> list[Cell]:
    """Make the cells of the mean and of each class, each with its interval."""
    row_of = {row["label"]: row for row in rows}
    return [_score_cell(row_of.get(label)) for label in (ALL, *classes)]


def _score_cell(row: Mapping[str, Any] | None) -> Cell:
    return Cell(format_ap(row["value"]), small=format_ap_interval(row["low"], row["high"])) if row else Cell("-")


def errors_section(work: WorkFolder) -> Section:
    """Show the errors: which class is detected as which, and how much each kind of error costs."""
    if not work.has_run("evaluate"):
        return make_section("errors", "Errors", _missing_evaluation(work))
    split = work.splits[0]
    images = work.table("evaluate", "evaluated_images", ["image_id", "split"])
    image_ids = images["image_id"].filter(pc.equal(images["split"], split))
    counts = count_confusion(
        _filter_images(work.table("evaluate", "detection_matches"), image_ids),
        _filter_images(work.table("evaluate", "ground_truths"), image_ids),
    )
    breakdown = [row for row in work.rows("evaluate", "error_breakdown") if row["split"] == split]
    caption = f"Selected detections of {split} by outcome, and missed objects"
    return make_section(
        "errors",
        "Errors",
        confusion_table(counts, work.classes, split),
        error_gains_table(breakdown, work.classes, split),
        read_chart(work.folder("evaluate").path / "figures" / "error_breakdown.png", caption),
    )


def error_gains_table(rows: Rows, classes: Sequence[str], split: str) -> Table:
    """Make the table of what average precision would gain without each kind of error, and of their counts."""
    row_of = {(row["kind"], row["label"]): row for row in rows}
    cells: list[list[CellOrText]] = [
        [title, *(_error_gain_cell(row_of.get((kind, label))) for label in classes)]
        for kind, title in ERROR_TITLES.items()
    ]
    caption = f"Gain in average precision without each kind of error, in points; small: number of errors; {split}"
    return make_table(["error", *map(class_cell, classes)], cells, caption)


def _error_gain_cell(row: Mapping[str, Any] | None) -> Cell:
    return Cell(format_ap(row["ap_gain"]), small=format_count(row["count"])) if row else Cell("-")


def _filter_images(table: pa.Table, image_ids: pa.ChunkedArray) -> pa.Table:
    return table.filter(pc.is_in(table["image_id"], image_ids.combine_chunks()))


def operating_point_section(work: WorkFolder) -> Section:
    """Show the thresholds, and how well the detector counts with them."""
    anchor, title = "operating", "Operating point"
    if not work.has_run("evaluate"):
        return make_section(anchor, title, _missing_evaluation(work))
    point = work.operating_point()
    split = work.splits[0]
    rows = [row for row in work.rows("evaluate", "scores") if row["split"] == split]
    thresholds = thresholds_table(point) if point.get("classes") else None
    return make_section(anchor, title, thresholds, counting_table(rows, work.classes, split))


def thresholds_table(point: Mapping[str, Any]) -> Table:
    """Make the table of the best threshold of each class, with its scores on the photos that it is fitted on."""
    metrics = ("precision", "recall", "f1")
    cells: list[list[CellOrText]] = [
        [
            class_cell(label),
            f"{class_point['threshold']:.2f}",
            *(format_percent(class_point[name]) for name in metrics),
        ]
        for label, class_point in point["classes"].items()
    ]
    caption = f"Score threshold with the best F1, fitted on {point['photos']:,} photos of {point['split']}"
    return make_table(["class", "threshold", "precision", "recall", "F1"], cells, caption)


def counting_table(rows: Rows, classes: Sequence[str], split: str) -> Table | None:
    """Make the table of count errors: of the selected detections, and of those above one threshold."""
    row_of = {(row["label"], row["protocol"]): row for row in rows if row["protocol"].startswith("count_error_")}
    if not row_of:
        return None
    protocols = [f"count_error_{name}" for name in ("selected", "threshold", "gain")]
    cells: list[list[CellOrText]] = [
        [class_cell(label), *(_count_error_cell(row_of.get((label, protocol))) for protocol in protocols)]
        for label in (*classes, ALL)
    ]
    headers: list[CellOrText] = ["class", "selected", "one threshold", "gain"]
    return make_table(headers, cells, f"Mean absolute count error per photo, on {split}")


def _count_error_cell(row: Mapping[str, Any] | None) -> Cell:
    if row is None:
        return Cell("-")
    interval = "" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
    return Cell(f"{row['value']:.2f}", small=interval)


def photos_section(work: WorkFolder, limit: ImageLimit) -> Section:
    """Show sheets of photos: detections, the worst photos of each class, and suspicious labels."""
    anchor, title = "photos", "Photos to look at"
    sheet = work.detections.path / "previews" / "contact_sheet.jpg"
    detections = read_sheet(sheet, "Detections on photos that were not used in training", limit)
    if not work.has_run("evaluate"):
        return make_section(anchor, title, detections, _missing_evaluation(work))
    folder = work.folder("evaluate").path / "previews"
    suspicious = Counter(row["kind"] for row in work.rows("evaluate", "suspicious_labels"))
    worst_photos = [
        read_sheet(folder / f"worst_{label}.jpg", f"Photos with most errors on {label}; errors are crossed out", limit)
        for label in work.classes
    ]
    suspicious_labels = [
        read_sheet(
            folder / f"labels_{kind}.jpg", f"{SUSPICION_TITLES.get(kind, kind)}; {suspicious[kind]:,} in all", limit
        )
        for kind in sorted(suspicious)
    ]
    return make_section(anchor, title, detections, *worst_photos, *suspicious_labels)


def _missing_evaluation(work: WorkFolder) -> MissingStage | None:
    return work.missing_stage_note("extract", "describe", "priors", "train", "detect", "evaluate")
