"""The report's sections on what a detector finds: scores, errors, where to draw the line, photos to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.stages.evaluate.scores import ALL, HEADLINE, headline_rows
from pipeline.stages.report.confusion import confusion_table, count_confusion
from pipeline.stages.report.html import (
    Html,
    ImageLimit,
    Section,
    definition_list,
    figure_tiles,
    format_interval,
    format_points,
    join_html,
    note,
    picture,
    short_digest,
    swatch,
    table,
    tag,
)
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
CLEAN_PART: Final = "without suspects"
PROTOCOLS: Final = {
    HEADLINE: "VOC, 11 points, IoU .5",
    "voc_50": "VOC, all points, IoU .5",
    "voc11_75": "VOC, 11 points, IoU .75",
    "coco_100": "COCO, IoU .5 to .95",
    "coco_500": "COCO, up to 500 a photo",
}
ERROR_TITLES: Final = {
    "duplicate": "found twice",
    "localisation": "placed badly",
    "class": "of another class",
    "background": "nothing there",
    "missed": "missed",
}
SUSPICION_TITLES: Final = {
    "missing": "Doubtful labels: surely something, and no label",
    "undetected": "Doubtful labels: a label that nothing finds",
    "class": "Doubtful labels: surely of another class",
}


def headline_section(work: WorkFolder) -> Section:
    """Return what to know first: the model and its precision, or how far the work has come."""
    warnings = [note(sentence, kind="warning") for sentence in work.stale_stages()]
    if work.has_run("evaluate"):
        rows = headline_rows(work.rows("evaluate", "scores"), work.splits[0])
        mean = [row for label, row in rows.items() if label == ALL]
        each = [rows[label] for label in work.classes if label in rows]
        tiles = [
            (_score_name(row["label"]), format_points(row["value"]), format_interval(row["low"], row["high"]))
            for row in [*mean, *each]
        ]
        first = note(f"Average precision on {work.splits[0]}: VOC, 11 points, IoU .5, of 100; 95 % interval below.")
        body = join_html(first, figure_tiles(tiles), *warnings, definition_list(_evaluation_facts(work)))
    else:
        stages = [stage for stage in ("index", "extract") if work.has_run(stage)]
        tables = {"index": "images", "extract": "boxes"}
        numbers = [sum(file.rows for file in work.folder(s).require_manifest().files(tables[s])) for s in stages]
        tiles = [(name, f"{number:,}", "") for name, number in zip(("photos", "labelled boxes"), numbers, strict=False)]
        body = join_html(figure_tiles(tiles), *warnings, work.next_commands(), definition_list(_index_facts(work)))
    return Section("headline", "In short", body)


def _score_name(label: str) -> str:
    return swatch(label) if label else "mAP"


def _evaluation_facts(work: WorkFolder) -> list[tuple[str, str]]:
    judged = work.table("evaluate", "evaluated_images", ["split"])["split"]
    counts = Counter(judged.to_pylist())
    manifest, model = work.folder("evaluate").require_manifest(), work.model
    size = " x ".join(map(str, model.get("priors", {}).get("input_size", ())))
    backbone = model.get("backbone", {}).get("name", "")
    return [
        ("model", f"SSD on {backbone}, input {size}" if backbone else ""),
        ("model digest", short_digest(str(manifest.settings.get("model", "")))),
        ("photos judged", ", ".join(f"{counts[split]:,} {split}" for split in work.splits)),
        ("tables of", work.date("evaluate")),
        ("tables digest", short_digest(manifest.digest)),
        ("work folder", str(work.path)),
    ]


def _index_facts(work: WorkFolder) -> list[tuple[str, str]]:
    digest = short_digest(work.folder("index").require_manifest().digest)
    return [("tables of", work.date("index")), ("index digest", digest), ("work folder", str(work.path))]


def scores_section(work: WorkFolder) -> Section:
    """Return how good the detections are, by protocol, split, dataset, size and shape."""
    if not work.has_run("evaluate"):
        return Section("scores", "Scores", _missing_stage_note(work))
    rows, place = work.rows("evaluate", "scores"), work.folder("evaluate").path / "figures"
    split = work.splits[0]
    parts = [
        protocols_table(rows, split, work.classes),
        splits_table(rows, work.splits, work.classes),
        picture(place / "precision_recall.png", f"Precision and recall at IoU .5; full: {split}"),
        picture(place / "scores.png", f"Precision, recall and F1 from each score on; {split}"),
        picture(place / "calibration.png", "What a score is worth: the chance that the detection is right"),
        picture(place / "by_size.png", f"Normalised average precision and recall by size of the object; {split}"),
        picture(place / "by_shape.png", f"Normalised average precision and recall by shape of the object; {split}"),
    ]
    return Section("scores", "Scores", join_html(*parts))


def protocols_table(rows: Rows, split: str, classes: Sequence[str]) -> Html:
    """Return average precision by protocol and class on one split."""
    named = {row["protocol"]: row["protocol"] for row in rows if row["protocol"].startswith(("voc", "coco"))}
    known = [name for name in {**PROTOCOLS, **named} if any(_is_row(row, split, protocol=name) for row in rows)]
    cells = [
        [PROTOCOLS.get(name, name), *_by_class([row for row in rows if _is_row(row, split, protocol=name)], classes)]
        for name in known
    ]
    clean = [row for row in rows if _is_row(row, split, part=CLEAN_PART)]
    if clean:
        cells.insert(1, [f"{PROTOCOLS[HEADLINE]}, without doubtful labels", *_by_class(clean, classes)])
    return table(["protocol", *map(swatch, ("", *classes))], cells, f"Average precision on {split}, of 100", [0])


def splits_table(rows: Rows, splits: Sequence[str], classes: Sequence[str]) -> Html:
    """Return the headline figure by split, dataset and class."""
    cells = []
    for split in splits:
        own = [row for row in rows if row["split"] == split and row["protocol"] == HEADLINE and row["part"] == ALL]
        for dataset in sorted({row["dataset"] for row in own}):
            part = [row for row in own if row["dataset"] == dataset]
            cells.append([f"{split}, {dataset or 'all'}", f"{part[0]['images']:,}", *_by_class(part, classes)])
    head = ["photos of", "photos", *map(swatch, ("", *classes))]
    return table(head, cells, f"By split and dataset: {PROTOCOLS[HEADLINE]}")


def _is_row(row: Mapping[str, Any], split: str, protocol: str = HEADLINE, part: str = ALL) -> bool:
    return (row["split"], row["dataset"], row["part"], row["protocol"]) == (split, ALL, part, protocol)


def _by_class(rows: Rows, classes: Sequence[str]) -> list[str]:
    """Return cells of the mean and of each class, each with its interval."""
    own = {row["label"]: row for row in rows}
    return [_score_cell(own.get(label)) for label in (ALL, *classes)]


def _score_cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    return join_html(format_points(row["value"]), tag("small", format_interval(row["low"], row["high"])))


def errors_section(work: WorkFolder) -> Section:
    """Return what goes wrong: which class is taken for which, and what each kind of error costs."""
    if not work.has_run("evaluate"):
        return Section("errors", "Errors", _missing_stage_note(work))
    split, place = work.splits[0], work.folder("evaluate").path / "figures"
    judged = work.table("evaluate", "evaluated_images", ["image_id", "split"])
    images = judged["image_id"].filter(pc.equal(judged["split"], split))
    cells = count_confusion(
        *(_filter_images(work.table("evaluate", name), images) for name in ("detection_matches", "ground_truths"))
    )
    diagnosis = [row for row in work.rows("evaluate", "error_breakdown") if row["split"] == split]
    parts = [
        confusion_table(cells, work.classes, split),
        error_gains_table(diagnosis, work.classes, split),
        picture(place / "diagnosis.png", f"Chosen detections of {split} by what they are, and what is missed"),
    ]
    return Section("errors", "Errors", join_html(*parts))


def error_gains_table(rows: Rows, classes: Sequence[str], split: str) -> Html:
    """Return what average precision would gain without each kind of error, and how many there are."""
    own = {(row["kind"], row["label"]): row for row in rows}
    cells = [
        [name, *(_error_gain_cell(own.get((kind, label))) for label in classes)] for kind, name in ERROR_TITLES.items()
    ]
    caption = f"What each error costs: points of average precision without it; small: how many are chosen; {split}"
    return table(["error", *map(swatch, classes)], cells, caption)


def _error_gain_cell(row: Mapping[str, Any] | None) -> str:
    return join_html(format_points(row["ap_gain"]), tag("small", f"{row['count']:,}")) if row else "-"


def _filter_images(rows: pa.Table, images: pa.ChunkedArray) -> pa.Table:
    return rows.filter(pc.is_in(rows["image_id"], images.combine_chunks()))


def operating_point_section(work: WorkFolder) -> Section:
    """Return from which score on to believe the detector, and how well it counts."""
    if not work.has_run("evaluate"):
        return Section("operating", "Operating point", _missing_stage_note(work))
    point, rows = work.operating_point(), work.rows("evaluate", "scores")
    parts = [thresholds_table(point)] if point.get("classes") else []
    split = work.splits[0]
    parts.append(counting_table([row for row in rows if row["split"] == split], work.classes, split))
    return Section("operating", "Operating point", join_html(*parts))


def thresholds_table(point: Mapping[str, Any]) -> Html:
    """Return the best threshold of each class, with what it gives on the photos that it is fitted on."""
    names = ("precision", "recall", "f1")
    cells = [
        [swatch(label), f"{own['threshold']:.2f}", *(format_points(own[name]) for name in names)]
        for label, own in point["classes"].items()
    ]
    caption = f"The score from which on F1 is best, fitted on {point['photos']:,} photos of {point['split']}"
    return table(["class", "threshold", "precision", "recall", "F1"], cells, caption)


def counting_table(rows: Rows, classes: Sequence[str], split: str) -> Html:
    """Return by how many objects a photo's count is off: chosen photo by photo, and by one threshold."""
    own = {(row["label"], row["protocol"]): row for row in rows if row["protocol"].startswith("count_error_")}
    kinds = [f"count_error_{name}" for name in ("selected", "threshold", "gain")]
    cells = [
        [swatch(label) if label else "mean", *(_count_error_cell(own.get((label, kind))) for kind in kinds)]
        for label in (*classes, ALL)
    ]
    if not own:
        return Html("")
    head = ["class", "chosen by photo", "one threshold", "gain"]
    return table(head, cells, f"Objects miscounted in a photo, on average, on {split}")


def _count_error_cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "-"
    around = "" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
    return join_html(f"{row['value']:.2f}", tag("small", around))


def photos_section(work: WorkFolder, limit: ImageLimit) -> Section:
    """Return sheets of photos: what was found, where most is wrong, and labels to doubt."""
    found = work.detections.path / "previews" / "contact_sheet.jpg"
    parts = [picture(found, "Detections on photos that were not learnt from", limit)]
    if work.has_run("evaluate"):
        place = work.folder("evaluate").path / "previews"
        doubts = Counter(row["kind"] for row in work.rows("evaluate", "suspicious_labels"))
        parts += [
            picture(place / f"worst_{label}.jpg", f"Most errors on {label}; errors are crossed", limit)
            for label in work.classes
        ]
        parts += [
            picture(place / f"labels_{kind}.jpg", f"{SUSPICION_TITLES.get(kind, kind)}; {doubts[kind]:,} in all", limit)
            for kind in sorted(doubts)
        ]
    return Section(
        "photos",
        "Photos to look at",
        join_html(*parts, Html("") if work.has_run("evaluate") else _missing_stage_note(work)),
    )


def _missing_stage_note(work: WorkFolder) -> Html:
    return work.missing_stage_note("extract", "describe", "priors", "train", "detect", "evaluate")
