"""Figures of a training: losses and precision from epoch to epoch, and what the augmentation shows the network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipeline.imaging.drawing import contact_sheet, draw_boxes, save_picture
from pipeline.imaging.plotting import INK, class_colour, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from ssd import Target

__all__ = ["draw_mosaic", "draw_training"]

Rows = Sequence[Mapping[str, float]]
LOSSES = {"total loss": "loss", "localisation loss": "loss_location", "confidence loss": "loss_confidence"}
PRECISIONS = {"average precision, IoU .5": "50", "average precision, IoU .75": "75"}
TRAIN_COLOUR, VAL_COLOUR = "#5b7aa6", "#c4532f"
MAX_MARKERS = 40  # so many points are drawn as dots too: one alone would be no line
STYLES = ("solid", "dashed", "dotted", "dashdot")
DECADE, MAX_INSIDE_LEGEND = 10, 6
MOSAIC_COLUMNS, MOSAIC_ROWS = 4, 4


def draw_training(rows: Rows, best: int, folder: Path) -> list[Path]:
    """Return the paths of the figures of a training, a row an epoch, with the epoch that was kept marked.

    `losses.png` has the loss and its two terms on train and, where there are any, on validation photos;
    `precision.png` the average precision of each class on those.
    """

    def losses(axes: Axes, title: str) -> None:
        lines = {name: _series(rows, f"{name}.{LOSSES[title]}") for name in ("train", "val")}
        _plot_line(axes, *lines["train"], "train", color=TRAIN_COLOUR)
        _plot_line(axes, *lines["val"], "validation", color=VAL_COLOUR)
        if _spans_decades([value for _, values in lines.values() for value in values]):
            _use_log_scale(axes)
        _finish_axes(axes, rows, best)

    def precisions(axes: Axes, title: str) -> None:
        percent = PRECISIONS[title]
        labels = _classes(rows, percent)
        for label, dashes in zip(labels, _line_styles(labels), strict=True):
            _plot_line(
                axes, *_series(rows, f"val.ap{percent}.{label}"), label, color=class_colour(label), linestyle=dashes
            )
        _plot_line(axes, *_series(rows, f"val.map{percent}"), "mean", color=INK, linewidth=2.2)
        _finish_axes(axes, rows, best)

    paths = [save_figure(folder / "losses.png", list(LOSSES), losses)]
    if any("val.map50" in row for row in rows):
        paths.append(save_figure(folder / "precision.png", list(PRECISIONS), precisions))
    return paths


def draw_mosaic(inputs: Tensor, targets: Sequence[Target], classes: Sequence[str], path: Path) -> Path:
    """Return the path of one picture of the first inputs (B, 3, H, W), RGB 0..255, with what each should show.

    Boxes are in their class's colour, those to ignore black and white.
    """
    most, (height, width) = MOSAIC_COLUMNS * MOSAIC_ROWS, inputs.shape[-2:]
    pixels = inputs[:most].detach().cpu().clamp(0, 255).round().byte().permute(0, 2, 3, 1).numpy()
    pictures = [
        draw_boxes(Image.fromarray(photo), _target_boxes(target, classes))
        for photo, target in zip(pixels, targets[:most], strict=True)
    ]
    return save_picture(contact_sheet([("", picture) for picture in pictures], MOSAIC_COLUMNS, (width, height)), path)


def _target_boxes(target: Target, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return a target's boxes as rows of a table of boxes."""
    ignore = [False] * len(target.labels) if target.ignore is None else target.ignore.tolist()
    return [
        {
            "label": classes[label - 1],
            "ignore": ignored,
            **dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)),
        }
        for box, label, ignored in zip(target.boxes.tolist(), target.labels.tolist(), ignore, strict=True)
    ]


def _series(rows: Rows, name: str) -> tuple[list[float], list[float]]:
    """Return the epochs that have a number of this name, and the numbers."""
    found = [(row["epoch"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _classes(rows: Rows, percent: str) -> list[str]:
    start = f"val.ap{percent}."
    return list(dict.fromkeys(name.removeprefix(start) for row in rows for name in row if name.startswith(start)))


def _plot_line(axes: Axes, epochs: list[float], values: list[float], label: str, **style: Any) -> None:
    if values:
        dots = {"marker": "o", "markersize": 3.5} if len(values) <= MAX_MARKERS else {}
        axes.plot(epochs, values, **{"label": label, "linewidth": 1.4, **dots, **style})


def _line_styles(labels: Sequence[str]) -> list[str]:
    """Return the line style of each class: full, but for those whose colour another one has already."""
    seen = Counter[tuple[float, ...]]()
    styles = []
    for colour in map(class_colour, labels):
        styles.append(STYLES[seen[colour] % len(STYLES)])
        seen[colour] += 1
    return styles


def _spans_decades(values: Sequence[float]) -> bool:
    return bool(values) and 0 < DECADE * min(values) < max(values)


def _use_log_scale(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < DECADE**2 * low else (1,)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _finish_axes(axes: Axes, rows: Rows, best: int) -> None:
    """Mark the best epoch, and label the lines, next to the panel if there are many."""
    from matplotlib.ticker import MaxNLocator

    lines, epochs = axes.get_lines(), [row["epoch"] for row in rows]
    if axes.get_yscale() == "linear":
        axes.set_ylim(0, 1.08 * axes.dataLim.y1 if lines and axes.dataLim.y1 > 0 else 1)
    axes.axvline(best, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"kept: epoch {best}", zorder=0.5)
    axes.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=(1, 2, 5, 10)))
    axes.set_xlabel("epoch")
    legend: dict[str, Any] = (
        {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if len(lines) > MAX_INSIDE_LEGEND else {}
    )
    axes.legend(fontsize=8, frameon=False, **legend)
