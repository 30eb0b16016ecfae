"""Pictures of an evaluation: curves, what goes wrong, sizes and shapes, the worst photos, doubtful labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.errors import BadInputError
from pipeline.imaging.drawing import contact_sheet, draw_boxes, save_picture
from pipeline.imaging.image_io import decode_photo
from pipeline.imaging.plotting import INK, paint_of, save_figure
from pipeline.stages.evaluate.error_analysis import KINDS
from pipeline.stages.evaluate.scores import PARTS
from pipeline.storage.files import read_bytes
from pipeline.storage.schemas import COORDINATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipeline.stages.evaluate.tables import Evaluation

__all__ = ["draw_evaluation"]

Rows = Sequence[Mapping[str, Any]]
PAINT: Final = {
    "correct": "#5aa469",
    "duplicate": "#8f7bbf",
    "localisation": "#e0a83e",
    "class": "#4f86c6",
    "background": "#c4532f",
    "missed": "#8a8a8a",
}
SIDE: Final = 640  # of a drawn photo, at most
AROUND: Final = 0.75  # of a doubtful label's sides, shown on each side of it
CROP: Final = (220, 220)


def draw_evaluation(whole: Evaluation, tables: Mapping[str, pa.Table], folder: Path, most: int) -> list[Path]:
    """Return the paths of all pictures of an evaluation; the figures are of test, or of what there is."""
    rows = {name: tables[name].to_pylist() for name in ("scores", "curves", "diagnosis", "suspects")}
    split = "test" if "test" in whole.splits else whole.splits[-1]
    labels = [label for label in whole.judged.classes if any(row["label"] == label for row in rows["curves"])]
    place = folder / "figures"
    figures = [*_curve_figures(rows["curves"], whole, split, labels, place)] if labels else []
    figures += _part_figures(rows["scores"], split, labels, place) if labels else []
    if labels:
        figures.append(_diagnosis_figure(rows["diagnosis"], split, labels, place))
    pictures = [*_worst(whole, tables["judged"], folder, most), *_doubtful(whole, rows["suspects"], folder, most)]
    for path in set(folder.glob("drawings/*.jpg")) - set(pictures):
        path.unlink()
    return [*figures, *pictures]


def _curve_figures(curves: Rows, whole: Evaluation, split: str, labels: Sequence[str], place: Path) -> Iterator[Path]:
    def precision(axes: Axes, label: str) -> None:
        for shown, style in ((split, "solid"), (whole.fitted_on, "dotted")):
            own = [row for row in curves if (row["split"], row["label"]) == (shown, label)]
            if own and (style == "solid" or shown != split):
                axes.plot(
                    [row["recall"] for row in own],
                    [row["precision"] for row in own],
                    color=paint_of(label),
                    linestyle=style,
                    label=shown,
                )
        _square(axes, "recall", "precision")
        axes.legend(frameon=False, fontsize=8, loc="lower left")

    def scores(axes: Axes, label: str) -> None:
        own = [row for row in curves if (row["split"], row["label"]) == (split, label)]
        for name, style in (("precision", "dashed"), ("recall", "dotted"), ("f1", "solid")):
            axes.plot(
                [row["score"] for row in own], [row[name] for row in own], color=paint_of(label), ls=style, label=name
            )
        if (point := whole.point.classes.get(label)) is not None:
            axes.axvline(point.threshold, color=INK, linewidth=0.8)
        _square(axes, "score, line: best F1 on " + whole.fitted_on, "")
        axes.legend(frameon=False, fontsize=8)

    def worth(axes: Axes, label: str) -> None:
        if (point := whole.point.classes.get(label)) is not None:
            axes.plot(point.scores, point.probabilities, color=paint_of(label), marker=".", markersize=4)
        _square(axes, "score", "what it is worth")

    yield save_figure(place / "precision_recall.png", labels, precision)
    yield save_figure(place / "scores.png", labels, scores)
    yield save_figure(place / "worth.png", labels, worth)


def _part_figures(scores: Rows, split: str, labels: Sequence[str], place: Path) -> list[Path]:
    """Return the figures of average precision and recall by size and by shape (the SSD paper's figures 4 and 6)."""

    def panel(axes: Axes, label: str, kind: str) -> None:
        own = {
            (row["part"], row["protocol"]): row["value"]
            for row in scores
            if (row["split"], row["dataset"], row["label"]) == (split, "", label)
        }
        for at, name in enumerate(PARTS[kind]):
            if (value := own.get((f"{kind} {name}", "voc11_50_normalised"))) is not None:
                axes.bar(at, value, width=0.7, color=paint_of(label))
                axes.plot([at - 0.35, at + 0.35], [own[f"{kind} {name}", "recall_50"]] * 2, color=INK, lw=1)
        axes.set_xticks(range(len(PARTS[kind])), PARTS[kind])
        axes.set_ylim(0, 1.02)
        axes.set_xlabel({"size": "from small to large", "shape": "from tall to wide"}[kind])
        axes.set_ylabel("normalised AP, line: recall")

    return [save_figure(place / f"by_{kind}.png", labels, partial(panel, kind=kind)) for kind in PARTS]


def _diagnosis_figure(diagnosis: Rows, split: str, labels: Sequence[str], place: Path) -> Path:
    def panel(axes: Axes, label: str) -> None:
        own = {row["kind"]: row for row in diagnosis if (row["split"], row["label"]) == (split, label)}
        names = [name for name in PAINT if name in own]
        at = [float(place) for place in range(len(names))][::-1]
        axes.barh(at, [own[name]["count"] for name in names], color=[PAINT[name] for name in names], height=0.7)
        for height, name in zip(at, names, strict=True):
            cost = own[name]["cost"]
            told = f" {own[name]['count']:,}" + (f", costs {100 * cost:.1f}" if cost is not None else "")
            axes.text(own[name]["count"], height, told, va="center", fontsize=8, color=INK)
        axes.set_yticks(at, names)
        axes.margins(x=0.45)
        axes.set_xlabel(f"{split}: chosen detections; points of AP")

    return save_figure(place / "diagnosis.png", labels, panel)


def _square(axes: Axes, across: str, up: str) -> None:
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(across)
    axes.set_ylabel(up)


# Photos


def _worst(whole: Evaluation, judged: pa.Table, folder: Path, most: int) -> Iterator[Path]:
    """Yield a sheet a class of the photos with most errors in it: what was found, what is true, errors crossed."""
    _, chosen = whole.choice
    missed, verdicts = whole.verdicts.missed(chosen), whole.verdicts
    wrong = chosen & (verdicts.kinds > KINDS.index("ignored"))
    count = len(judged)
    for number, label in enumerate(whole.judged.classes, start=1):
        found, truths = whole.judged.detections, whole.judged.truths
        errors = np.bincount(found.images[wrong & (found.labels == number)].astype(np.int64), minlength=count)
        errors += np.bincount(truths.images[missed & (truths.labels == number)].astype(np.int64), minlength=count)
        worst = [place for place in np.argsort(-errors, kind="stable")[:most].tolist() if errors[place]]
        tiles = []
        for place in worst:
            if (photo := _photo(whole, place)) is None:
                continue
            image = whole.judged.images["image_id"][place].as_py()
            own = _boxes(whole, chosen & (found.images == place) & (found.labels == number), wrong)
            true = _boxes(whole, (truths.images == place) & (truths.labels == number), missed, of_truths=True)
            tiles += [(f"{image}: found", draw_boxes(photo, own)), ("true", draw_boxes(photo, true))]
        if tiles:
            sheet = contact_sheet(tiles, 4, (SIDE * 3 // 4, SIDE * 9 // 16))
            yield save_picture(sheet, folder / "drawings" / f"worst_{label}.jpg")


def _boxes(whole: Evaluation, rows: Any, marked: Any, of_truths: bool = False) -> list[dict[str, Any]]:
    """Return boxes to draw, those that are marked crossed."""
    own = whole.judged.truths if of_truths else whole.judged.detections
    ignore = whole.judged.truths.ignore if of_truths else None
    return [
        {
            "label": whole.judged.classes[own.labels[row] - 1],
            **dict(zip(COORDINATES, own.boxes[row].tolist(), strict=True)),
        }
        | {"suspect": "wrong" if marked[row] else None, "ignore": bool(ignore is not None and ignore[row])}
        for row in np.flatnonzero(rows).tolist()
    ]


def _doubtful(whole: Evaluation, suspects: Rows, folder: Path, most: int) -> Iterator[Path]:
    """Yield a sheet a kind of the surest doubtful labels, each with what is around it."""
    places = {name: place for place, name in enumerate(whole.judged.column("image_id").tolist())}
    for kind in sorted({row["kind"] for row in suspects}):
        tiles = []
        for row in [row for row in suspects if row["kind"] == kind][: 4 * most]:
            if (photo := _photo(whole, places[row["image_id"]])) is not None:
                tiles.append((f"{row['rank']}: {_told(row)}", _cut_out(photo, row)))
        if tiles:
            yield save_picture(contact_sheet(tiles, 8, CROP), folder / "drawings" / f"labels_{kind}.jpg")


def _told(row: Mapping[str, Any]) -> str:
    seen = f", found as {row['found_label']}" if row["kind"] == "class" else ""
    return f"{row['label']}{seen}, {row['sure']:.2f}"


def _cut_out(photo: Image.Image, row: Mapping[str, Any]) -> Image.Image:
    """Return a box with what is around it."""
    around = AROUND * max(row["xmax"] - row["xmin"], row["ymax"] - row["ymin"])
    left, top = (max(0, round(row[name] - around)) for name in COORDINATES[:2])
    right, bottom = (round(row[name] + around) for name in COORDINATES[2:])
    picture = photo.crop((left, top, min(photo.width, right), min(photo.height, bottom)))
    larger = max(1.0, min(side / length for side, length in zip(CROP, picture.size, strict=True)))
    picture = picture.resize((round(picture.width * larger), round(picture.height * larger)))
    moved = {name: (row[name] - (left if name[0] == "x" else top)) * larger for name in COORDINATES}
    return draw_boxes(picture, [{"label": row["label"], **moved}])


def _photo(whole: Evaluation, place: int) -> Image.Image | None:
    """Return a photo, None if it is not there any more: a picture less is no reason to stop."""
    try:
        return Image.fromarray(decode_photo(read_bytes(whole.judged.images["uri"][place].as_py())))
    except (BadInputError, OSError):
        return None
