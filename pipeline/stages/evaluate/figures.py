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
from pipeline.imaging.plotting import INK, class_colour, save_figure
from pipeline.stages.evaluate.error_analysis import OUTCOMES
from pipeline.stages.evaluate.scores import PARTS
from pipeline.storage.files import read_bytes
from pipeline.storage.schemas import COORDINATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipeline.stages.evaluate.tables import Evaluation

__all__ = ["draw_evaluation"]

Rows = Sequence[Mapping[str, Any]]
OUTCOME_COLOURS: Final = {
    "correct": "#5aa469",
    "duplicate": "#8f7bbf",
    "localisation": "#e0a83e",
    "class": "#4f86c6",
    "background": "#c4532f",
    "missed": "#8a8a8a",
}
MAX_SIDE: Final = 640  # of a drawn photo, at most
CROP_MARGIN: Final = 0.75  # of a doubtful label's sides, shown on each side of it
CROP_SIZE: Final = (220, 220)


def draw_evaluation(
    evaluation: Evaluation, tables: Mapping[str, pa.Table], folder: Path, max_photos: int
) -> list[Path]:
    """Return the paths of all pictures of an evaluation; the figures are of test, or of what there is."""
    rows = {name: tables[name].to_pylist() for name in ("scores", "curves", "error_breakdown", "suspicious_labels")}
    split = "test" if "test" in evaluation.splits else evaluation.splits[-1]
    labels = [label for label in evaluation.data.classes if any(row["label"] == label for row in rows["curves"])]
    place = folder / "figures"
    figures = [*_curve_figures(rows["curves"], evaluation, split, labels, place)] if labels else []
    figures += _part_figures(rows["scores"], split, labels, place) if labels else []
    if labels:
        figures.append(_error_breakdown_figure(rows["error_breakdown"], split, labels, place))
    pictures = [
        *_worst_photo_sheets(evaluation, tables["evaluated_images"], folder, max_photos),
        *_suspicious_label_sheets(evaluation, rows["suspicious_labels"], folder, max_photos),
    ]
    for path in set(folder.glob("previews/*.jpg")) - set(pictures):
        path.unlink()
    return [*figures, *pictures]


def _curve_figures(
    curves: Rows, evaluation: Evaluation, split: str, labels: Sequence[str], folder: Path
) -> Iterator[Path]:
    def precision(axes: Axes, label: str) -> None:
        for shown, style in ((split, "solid"), (evaluation.fit_split, "dotted")):
            own = [row for row in curves if (row["split"], row["label"]) == (shown, label)]
            if own and (style == "solid" or shown != split):
                axes.plot(
                    [row["recall"] for row in own],
                    [row["precision"] for row in own],
                    color=class_colour(label),
                    linestyle=style,
                    label=shown,
                )
        _set_unit_axes(axes, "recall", "precision")
        axes.legend(frameon=False, fontsize=8, loc="lower left")

    def scores(axes: Axes, label: str) -> None:
        own = [row for row in curves if (row["split"], row["label"]) == (split, label)]
        for name, style in (("precision", "dashed"), ("recall", "dotted"), ("f1", "solid")):
            axes.plot(
                [row["score"] for row in own],
                [row[name] for row in own],
                color=class_colour(label),
                ls=style,
                label=name,
            )
        if (point := evaluation.operating_point.classes.get(label)) is not None:
            axes.axvline(point.threshold, color=INK, linewidth=0.8)
        _set_unit_axes(axes, "score, line: best F1 on " + evaluation.fit_split, "")
        axes.legend(frameon=False, fontsize=8)

    def plot_calibration(axes: Axes, label: str) -> None:
        if (point := evaluation.operating_point.classes.get(label)) is not None:
            axes.plot(point.scores, point.probabilities, color=class_colour(label), marker=".", markersize=4)
        _set_unit_axes(axes, "score", "calibrated probability")

    yield save_figure(folder / "precision_recall.png", labels, precision)
    yield save_figure(folder / "scores.png", labels, scores)
    yield save_figure(folder / "calibration.png", labels, plot_calibration)


def _part_figures(scores: Rows, split: str, labels: Sequence[str], folder: Path) -> list[Path]:
    """Return the figures of average precision and recall by size and by shape (the SSD paper's figures 4 and 6)."""

    def panel(axes: Axes, label: str, kind: str) -> None:
        own = {
            (row["part"], row["protocol"]): row["value"]
            for row in scores
            if (row["split"], row["dataset"], row["label"]) == (split, "", label)
        }
        for at, name in enumerate(PARTS[kind]):
            if (value := own.get((f"{kind} {name}", "voc11_50_normalised"))) is not None:
                axes.bar(at, value, width=0.7, color=class_colour(label))
                axes.plot([at - 0.35, at + 0.35], [own[f"{kind} {name}", "recall_50"]] * 2, color=INK, lw=1)
        axes.set_xticks(range(len(PARTS[kind])), PARTS[kind])
        axes.set_ylim(0, 1.02)
        axes.set_xlabel({"size": "from small to large", "shape": "from tall to wide"}[kind])
        axes.set_ylabel("normalised AP, line: recall")

    return [save_figure(folder / f"by_{kind}.png", labels, partial(panel, kind=kind)) for kind in PARTS]


def _error_breakdown_figure(error_breakdown: Rows, split: str, labels: Sequence[str], folder: Path) -> Path:
    def panel(axes: Axes, label: str) -> None:
        own = {row["kind"]: row for row in error_breakdown if (row["split"], row["label"]) == (split, label)}
        names = [name for name in OUTCOME_COLOURS if name in own]
        at = [float(place) for place in range(len(names))][::-1]
        axes.barh(
            at, [own[name]["count"] for name in names], color=[OUTCOME_COLOURS[name] for name in names], height=0.7
        )
        for height, name in zip(at, names, strict=True):
            cost = own[name]["ap_gain"]
            text = f" {own[name]['count']:,}" + (f", costs {100 * cost:.1f}" if cost is not None else "")
            axes.text(own[name]["count"], height, text, va="center", fontsize=8, color=INK)
        axes.set_yticks(at, names)
        axes.margins(x=0.45)
        axes.set_xlabel(f"{split}: chosen detections; points of AP")

    return save_figure(folder / "error_breakdown.png", labels, panel)


def _set_unit_axes(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


# Photos


def _worst_photo_sheets(
    evaluation: Evaluation, evaluated_images: pa.Table, folder: Path, max_photos: int
) -> Iterator[Path]:
    """Yield a sheet a class of the photos with most errors in it: what was found, what is true, errors crossed."""
    _, chosen = evaluation.selection
    missed, verdicts = evaluation.error_analysis.missed(chosen), evaluation.error_analysis
    wrong = chosen & (verdicts.outcomes > OUTCOMES.index("ignored"))
    count = len(evaluated_images)
    for number, label in enumerate(evaluation.data.classes, start=1):
        found, truths = evaluation.data.detections, evaluation.data.ground_truths
        errors = np.bincount(found.images[wrong & (found.labels == number)].astype(np.int64), minlength=count)
        errors += np.bincount(truths.images[missed & (truths.labels == number)].astype(np.int64), minlength=count)
        worst = [place for place in np.argsort(-errors, kind="stable")[:max_photos].tolist() if errors[place]]
        tiles = []
        for place in worst:
            if (photo := _read_photo(evaluation, place)) is None:
                continue
            image = evaluation.data.images["image_id"][place].as_py()
            own = _boxes_to_draw(evaluation, chosen & (found.images == place) & (found.labels == number), wrong)
            true = _boxes_to_draw(
                evaluation, (truths.images == place) & (truths.labels == number), missed, of_ground_truths=True
            )
            tiles += [(f"{image}: found", draw_boxes(photo, own)), ("true", draw_boxes(photo, true))]
        if tiles:
            sheet = contact_sheet(tiles, 4, (MAX_SIDE * 3 // 4, MAX_SIDE * 9 // 16))
            yield save_picture(sheet, folder / "previews" / f"worst_{label}.jpg")


def _boxes_to_draw(
    evaluation: Evaluation, rows: Any, crossed_out: Any, of_ground_truths: bool = False
) -> list[dict[str, Any]]:
    """Return boxes to draw, those that are marked crossed."""
    own = evaluation.data.ground_truths if of_ground_truths else evaluation.data.detections
    ignore = evaluation.data.ground_truths.ignore if of_ground_truths else None
    return [
        {
            "label": evaluation.data.classes[own.labels[row] - 1],
            **dict(zip(COORDINATES, own.boxes[row].tolist(), strict=True)),
        }
        | {"suspect": "wrong" if crossed_out[row] else None, "ignore": bool(ignore is not None and ignore[row])}
        for row in np.flatnonzero(rows).tolist()
    ]


def _suspicious_label_sheets(
    evaluation: Evaluation, suspicious_labels: Rows, folder: Path, max_photos: int
) -> Iterator[Path]:
    """Yield a sheet a kind of the surest doubtful labels, each with what is around it."""
    places = {name: place for place, name in enumerate(evaluation.data.column("image_id").tolist())}
    for kind in sorted({row["kind"] for row in suspicious_labels}):
        tiles = []
        for row in [row for row in suspicious_labels if row["kind"] == kind][: 4 * max_photos]:
            if (photo := _read_photo(evaluation, places[row["image_id"]])) is not None:
                tiles.append((f"{row['rank']}: {_caption(row)}", _crop_box(photo, row)))
        if tiles:
            yield save_picture(contact_sheet(tiles, 8, CROP_SIZE), folder / "previews" / f"labels_{kind}.jpg")


def _caption(row: Mapping[str, Any]) -> str:
    seen = f", found as {row['detected_label']}" if row["kind"] == "class" else ""
    return f"{row['label']}{seen}, {row['confidence']:.2f}"


def _crop_box(photo: Image.Image, row: Mapping[str, Any]) -> Image.Image:
    """Return a box with what is around it."""
    around = CROP_MARGIN * max(row["xmax"] - row["xmin"], row["ymax"] - row["ymin"])
    left, top = (max(0, round(row[name] - around)) for name in COORDINATES[:2])
    right, bottom = (round(row[name] + around) for name in COORDINATES[2:])
    picture = photo.crop((left, top, min(photo.width, right), min(photo.height, bottom)))
    larger = max(1.0, min(side / length for side, length in zip(CROP_SIZE, picture.size, strict=True)))
    picture = picture.resize((round(picture.width * larger), round(picture.height * larger)))
    moved = {name: (row[name] - (left if name[0] == "x" else top)) * larger for name in COORDINATES}
    return draw_boxes(picture, [{"label": row["label"], **moved}])


def _read_photo(evaluation: Evaluation, index: int) -> Image.Image | None:
    """Return a photo, None if it is not there any more: a picture less is no reason to stop."""
    try:
        return Image.fromarray(decode_photo(read_bytes(evaluation.data.images["uri"][index].as_py())))
    except (BadInputError, OSError):
        return None
