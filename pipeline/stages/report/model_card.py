"""`model card`: what a bundle is, what it has learnt from, how good it is and where it fails, as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.assets import is_shipped
from pipeline.datasets.card import Card
from pipeline.errors import FacadeError
from pipeline.models.bundle import CARD_FILE, facts_of, has_learnt_from_all
from pipeline.models.operating_point import OperatingPoint, load_operating
from pipeline.stages.evaluate.scores import ALL, HEADLINE
from pipeline.stages.extract.upstream import read_cards, require_fresh
from pipeline.stages.train.data import SPLITS
from pipeline.storage.files import write_bytes
from pipeline.storage.stage_folder import StageFolder

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_card"]

TEST: Final = "test"
PROTOCOLS: Final = {HEADLINE: "at IoU .5", "voc11_75": "at IoU .75"}
# Ends of the sizes that are told apart: the root of a box's area, in pixels of the network's input.
SIDES: Final = (0.0, 8.0, 12.0, 16.0, 24.0, 48.0, np.inf)
FEW: Final = 20  # objects below which a share says little

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class _Judged:
    """A bundle on the test photos of one dataset.

    Attributes:
        card: the dataset's.
        hashes: its photos, whatever they are called.
        photos: how many each split has.
        scores: (label, protocol) to a row of the table.
        verdicts: a row a detection that counts: label, selected, right.
        truths: a row an object: label, side, selected, found.
        unseen: whether the bundle has not learnt from its photos of train, under this name or another.
    """

    card: Card
    hashes: frozenset[str]
    photos: Mapping[str, int]
    scores: Mapping[tuple[str, str], Mapping[str, Any]]
    verdicts: pd.DataFrame
    truths: pd.DataFrame
    unseen: bool = False

    @property
    def name(self) -> str:
        """What it is called in a table."""
        return f"{self.card.name}, *never learnt from*" if self.unseen else self.card.name


def write_card(bundle: Path, works: Sequence[Path], notes: str) -> Path:
    """Write the card of a bundle beside it, from the work folders where it was judged; return its path.

    `notes` are added as they are: what figures cannot say.
    """
    if is_shipped(bundle):
        raise FacadeError(f"{bundle} came along and keeps its card; copy the folder, and write the card of the copy.")
    facts = facts_of(bundle)
    point = load_operating(bundle, facts["digest"])
    judged = [one for work in works for one in _judged(work, facts, point)]
    _check(facts, judged)
    judged = _told_apart(judged, _datasets(facts["trained"]))
    sections = [_head(facts), _learnt(facts, judged, point), _scores(facts["classes"], judged)]
    sections += [_selected(facts["classes"], judged, point), _sizes(facts["classes"], judged)] if point else []
    path = bundle / CARD_FILE
    write_bytes(path, "\n\n".join([*sections, notes.strip()]).strip().encode() + b"\n")
    return path


def _check(facts: Facts, judged: Sequence[_Judged]) -> None:
    """Refuse what a card would be wrong about: data that it leaves out, photos of test that were learnt from."""
    names = [one.card.name for one in judged]
    if has_learnt_from_all(facts["trained"]):
        raise FacadeError(f"{facts['bundle']} has learnt from all photos: none is left to say how good it is.")
    if left := sorted((_datasets(facts["trained"]) or set()) - set(names)):
        raise FacadeError(
            f"{facts['bundle']} has learnt from {', '.join(left)} too, of which these work folders judge nothing; name "
            "one that does with --work."
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FacadeError(f"{twice[0]} was judged in more than one of these work folders; name one of them.")


def _datasets(trained: Mapping[str, Any]) -> set[str] | None:
    """Return the datasets that a training learnt from, and those before it that it began with; None: not known."""
    if "data" not in trained:
        return None
    before = trained.get("start", {}).get("trained")
    return set(trained["data"].get("datasets", ())) | (_datasets(before) or set() if before else set())


def _told_apart(judged: Sequence[_Judged], learnt: set[str] | None) -> list[_Judged]:
    """Return the same, told whether they are new to the bundle, as far as it is known what it has learnt from."""
    if learnt is None:
        return list(judged)
    known = frozenset[str]().union(*(one.hashes for one in judged if one.card.name in learnt))
    return [replace(one, unseen=one.card.name not in learnt and not one.hashes & known) for one in judged]


# What was judged


def _judged(work: Path, facts: Facts, point: OperatingPoint | None) -> list[_Judged]:
    """Return what a work folder says of a bundle, dataset by dataset."""
    evaluate, index = _evaluated(work, facts), StageFolder(work, "index")
    images = index.read("images", columns=["image_id", "dataset", "split", "sha256", "width", "height"]).to_pandas()
    judged = images.image_id.isin(evaluate.read("judged", columns=["image_id"])["image_id"].to_pylist())
    seen = images[judged & (images.split == TEST)]
    tested = sorted(set(seen.dataset))
    if not tested:
        raise FacadeError(f"{work}: no photo of test was judged; find in them with --split test, and judge again.")
    verdicts = _verdicts(evaluate, point).merge(seen, on="image_id")
    truths = _truths(evaluate, verdicts, facts["input_size"], seen)
    scores = [row for row in evaluate.read("scores").to_pylist() if (row["split"], row["part"]) == (TEST, ALL)]
    # Of one dataset alone there are no rows beside those of all.
    rows_of = {name: name if len(tested) > 1 else ALL for name in tested}
    cards = read_cards(index)
    return [
        _Judged(
            cards[name],
            frozenset(images[images.dataset == name].sha256),
            images[images.dataset == name].split.value_counts().to_dict(),
            {(row["label"], row["protocol"]): row for row in scores if row["dataset"] == rows_of[name]},
            verdicts[verdicts.dataset == name],
            truths[truths.dataset == name],
        )
        for name in tested
    ]


def _evaluated(work: Path, facts: Facts) -> StageFolder:
    """Return the judgements of a work folder, or say in a sentence that they are not this bundle's."""
    evaluate = StageFolder(work, "evaluate")
    manifest = evaluate.manifest()
    if manifest is None or manifest.settings.get("model") != facts["digest"]:
        what = "nothing" if manifest is None else "another model"
        raise FacadeError(
            f"{work} says nothing of {facts['bundle']}, {what} was judged there; run `facade detect {work} --model "
            f"{facts['bundle']}` and `facade evaluate --work {work}` first."
        )
    boxes = require_fresh(StageFolder(work, "index"), StageFolder(work, "extract"))
    if manifest.settings.get("extract") != boxes.digest:
        raise FacadeError(f"the boxes of {work} have changed; run `facade evaluate --work {work}` again.")
    return evaluate


def _verdicts(evaluate: StageFolder, point: OperatingPoint | None) -> pd.DataFrame:
    """Return the detections that count, with `right`, and `selected` by the bundle's own thresholds."""
    table = evaluate.read("verdicts").to_pandas()
    if point is not None:
        photos = table.image_id.astype("category").cat.codes.to_numpy()
        table["chosen"] = point.read(table.label.to_numpy(object), photos, table.score.to_numpy(np.float64))[1]
    table["right"] = table.kind == "correct"
    return table[table.kind != "ignored"].rename(columns={"chosen": "selected"})


def _truths(evaluate: StageFolder, verdicts: pd.DataFrame, size: Sequence[int], photos: pd.DataFrame) -> pd.DataFrame:
    """Return the objects of some photos, with their side at the network's input, and which of them are found."""
    table = evaluate.read("truths").to_pandas()
    table = table[~table.ignore].merge(photos, on="image_id")
    share = (table.xmax - table.xmin) * (table.ymax - table.ymin) / (table.width * table.height)
    table["side"] = np.sqrt(share * size[0] * size[1])
    right = verdicts[verdicts.right]
    table["found"] = table.box_id.isin(right.box_id)
    table["selected"] = table.box_id.isin(right[right.selected].box_id)
    return table


# The page


def _head(facts: Facts) -> str:
    height, width = facts["input_size"]
    backbone, priors = facts["backbone"]["name"], facts["priors"]
    return (
        f"# {', '.join(facts['classes'])} in photos of facades\n\n"
        f"SSD on {backbone}, {facts['parameters'] / 1e6:.1f} million weights, {facts['bytes'] / 1e6:.1f} MB. Photos go "
        f"in squashed to {width} x {height}; {priors['count']} priors ({priors['name']}). Digest `{facts['digest']}`."
    )


def _learnt(facts: Facts, judged: Sequence[_Judged], point: OperatingPoint | None) -> str:
    rows = [
        [one.name, one.card.licence, *(f"{one.photos.get(name, 0):,}" for name in SPLITS), ", ".join(one.card.labelled)]
        for one in judged
    ]
    return "\n".join(
        [
            "## Data\n",
            *_table(["dataset", "licence", *SPLITS, "classes that its labels show"], rows),
            "",
            *(f"* {one.card.name}: {'. '.join(_sources(one.card))}." for one in judged),
            "",
            " ".join([_history(facts["trained"]), _fitted(point)]).strip(),
        ]
    )


def _history(trained: Mapping[str, Any]) -> str:
    """Return a sentence on where the weights come from."""
    if "data" not in trained:
        source = trained.get("source", {}).get("file")
        return f"Its weights are those of {source}; what they learnt from is not known." if source else ""
    start, most = trained.get("start", {}), trained.get("train", {}).get("epochs")
    sha256 = f" (sha256 `{start['sha256'][:12]}`)" if "sha256" in start else ""
    began = "from nothing" if start.get("from", "none") == "none" else f"with {start['from']}{sha256}"
    return (
        f"It began {began} and learnt from the photos of train: epoch {trained.get('epoch', most)} of {most} at most."
    )


def _fitted(point: OperatingPoint | None) -> str:
    """Return a sentence on what its thresholds are fitted to."""
    if point is None:
        return ""
    beware = ", the very photos that are judged below" if point.split == TEST else ""
    return f"Its thresholds are fitted to {point.photos:,} photos of {point.split}{beware}."


def _sources(card: Card) -> list[str]:
    return [" ".join(text.split()).rstrip(".") for text in (card.title, card.citation, card.source) if text]


def _scores(classes: Sequence[str], judged: Sequence[_Judged]) -> str:
    lines = [
        "## How good it is\n",
        "On photos of test, from which nothing was learnt: average precision as VOC counts it (11 points), of 100. In "
        "brackets what 95 % of drawings of the photos give.",
    ]
    for protocol, title in PROTOCOLS.items():
        rows = [[one.name, *(_points(one, label, protocol) for label in (ALL, *classes))] for one in judged]
        lines += ["", *_table([f"dataset, {title}", "mean", *classes], rows)]
    return "\n".join(lines)


def _selected(classes: Sequence[str], judged: Sequence[_Judged], point: OperatingPoint) -> str:
    rows = []
    for one in judged:
        for label in classes:
            chosen = one.verdicts[(one.verdicts.label == label) & one.verdicts.selected]
            own = one.truths[one.truths.label == label]
            if len(own):
                rows.append([one.name, label, f"{len(own):,}", _share(own.selected), _share(chosen.right)])
    how = ", ".join(
        f"{name} {'by number' if own.by_number else f'from {own.counting:.2f} on'}"
        for name, own in point.classes.items()
    )
    return "\n".join(
        [
            "## What is selected\n",
            "Of the objects, how many are `selected` in the table of detections; of those selected, how many are right "
            f"(IoU .5 or more). Selected are: {how}.",
            "",
            *_table(["dataset", "class", "objects", "selected", "right"], rows),
        ]
    )


def _sizes(classes: Sequence[str], judged: Sequence[_Judged]) -> str:
    import pandas as pd

    truths = pd.concat([one.truths for one in judged])
    names = [f"{low:g} to {high:g}" for low, high in pairwise(SIDES[1:-1])]
    rows = []
    for label in classes:
        own = truths[truths.label == label]
        places = np.digitize(own.side, SIDES) - 1
        for what in ("found", "selected"):
            shares = [
                _share(own[what][places == place], f" of {(places == place).sum():,}")
                for place in range(len(SIDES) - 1)
            ]
            rows.append([label, what, *shares])
    head = ["class", "", f"under {SIDES[1]:g}", *names, f"from {SIDES[-2]:g}"]
    return "\n".join(
        [
            "## How small\n",
            "How many of the objects of these test photos are found at all, with a score however low, and how many are "
            "selected, by size: the root of the area, in pixels of the input, to which photos are squashed.",
            "",
            *_table(head, rows),
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table, whatever is in its cells."""
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    cells.insert(1, ["---"] * len(head))
    return [f"| {' | '.join(row)} |" for row in cells]


def _points(one: _Judged, label: str, protocol: str) -> str:
    """Return a figure of a class, or of all with "", in its interval."""
    row = one.scores.get((label, protocol))
    if row is None:
        return "no object" if label in one.card.labelled else "not labelled"
    spread = "" if row["low"] is None else f" ({100 * row['low']:.0f} to {100 * row['high']:.0f})"
    return f"{100 * row['value']:.1f}{spread}"


def _share(flags: pd.Series[bool], suffix: str = "") -> str:
    """Return the share of what is true; nothing where there is too little to say so."""
    return f"{100 * flags.mean():.0f} %{suffix}" if len(flags) >= FEW else "few"
