"""The report's sections on what a detector learns from: photos, boxes, priors, training."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.datasets.labels import class_order
from pipeline.stages.report.html import (
    Html,
    ImageLimit,
    Section,
    badge,
    definition_list,
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
from pipeline.storage.schemas import conform_to_schema

__all__ = [
    "dataset_section",
    "histograms_section",
    "photos_table",
    "priors_section",
    "rejected_table",
    "training_section",
]

SPLITS: Final = ("train", "val", "test")
MAX_REASONS: Final = 12
HISTOGRAMS: Final = {
    "aspect_ratio": "Width over height of the boxes of each class",
    "area_ratio": "Share of the photo's area that a box covers",
    "objects_per_image": "Objects in a photo, by class",
    "sizes_at_300": "Width and height of the boxes at an input of 300 x 300 pixels; larger dots are more boxes",
}

Rows = Sequence[Mapping[str, Any]]


def dataset_section(work: WorkFolder, limit: ImageLimit) -> Section:
    """Return what photos and boxes there are, what was rejected, and what looks wrong."""
    images = work.table("index", "images", ["dataset", "split"])
    counts = images.group_by(["dataset", "split"]).aggregate([([], "count_all")]).to_pylist()
    photos = {(row["dataset"], row["split"]): row["count_all"] for row in counts}
    names = sorted({name for name, _ in photos})
    parts = [photos_table(photos, _card_titles(work))]
    if work.has_run("extract"):
        parts.append(boxes_table({name: _box_counts(work, name) for name in names}))
    parts += [rejected_table(_rejected_rows(work)), _findings_table(work), _label_sheet(work, names, photos, limit)]
    return Section("dataset", "Dataset", join_html(*parts, work.missing_stage_note("extract")))


def photos_table(counts: Mapping[tuple[str, str], int], titles: Mapping[str, str]) -> Html:
    """Return photos by dataset and split, from their numbers."""
    found = {split for _, split in counts}
    splits = [*(split for split in SPLITS if split in found), *sorted(found - {*SPLITS})]
    names = sorted({name for name, _ in counts})
    numbers = {name: [counts.get((name, split), 0) for split in splits] for name in names}
    if len(names) > 1:
        numbers["all"] = [sum(column) for column in zip(*numbers.values(), strict=True)]
    cells = [
        [join_html(name, tag("small", titles.get(name, ""))), *map(_format_count, own), _format_count(sum(own))]
        for name, own in numbers.items()
    ]
    return table(["dataset", *splits, "photos"], cells, "Photos by dataset and split")


def boxes_table(counts: Mapping[str, Mapping[str, int]]) -> Html:
    """Return boxes by dataset and class."""
    labels = class_order({label for own in counts.values() for label in own})
    rows = [[name, *(_format_count(own.get(label, 0)) for label in labels)] for name, own in counts.items()]
    return table(["dataset", *map(swatch, labels)], rows, "Boxes by dataset and class")


def rejected_table(rows: Rows) -> Html:
    """Return what was rejected, reason by reason, the commonest first."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        reasons.setdefault((row["stage"], row["message"]), []).append(row["image_id"])
    if not reasons:
        return note("No photo was rejected.")
    told = sorted(reasons.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    cells = [[stage, message, _format_count(len(own)), min(own)] for (stage, message), own in told[:MAX_REASONS]]
    more = f", the commonest {MAX_REASONS} of {len(told)} reasons" if len(told) > MAX_REASONS else ""
    return table(["stage", "reason", "photos", "for example"], cells, f"{len(rows):,} rejected{more}")


def histograms_section(work: WorkFolder) -> Section:
    """Return the figures of `describe`."""
    place = work.folder("describe").path / "figures"
    figures = [picture(place / f"{name}.png", caption) for name, caption in HISTOGRAMS.items()]
    return Section(
        "box_histograms", "Shapes and sizes", join_html(*figures, work.missing_stage_note("extract", "describe"))
    )


def priors_section(work: WorkFolder) -> Section:
    """Return how prior boxes cover the objects, and which were chosen."""
    todo, parts = work.missing_stage_note("extract", "describe", "priors"), list[Html]()
    if work.has_run("priors"):
        (chosen,) = work.rows("priors", "choice")
        rows = work.rows("priors", "coverage")
        counts = {row["name"]: row["priors"] for row in work.rows("priors", "specs")}
        parts.append(note("Chosen: ", tag("strong", chosen["name"]), f". {chosen['reason']}."))
        parts.append(coverage_table(rows, counts, chosen["name"], chosen["split"]))
        caption = "Share of objects with a prior at IoU .5 (light) and .7 (full), and positives an object"
        parts.append(picture(work.folder("priors").path / "figures" / "coverage.png", caption))
    return Section("priors", "Priors and coverage", join_html(*parts, todo))


def coverage_table(rows: Rows, counts: Mapping[str, int], selected: str, fallback: str) -> Html:
    """Return what share of the objects of each class each set of priors covers, on test or on what there is."""
    split = "test" if any(row["split"] == "test" for row in rows) else fallback
    own = {(row["name"], row["label"]): row for row in rows if row["split"] == split}
    labels, names = class_order({label for _, label in own}), list(counts)
    cells = [
        [name, _format_count(counts[name]), *(_coverage_cell(own.get((name, label))) for label in labels)]
        for name in names
    ]
    cells = [[join_html(row[0], badge("chosen")) if row[0] == selected else row[0], *row[1:]] for row in cells]
    caption = f"Covered at IoU .5, in points; small: positives an object; on {split}"
    return table(["priors", "boxes", *map(swatch, labels)], cells, caption, [names.index(selected)])


def training_section(work: WorkFolder, limit: ImageLimit) -> Section:
    """Return how the last model was trained."""
    todo = work.missing_stage_note("extract", "describe", "priors", "train")
    if not work.has_run("train"):
        return Section("training", "Training", todo)
    place, history = work.training_run / "figures", work.history
    parts = [
        definition_list(_run_settings(work.trained_model, history)),
        training_scores_table(history),
        picture(place / "losses.png", "Loss and its two terms by epoch, on train and validation photos"),
        picture(place / "precision.png", "Average precision on validation photos by epoch"),
        picture(place / "augmented.png", "Training photos as augmentation shows them, with what is to be found", limit),
    ]
    return Section("training", "Training", join_html(*parts))


def training_scores_table(history: Mapping[str, Any]) -> Html:
    """Return the average precision of the epoch that was kept, as the training has judged it."""
    known = {split: history[split] for split in ("val", "test") if "map50" in (history.get(split) or {})}
    if not known:
        return Html("")
    labels = class_order({key[5:] for own in known.values() for key in own if key.startswith("ap50.")})
    rows = [
        [split, format_points(own["map50"]), *(format_points(own.get(f"ap50.{label}")) for label in labels)]
        for split, own in known.items()
    ]
    return table(["photos", "mean", *map(swatch, labels)], rows, "Average precision at IoU .5 of the epoch kept")


def _run_settings(model_info: Mapping[str, Any], history: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what people compare between runs."""
    about = model_info.get("trained", {})
    learning, data, prior = (about.get(name, {}) for name in ("train", "data", "priors"))
    photos = ", ".join(f"{count:,} {split}" for split, count in data.get("photos", {}).items())
    epochs = f"{len(history.get('rows', ()))} of {learning.get('epochs', '?')}, kept {history.get('best', '?')}"
    pairs = [
        ("run", about.get("name")),
        ("preset", learning.get("preset")),
        ("network", " ".join(filter(None, (learning.get("backbone"), learning.get("fusion"))))),
        ("started from", about.get("init_weights", {}).get("from")),
        ("priors", f"{prior['name']}, {prior['count']:,}" if prior else None),
        ("photos", photos),
        ("epochs", epochs),
        ("batch", learning.get("batch")),
        ("optimiser", learning.get("optimiser")),
        ("learning rate", learning.get("lr")),
        ("learning rate schedule", learning.get("lr_schedule")),
        ("kept by", learning.get("best_by")),
        ("seed", learning.get("seed")),
        ("data", short_digest(data.get("digest", ""))),
    ]
    return [(name, str(value)) for name, value in pairs if value is not None and str(value)]


def _card_titles(work: WorkFolder) -> dict[str, str]:
    """Return the title and licence of each dataset's card."""
    told = {}
    for row in work.rows("index", "cards"):
        card = tomllib.loads(row["text"])
        told[row["dataset"]] = ", ".join(filter(None, (card.get("title"), card.get("licence"))))
    return told


def _box_counts(work: WorkFolder, name: str) -> dict[str, int]:
    labels = work.folder("extract").read("boxes", name, ["label"])["label"]
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(labels).to_pylist()}


def _rejected_rows(work: WorkFolder) -> list[dict[str, Any]]:
    rows = [
        row for stage in ("index", "extract", "detect") if work.has_run(stage) for row in work.rows(stage, "rejected")
    ]
    left_out = work.training_run / "rejected.parquet"
    return rows + (conform_to_schema(pq.read_table(left_out), "rejected").to_pylist() if left_out.is_file() else [])


def _findings_table(work: WorkFolder) -> Html:
    if not work.has_run("describe"):
        return Html("")
    rows = [_finding_cells(row) for row in work.rows("describe", "findings")]
    head = ["dataset", "finding", "count", "share", "for example"]
    return table(head, rows, "What looks wrong in the labels") if rows else note("Nothing looks wrong in the labels.")


def _finding_cells(row: Mapping[str, Any]) -> list[str]:
    what = f"{row['label']} {row['message']}".strip()
    return [
        row["dataset"],
        what,
        _format_count(row["count"]),
        f"{100 * row['share']:.1f} %",
        row["example"] or "",
    ]


def _label_sheet(
    work: WorkFolder, names: Sequence[str], photos: Mapping[tuple[str, str], int], limit: ImageLimit
) -> Html:
    """Return the sheet of labels of the largest dataset that has one."""
    place = work.folder("extract").path / "previews"
    by_size = sorted(names, key=lambda name: -sum(count for (own, _), count in photos.items() if own == name))
    for name in by_size:
        if shown := picture(place / f"{name}.jpg", f"Labels of {name}, drawn over the photos", limit):
            return shown
    return Html("")


def _coverage_cell(row: Mapping[str, Any] | None) -> Html:
    return join_html(format_points(row["coverage_50"]), tag("small", f"{row['positives']:.1f}")) if row else Html("-")


def _format_count(number: int) -> str:
    return f"{number:,}"
