"""The model card: a Markdown page about a bundle, its training data, its scores and where it fails."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.assets import is_packaged
from pipeline.datasets.card import SPLITS, Card
from pipeline.errors import FacadeError
from pipeline.models.bundle import CARD_FILE, bundle_info
from pipeline.models.operating_point import ClassPoint, OperatingPoint, load_operating_point
from pipeline.models.score_format import format_ap
from pipeline.stages.evaluate.scores import ALL, HEADLINE
from pipeline.stages.report.dataset_sections import incomplete_labels_note
from pipeline.stages.report.model_card_data import (
    TEST_SPLIT,
    BundleInfo,
    EvaluatedDataset,
    load_evaluated_datasets,
)
from pipeline.storage.files import write_bytes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_model_card"]

PROTOCOLS: Final = {HEADLINE: "at IoU .5", "voc11_75": "at IoU .75"}
# Edges of the size bins: the square root of a box's area, in pixels of the network's input.
SIZE_EDGES: Final = (0.0, 8.0, 12.0, 16.0, 24.0, 48.0, np.inf)
MIN_OBJECTS: Final = 20  # a share of fewer objects says little

Datasets = Sequence[EvaluatedDataset]


def write_model_card(bundle: Path, works: Sequence[Path], notes: str) -> Path:
    """Write the card of a bundle into its folder.

    Args:
        bundle: the bundle's folder.
        works: work folders in which the bundle was evaluated.
        notes: Markdown that is added as it is: what numbers cannot say.

    Returns:
        The path of the card.
    """
    if is_packaged(bundle):
        raise FacadeError(
            f"{bundle} is the bundled default model, whose card is read-only; copy its folder to write another."
        )
    info = bundle_info(bundle)
    point = load_operating_point(bundle, info["digest"])
    datasets = load_evaluated_datasets(works, info, point)
    sections = [_header(info), _data_section(info, datasets, point), _scores_section(info["classes"], datasets)]
    if point is not None:
        sections += [_selection_section(info["classes"], datasets, point), _sizes_section(info["classes"], datasets)]
    path = bundle / CARD_FILE
    write_bytes(path, "\n\n".join([*sections, notes.strip()]).strip().encode() + b"\n")
    return path


def _header(info: BundleInfo) -> str:
    height, width = info["input_size"]
    priors = info["priors"]
    return (
        f"# {', '.join(info['classes'])} in photos of facades\n\n"
        f"SSD on {info['backbone']['name']}, {info['parameters'] / 1e6:.1f} million weights, {info['bytes'] / 1e6:.1f} "
        f"MB. Photos are squashed to {width} x {height}; {priors['count']} priors ({priors['name']}). Digest "
        f"`{info['digest']}`."
    )


def _data_section(info: BundleInfo, datasets: Datasets, point: OperatingPoint | None) -> str:
    rows = [
        [
            dataset.title,
            dataset.card.licence,
            *(f"{dataset.photos.get(name, 0):,}" for name in SPLITS),
            ", ".join(dataset.card.labelled_classes),
        ]
        for dataset in datasets
    ]
    incomplete = incomplete_labels_note(dataset.card for dataset in datasets)
    sentences = [
        _training_sentence(info["trained"]),
        _thresholds_sentence(point),
        incomplete.text if incomplete else "",
    ]
    return "\n".join(
        [
            "## Data\n",
            *_table_lines(["dataset", "licence", *SPLITS, "labelled classes"], rows),
            "",
            *(f"* {dataset.card.name}: {'. '.join(_sources(dataset.card))}." for dataset in datasets),
            "",
            " ".join(filter(None, sentences)),
        ]
    )


def _training_sentence(training_info: Mapping[str, Any]) -> str:
    """Say where the weights come from."""
    if "data" not in training_info:
        source = training_info.get("source", {}).get("file")
        return f"The weights were imported from {source}; their training data is not known." if source else ""
    init_weights = training_info.get("init_weights", {})
    max_epochs = training_info.get("train", {}).get("epochs")
    sha256 = f" (sha256 `{init_weights['sha256'][:12]}`)" if "sha256" in init_weights else ""
    is_random = init_weights.get("from", "none") == "none"
    start = "random weights" if is_random else f"{init_weights['from']}{sha256}"
    epoch = training_info.get("epoch", max_epochs)
    return f"Training on the train photos started from {start} and kept epoch {epoch} of at most {max_epochs}."


def _thresholds_sentence(point: OperatingPoint | None) -> str:
    """Say which photos the thresholds are fitted on."""
    if point is None:
        return ""
    warning = ", the same photos that are evaluated below" if point.split == TEST_SPLIT else ""
    return f"The thresholds are fitted on {point.photos:,} photos of {point.split}{warning}."


def _sources(card: Card) -> list[str]:
    return [" ".join(text.split()).rstrip(".") for text in (card.title, card.citation, card.source) if text]


def _scores_section(classes: Sequence[str], datasets: Datasets) -> str:
    lines = [
        "## Average precision\n",
        "On the test photos, not used in training. VOC AP (11-point), in percent, with 95 % bootstrap intervals.",
    ]
    for protocol, title in PROTOCOLS.items():
        rows = [
            [dataset.title, *(_format_score(dataset, label, protocol) for label in (ALL, *classes))]
            for dataset in datasets
        ]
        lines += ["", *_table_lines([f"dataset, {title}", "mean", *classes], rows)]
    return "\n".join(lines)


def _selection_section(classes: Sequence[str], datasets: Datasets, point: OperatingPoint) -> str:
    rows = []
    for dataset in datasets:
        for label in classes:
            selected = dataset.detections[(dataset.detections.label == label) & dataset.detections.selected]
            objects = dataset.ground_truths[dataset.ground_truths.label == label]
            if len(objects):
                recall = _format_share(objects.selected)
                precision = _format_share(selected.correct)
                rows.append([dataset.title, label, f"{len(objects):,}", recall, precision])
    return "\n".join(
        [
            "## Selected detections\n",
            "Precision and recall (IoU .5 or more) of the detections that are `selected` in the table of detections. "
            "In each photo these are:",
            "",
            *(f"* {name}: {_selection_rule(class_point)}" for name, class_point in point.classes.items()),
            "",
            *_table_lines(["dataset", "class", "objects", "recall", "precision"], rows),
        ]
    )


def _selection_rule(point: ClassPoint) -> str:
    if point.use_count_calibration:
        return "as many of the best detections as expected (the sum of the calibrated probabilities in the photo)"
    return f"detections with a score of {point.count_threshold:.2f} or more"


def _sizes_section(classes: Sequence[str], datasets: Datasets) -> str:
    import pandas as pd

    ground_truths = pd.concat([dataset.ground_truths for dataset in datasets])
    rows = []
    for label in classes:
        objects = ground_truths[ground_truths.label == label]
        bins = np.digitize(objects.side, SIZE_EDGES) - 1
        for column in ("detected", "selected"):
            shares = [
                _format_share(objects[column][bins == index], f" of {(bins == index).sum():,}")
                for index in range(len(SIZE_EDGES) - 1)
            ]
            rows.append([label, column, *shares])
    bin_names = [f"{low:g} to {high:g}" for low, high in pairwise(SIZE_EDGES[1:-1])]
    headers = ["class", "", f"under {SIZE_EDGES[1]:g}", *bin_names, f"from {SIZE_EDGES[-2]:g}"]
    return "\n".join(
        [
            "## Results by object size\n",
            "The share of the objects in these test photos that are detected, at any score, and that are selected, by "
            "size: the square root of the box's area, in pixels of the network's input.",
            "",
            *_table_lines(headers, rows),
        ]
    )


def _table_lines(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; line breaks and bars in cells are escaped."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (headers, *rows)]
    cells.insert(1, ["---"] * len(headers))
    return [f"| {' | '.join(row)} |" for row in cells]


def _format_score(dataset: EvaluatedDataset, label: str, protocol: str) -> str:
    """Format the score of a class, or with "" of the mean, with its interval."""
    row = dataset.scores.get((label, protocol))
    if row is None:
        return "no object" if label in dataset.card.labelled_classes else "not labelled"
    return format_ap(row["value"], row["low"], row["high"], interval_decimals=0)


def _format_share(flags: pd.Series[bool], suffix: str = "") -> str:
    """Format the share of true flags, unless there are too few of them."""
    return f"{100 * flags.mean():.0f} %{suffix}" if len(flags) >= MIN_OBJECTS else "too few to tell"
