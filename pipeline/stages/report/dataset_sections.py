"""The report's sections on the training data and the training: photos, boxes, priors, training runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import pyarrow.parquet as pq

from pipeline.datasets.card import SPLITS, Card
from pipeline.datasets.labels import class_order
from pipeline.models.score_format import format_ap
from pipeline.stages.extract.upstream import read_cards
from pipeline.stages.report.blocks import (
    Cell,
    CellOrText,
    DefinitionList,
    Figure,
    Note,
    Section,
    SelectedPriors,
    Table,
    class_cell,
    format_count,
    format_percent,
    make_section,
    make_table,
    short_digest,
)
from pipeline.stages.report.pictures import ImageLimit, read_chart, read_sheet
from pipeline.stages.report.work_folder import WorkFolder
from pipeline.storage.schemas import conform_to_schema, value_counts

__all__ = [
    "dataset_section",
    "histograms_section",
    "incomplete_labels_note",
    "photos_table",
    "priors_section",
    "rejected_block",
    "training_section",
]

MAX_REASONS: Final = 12
HISTOGRAMS: Final = {
    "aspect_ratio": "Aspect ratio (width over height) of the boxes, by class",
    "area_ratio": "Share of the photo's area that a box covers, by class",
    "objects_per_image": "Objects per photo, by class",
    "sizes_at_300": "Width and height of the boxes at an input of 300 x 300 pixels; larger dots are more boxes",
}

Rows = Sequence[Mapping[str, Any]]


def dataset_section(work: WorkFolder, limit: ImageLimit) -> Section:
    """Show the photos and boxes, what was rejected, and problems of the labels."""
    images = work.table("index", "images", ["dataset", "split"])
    counts = images.group_by(["dataset", "split"]).aggregate([([], "count_all")]).to_pylist()
    photos = {(row["dataset"], row["split"]): row["count_all"] for row in counts}
    names = sorted({name for name, _ in photos})
    cards = read_cards(work.folder("index"))
    titles = {name: ", ".join(filter(None, (card.title, card.licence))) for name, card in cards.items()}
    has_boxes = work.has_run("extract")
    return make_section(
        "dataset",
        "Dataset",
        photos_table(photos, titles),
        incomplete_labels_note([card for name, card in cards.items() if name in names]),
        boxes_table({name: _box_counts(work, name) for name in names}) if has_boxes else None,
        rejected_block(_rejected_rows(work)),
        _findings_block(work.rows("describe", "findings")) if work.has_run("describe") else None,
        _label_sheet(work, names, photos, limit),
        work.missing_stage_note("extract"),
    )


def photos_table(counts: Mapping[tuple[str, str], int], titles: Mapping[str, str]) -> Table:
    """Make the table of photos by dataset and split, from their counts."""
    known_splits = {split for _, split in counts}
    splits = [*(split for split in SPLITS if split in known_splits), *sorted(known_splits - {*SPLITS})]
    names = sorted({name for name, _ in counts})
    rows = {name: [counts.get((name, split), 0) for split in splits] for name in names}
    if len(names) > 1:
        rows["all"] = [sum(column) for column in zip(*rows.values(), strict=True)]
    cells: list[list[CellOrText]] = [
        [Cell(name, small=titles.get(name, "")), *map(format_count, numbers), format_count(sum(numbers))]
        for name, numbers in rows.items()
    ]
    return make_table(["dataset", *splits, "photos"], cells, "Photos by dataset and split")


def incomplete_labels_note(cards: Iterable[Card]) -> Note | None:
    """Warn of datasets whose card says that their labels are incomplete."""
    names = [card.name for card in cards if not card.complete]
    if not names:
        return None
    return Note(
        f"The labels of {', '.join(names)} are incomplete: some objects are not labelled, so false positives may be "
        "correct detections."
    )


def boxes_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """Make the table of boxes by dataset and class."""
    labels = class_order({label for by_label in counts.values() for label in by_label})
    rows = [[name, *(format_count(by_label.get(label, 0)) for label in labels)] for name, by_label in counts.items()]
    return make_table(["dataset", *map(class_cell, labels)], rows, "Boxes by dataset and class")


def rejected_block(rows: Rows) -> Table | Note:
    """Make the table of rejected photos by reason, the most frequent first."""
    photos_by_reason: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        photos_by_reason.setdefault((row["stage"], row["message"]), []).append(row["image_id"])
    if not photos_by_reason:
        return Note("No photo was rejected.")
    reasons = sorted(photos_by_reason.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    cells: list[list[CellOrText]] = [
        [stage, message, format_count(len(photos)), min(photos)] for (stage, message), photos in reasons[:MAX_REASONS]
    ]
    extent = f", the {MAX_REASONS} most frequent of {len(reasons)} reasons" if len(reasons) > MAX_REASONS else ""
    return make_table(["stage", "reason", "photos", "example"], cells, f"{len(rows):,} rejected{extent}")


def histograms_section(work: WorkFolder) -> Section:
    """Show the figures of `describe`."""
    folder = work.folder("describe").path / "figures"
    figures = [read_chart(folder / f"{name}.png", caption) for name, caption in HISTOGRAMS.items()]
    return make_section("shapes", "Shapes and sizes", *figures, work.missing_stage_note("extract", "describe"))


def priors_section(work: WorkFolder) -> Section:
    """Show how each set of priors covers the objects, and which set was selected."""
    anchor, title = "priors", "Priors and coverage"
    if not work.has_run("priors"):
        return make_section(anchor, title, work.missing_stage_note("extract", "describe", "priors"))
    (choice,) = work.rows("priors", "choice")
    counts = {row["name"]: row["priors"] for row in work.rows("priors", "specs")}
    caption = "Share of objects with a prior at IoU .5 (light) and .7 (full), and positive priors per object"
    return make_section(
        anchor,
        title,
        SelectedPriors(choice["name"], choice["reason"]),
        coverage_table(work.rows("priors", "coverage"), counts, choice["name"], choice["split"]),
        read_chart(work.folder("priors").path / "figures" / "coverage.png", caption),
        work.missing_stage_note("extract", "describe", "priors"),
    )


def coverage_table(rows: Rows, counts: Mapping[str, int], selected: str, fallback: str) -> Table:
    """Make the table of the share of objects that each set of priors covers, by class.

    Args:
        rows: of the table `coverage`.
        counts: the number of priors of each set.
        selected: the name of the selected set.
        fallback: the split to show if there is no test split.
    """
    split = "test" if any(row["split"] == "test" for row in rows) else fallback
    row_of = {(row["name"], row["label"]): row for row in rows if row["split"] == split}
    labels = class_order({label for _, label in row_of})
    names = list(counts)
    cells: list[list[CellOrText]] = [
        [
            Cell(name, badge="selected" if name == selected else ""),
            format_count(counts[name]),
            *(_coverage_cell(row_of.get((name, label))) for label in labels),
        ]
        for name in names
    ]
    caption = f"Objects covered at IoU .5, in percent; small: positive priors per object; on {split}"
    return make_table(["priors", "boxes", *map(class_cell, labels)], cells, caption, names.index(selected))


def training_section(work: WorkFolder, limit: ImageLimit) -> Section:
    """Show how the model was trained."""
    anchor, title = "training", "Training"
    if not work.has_run("train"):
        return make_section(anchor, title, work.missing_stage_note("extract", "describe", "priors", "train"))
    folder = work.training_run / "figures"
    return make_section(
        anchor,
        title,
        _run_settings(work.trained_model, work.history),
        training_scores_table(work.history),
        read_chart(folder / "losses.png", "Loss and its two terms by epoch, on training and validation photos"),
        read_chart(folder / "precision.png", "Average precision on validation photos by epoch"),
        read_sheet(folder / "augmented.png", "Training photos after augmentation, with their labels", limit),
    )


def training_scores_table(history: Mapping[str, Any]) -> Table | None:
    """Make the table of the average precision that the training measured at its best epoch."""
    scores = {split: history[split] for split in ("val", "test") if "map50" in (history.get(split) or {})}
    if not scores:
        return None
    prefix = "ap50."
    labels = class_order(
        {key.removeprefix(prefix) for by_key in scores.values() for key in by_key if key.startswith(prefix)}
    )
    rows = [
        [split, format_ap(by_key["map50"]), *(format_ap(by_key.get(f"{prefix}{label}")) for label in labels)]
        for split, by_key in scores.items()
    ]
    caption = "Average precision at IoU .5 of the best epoch, in percent"
    return make_table(["photos", "mean", *map(class_cell, labels)], rows, caption)


def _run_settings(model_info: Mapping[str, Any], history: Mapping[str, Any]) -> DefinitionList:
    """List the settings that people compare between runs."""
    training_info = model_info.get("trained", {})
    learning, data, priors = (training_info.get(name, {}) for name in ("train", "data", "priors"))
    photos = ", ".join(f"{count:,} {split}" for split, count in data.get("photos", {}).items())
    epochs = f"{len(history.get('rows', ()))} of {learning.get('epochs', '?')}, best {history.get('best', '?')}"
    values = {
        "run": training_info.get("name"),
        "preset": learning.get("preset"),
        "network": " ".join(filter(None, (learning.get("backbone"), learning.get("fusion")))),
        "initial weights": training_info.get("init_weights", {}).get("from"),
        "priors": f"{priors['name']}, {priors['count']:,}" if priors else None,
        "photos": photos,
        "epochs": epochs,
        "batch size": learning.get("batch"),
        "optimiser": learning.get("optimiser"),
        "learning rate": learning.get("lr"),
        "learning rate schedule": learning.get("lr_schedule"),
        "best epoch by": learning.get("best_by"),
        "seed": learning.get("seed"),
        "data": short_digest(data.get("digest", "")),
    }
    return DefinitionList(tuple((name, str(value)) for name, value in values.items() if value is not None))


def _box_counts(work: WorkFolder, dataset: str) -> dict[str, int]:
    return value_counts(work.folder("extract").read("boxes", dataset, ["label"])["label"])


def _rejected_rows(work: WorkFolder) -> list[dict[str, Any]]:
    stages = [stage for stage in ("index", "extract", "detect") if work.has_run(stage)]
    rows = [row for stage in stages for row in work.rows(stage, "rejected")]
    path = work.training_run / "rejected.parquet"
    return rows + (conform_to_schema(pq.read_table(path), "rejected").to_pylist() if path.is_file() else [])


def _findings_block(rows: Rows) -> Table | Note:
    if not rows:
        return Note("No problems found in the labels.")
    headers: list[CellOrText] = ["dataset", "finding", "count", "share", "example"]
    return make_table(headers, map(_finding_cells, rows), "Problems found in the labels")


def _finding_cells(row: Mapping[str, Any]) -> list[str]:
    finding = f"{row['label']} {row['message']}".strip()
    share = f"{100 * row['share']:.1f} %"
    return [row["dataset"], finding, format_count(row["count"]), share, row["example"] or ""]


def _label_sheet(
    work: WorkFolder, names: Sequence[str], photos: Mapping[tuple[str, str], int], limit: ImageLimit
) -> Figure | None:
    """Read the sheet of labelled photos of the largest dataset that has one."""
    folder = work.folder("extract").path / "previews"
    sizes = {name: sum(count for (dataset, _), count in photos.items() if dataset == name) for name in names}
    for name in sorted(names, key=lambda name: -sizes[name]):
        if sheet := read_sheet(folder / f"{name}.jpg", f"Labels of {name}, drawn on the photos", limit):
            return sheet
    return None


def _coverage_cell(row: Mapping[str, Any] | None) -> Cell:
    return Cell(format_percent(row["coverage_50"]), small=f"{row['positives']:.1f}") if row else Cell("-")
