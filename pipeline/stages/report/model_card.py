"""`model card`: what a bundle is, what it has learnt from, how good it is and where it fails, as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.assets import is_packaged
from pipeline.datasets.card import Card
from pipeline.errors import FacadeError
from pipeline.models.bundle import CARD_FILE, bundle_info, trained_on_all_splits
from pipeline.models.operating_point import OperatingPoint, load_operating_point
from pipeline.models.score_format import format_ap
from pipeline.stages.evaluate.scores import ALL, HEADLINE
from pipeline.stages.extract.upstream import read_cards, require_up_to_date
from pipeline.stages.train.data import SPLITS
from pipeline.storage.files import write_bytes
from pipeline.storage.stage_folder import StageFolder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_model_card"]

TEST_SPLIT: Final = "test"
PROTOCOLS: Final = {HEADLINE: "at IoU .5", "voc11_75": "at IoU .75"}
# Ends of the sizes that are told apart: the root of a box's area, in pixels of the network's input.
SIZE_EDGES: Final = (0.0, 8.0, 12.0, 16.0, 24.0, 48.0, np.inf)
MIN_OBJECTS: Final = 20  # objects below which a share says little

BundleInfo = Mapping[str, Any]


@dataclass(frozen=True)
class _EvaluatedDataset:
    """A bundle on the test photos of one dataset.

    Attributes:
        card: the dataset's.
        hashes: its photos, whatever they are called.
        photos: how many each split has.
        scores: (label, protocol) to a row of the table.
        detections: a row a detection that counts: label, selected, right.
        ground_truths: a row an object: label, side, selected, found.
        unseen: whether the bundle has not learnt from its photos of train, under this name or another.
    """

    card: Card
    hashes: frozenset[str]
    photos: Mapping[str, int]
    scores: Mapping[tuple[str, str], Mapping[str, Any]]
    detections: pd.DataFrame
    ground_truths: pd.DataFrame
    unseen: bool = False

    @property
    def name(self) -> str:
        """What it is called in a table."""
        return f"{self.card.name}, *never learnt from*" if self.unseen else self.card.name


def write_model_card(bundle: Path, works: Sequence[Path], notes: str) -> Path:
    """Write the card of a bundle beside it, from the work folders where it was judged; return its path.

    `notes` are added as they are: what figures cannot say.
    """
    if is_packaged(bundle):
        raise FacadeError(f"{bundle} came along and keeps its card; copy the folder, and write the card of the copy.")
    facts = bundle_info(bundle)
    point = load_operating_point(bundle, facts["digest"])
    judged = [one for work in works for one in _load_datasets(work, facts, point)]
    _check_datasets(facts, judged)
    judged = _mark_unseen_datasets(judged, _training_datasets(facts["trained"]))
    sections = [_header(facts), _training_section(facts, judged, point), _scores_section(facts["classes"], judged)]
    sections += (
        [_selection_section(facts["classes"], judged, point), _sizes_section(facts["classes"], judged)] if point else []
    )
    path = bundle / CARD_FILE
    write_bytes(path, "\n\n".join([*sections, notes.strip()]).strip().encode() + b"\n")
    return path


def _check_datasets(info: BundleInfo, datasets: Sequence[_EvaluatedDataset]) -> None:
    """Refuse what a card would be wrong about: data that it leaves out, photos of test that were learnt from."""
    names = [one.card.name for one in datasets]
    if trained_on_all_splits(info["trained"]):
        raise FacadeError(f"{info['bundle']} has learnt from all photos: none is left to say how good it is.")
    if left := sorted((_training_datasets(info["trained"]) or set()) - set(names)):
        raise FacadeError(
            f"{info['bundle']} has learnt from {', '.join(left)} too, of which these work folders judge nothing; name "
            "one that does with --work."
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FacadeError(f"{twice[0]} was judged in more than one of these work folders; name one of them.")


def _training_datasets(training_info: Mapping[str, Any]) -> set[str] | None:
    """Return the datasets that a training learnt from, and those before it that it began with; None: not known."""
    if "data" not in training_info:
        return None
    before = training_info.get("init_weights", {}).get("trained")
    return set(training_info["data"].get("datasets", ())) | (_training_datasets(before) or set() if before else set())


def _mark_unseen_datasets(
    datasets: Sequence[_EvaluatedDataset], training_datasets: set[str] | None
) -> list[_EvaluatedDataset]:
    """Return the same, told whether they are new to the bundle, as far as it is known what it has learnt from."""
    if training_datasets is None:
        return list(datasets)
    known = frozenset[str]().union(*(one.hashes for one in datasets if one.card.name in training_datasets))
    return [replace(one, unseen=one.card.name not in training_datasets and not one.hashes & known) for one in datasets]


# What was judged


def _load_datasets(work: Path, info: BundleInfo, point: OperatingPoint | None) -> list[_EvaluatedDataset]:
    """Return what a work folder says of a bundle, dataset by dataset."""
    evaluate, index = _open_evaluation(work, info), StageFolder(work, "index")
    images = index.read("images", columns=["image_id", "dataset", "split", "sha256", "width", "height"]).to_pandas()
    judged = images.image_id.isin(evaluate.read("evaluated_images", columns=["image_id"])["image_id"].to_pylist())
    seen = images[judged & (images.split == TEST_SPLIT)]
    tested = sorted(set(seen.dataset))
    if not tested:
        raise FacadeError(f"{work}: no photo of test was judged; find in them with --split test, and judge again.")
    verdicts = _load_detections(evaluate, point).merge(seen, on="image_id")
    truths = _load_ground_truths(evaluate, verdicts, info["input_size"], seen)
    scores = [row for row in evaluate.read("scores").to_pylist() if (row["split"], row["part"]) == (TEST_SPLIT, ALL)]
    # Of one dataset alone there are no rows beside those of all.
    rows_of = {name: name if len(tested) > 1 else ALL for name in tested}
    cards = read_cards(index)
    return [
        _EvaluatedDataset(
            cards[name],
            frozenset(images[images.dataset == name].sha256),
            images[images.dataset == name].split.value_counts().to_dict(),
            {(row["label"], row["protocol"]): row for row in scores if row["dataset"] == rows_of[name]},
            verdicts[verdicts.dataset == name],
            truths[truths.dataset == name],
        )
        for name in tested
    ]


def _open_evaluation(work: Path, info: BundleInfo) -> StageFolder:
    """Return the judgements of a work folder, or say in a sentence that they are not this bundle's."""
    evaluate = StageFolder(work, "evaluate")
    manifest = evaluate.manifest()
    if manifest is None or manifest.settings.get("model") != info["digest"]:
        what = "nothing" if manifest is None else "another model"
        raise FacadeError(
            f"{work} says nothing of {info['bundle']}, {what} was judged there; run `facade detect {work} --model "
            f"{info['bundle']}` and `facade evaluate --work {work}` first."
        )
    boxes = require_up_to_date(StageFolder(work, "index"), StageFolder(work, "extract"))
    if manifest.settings.get("extract") != boxes.digest:
        raise FacadeError(f"the boxes of {work} have changed; run `facade evaluate --work {work}` again.")
    return evaluate


def _load_detections(evaluate: StageFolder, point: OperatingPoint | None) -> pd.DataFrame:
    """Return the detections that count, with `right`, and `selected` by the bundle's own thresholds."""
    table = evaluate.read("detection_matches").to_pandas()
    if point is not None:
        photos = table.image_id.astype("category").cat.codes.to_numpy()
        table["selected"] = point.apply(table.label.to_numpy(object), photos, table.score.to_numpy(np.float64))[1]
    table["right"] = table.outcome == "correct"
    return table[table.outcome != "ignored"]


def _load_ground_truths(
    evaluate: StageFolder, detections: pd.DataFrame, size: Sequence[int], photos: pd.DataFrame
) -> pd.DataFrame:
    """Return the objects of some photos, with their side at the network's input, and which of them are found."""
    table = evaluate.read("ground_truths").to_pandas()
    table = table[~table.ignore].merge(photos, on="image_id")
    share = (table.xmax - table.xmin) * (table.ymax - table.ymin) / (table.width * table.height)
    table["side"] = np.sqrt(share * size[0] * size[1])
    right = detections[detections.right]
    table["found"] = table.box_id.isin(right.box_id)
    table["selected"] = table.box_id.isin(right[right.selected].box_id)
    return table


# The page


def _header(info: BundleInfo) -> str:
    height, width = info["input_size"]
    backbone, priors = info["backbone"]["name"], info["priors"]
    return (
        f"# {', '.join(info['classes'])} in photos of facades\n\n"
        f"SSD on {backbone}, {info['parameters'] / 1e6:.1f} million weights, {info['bytes'] / 1e6:.1f} MB. Photos go "
        f"in squashed to {width} x {height}; {priors['count']} priors ({priors['name']}). Digest `{info['digest']}`."
    )


def _training_section(info: BundleInfo, datasets: Sequence[_EvaluatedDataset], point: OperatingPoint | None) -> str:
    rows = [
        [
            one.name,
            one.card.licence,
            *(f"{one.photos.get(name, 0):,}" for name in SPLITS),
            ", ".join(one.card.labelled_classes),
        ]
        for one in datasets
    ]
    return "\n".join(
        [
            "## Data\n",
            *_table_lines(["dataset", "licence", *SPLITS, "classes that its labels show"], rows),
            "",
            *(f"* {one.card.name}: {'. '.join(_sources(one.card))}." for one in datasets),
            "",
            " ".join([_weights_history(info["trained"]), _thresholds_note(point)]).strip(),
        ]
    )


def _weights_history(training_info: Mapping[str, Any]) -> str:
    """Return a sentence on where the weights come from."""
    if "data" not in training_info:
        source = training_info.get("source", {}).get("file")
        return f"Its weights are those of {source}; what they learnt from is not known." if source else ""
    start, most = training_info.get("init_weights", {}), training_info.get("train", {}).get("epochs")
    sha256 = f" (sha256 `{start['sha256'][:12]}`)" if "sha256" in start else ""
    began = "from nothing" if start.get("from", "none") == "none" else f"with {start['from']}{sha256}"
    return f"It began {began} and learnt from the photos of train: epoch {training_info.get('epoch', most)} of {most} at most."


def _thresholds_note(point: OperatingPoint | None) -> str:
    """Return a sentence on what its thresholds are fitted to."""
    if point is None:
        return ""
    beware = ", the very photos that are judged below" if point.split == TEST_SPLIT else ""
    return f"Its thresholds are fitted to {point.photos:,} photos of {point.split}{beware}."


def _sources(card: Card) -> list[str]:
    return [" ".join(text.split()).rstrip(".") for text in (card.title, card.citation, card.source) if text]


def _scores_section(classes: Sequence[str], datasets: Sequence[_EvaluatedDataset]) -> str:
    lines = [
        "## How good it is\n",
        "On photos of test, from which nothing was learnt: average precision as VOC counts it (11 points), of 100. In "
        "brackets what 95 % of drawings of the photos give.",
    ]
    for protocol, title in PROTOCOLS.items():
        rows = [[one.name, *(_format_score(one, label, protocol) for label in (ALL, *classes))] for one in datasets]
        lines += ["", *_table_lines([f"dataset, {title}", "mean", *classes], rows)]
    return "\n".join(lines)


def _selection_section(classes: Sequence[str], datasets: Sequence[_EvaluatedDataset], point: OperatingPoint) -> str:
    rows = []
    for one in datasets:
        for label in classes:
            chosen = one.detections[(one.detections.label == label) & one.detections.selected]
            own = one.ground_truths[one.ground_truths.label == label]
            if len(own):
                rows.append(
                    [one.name, label, f"{len(own):,}", _format_share(own.selected), _format_share(chosen.right)]
                )
    how = ", ".join(
        f"{name} {'by number' if own.use_count_calibration else f'from {own.count_threshold:.2f} on'}"
        for name, own in point.classes.items()
    )
    return "\n".join(
        [
            "## What is selected\n",
            "Of the objects, how many are `selected` in the table of detections; of those selected, how many are right "
            f"(IoU .5 or more). Selected are: {how}.",
            "",
            *_table_lines(["dataset", "class", "objects", "selected", "right"], rows),
        ]
    )


def _sizes_section(classes: Sequence[str], datasets: Sequence[_EvaluatedDataset]) -> str:
    import pandas as pd

    truths = pd.concat([one.ground_truths for one in datasets])
    names = [f"{low:g} to {high:g}" for low, high in pairwise(SIZE_EDGES[1:-1])]
    rows = []
    for label in classes:
        own = truths[truths.label == label]
        places = np.digitize(own.side, SIZE_EDGES) - 1
        for what in ("found", "selected"):
            shares = [
                _format_share(own[what][places == place], f" of {(places == place).sum():,}")
                for place in range(len(SIZE_EDGES) - 1)
            ]
            rows.append([label, what, *shares])
    head = ["class", "", f"under {SIZE_EDGES[1]:g}", *names, f"from {SIZE_EDGES[-2]:g}"]
    return "\n".join(
        [
            "## How small\n",
            "How many of the objects of these test photos are found at all, with a score however low, and how many are "
            "selected, by size: the root of the area, in pixels of the input, to which photos are squashed.",
            "",
            *_table_lines(head, rows),
        ]
    )


def _table_lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table, whatever is in its cells."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    cells.insert(1, ["---"] * len(head))
    return [f"| {' | '.join(row)} |" for row in cells]


def _format_score(dataset: _EvaluatedDataset, label: str, protocol: str) -> str:
    """Return a figure of a class, or of all with "", in its interval."""
    row = dataset.scores.get((label, protocol))
    if row is None:
        return "no object" if label in dataset.card.labelled_classes else "not labelled"
    return format_ap(row["value"], row["low"], row["high"], interval_decimals=0)


def _format_share(flags: pd.Series[bool], suffix: str = "") -> str:
    """Return the share of what is true; nothing where there is too little to say so."""
    return f"{100 * flags.mean():.0f} %{suffix}" if len(flags) >= MIN_OBJECTS else "few"
