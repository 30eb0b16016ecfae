"""Figures of counts: the report's histograms, drawn without any window or global state."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.drawing import colour_of
from pipeline.files import write_bytes
from pipeline.shapes import AREA_EDGES, ASPECT_EDGES, IMAGE, SIDE_BINS, SIDE_EDGES, histogram, middles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["INK", "draw_coverage", "draw_shapes", "paint_of", "save_figure"]

INK, GRID = "#303030", "#dddddd"


def draw_shapes(shapes: pa.Table, folder: Path) -> list[Path]:
    """Return the paths of the figures of a table of counts, one picture a measure with a panel for each class."""
    labels = sorted(
        set(shapes["label"].to_pylist()) - {IMAGE}, key=lambda label: (label != "building", label != "window")
    )
    if not labels:
        return []
    panels: dict[str, Callable[[Axes, str], None]] = {
        "aspect_ratio": lambda axes, label: _bars(axes, shapes, "aspect", label, ASPECT_EDGES, "width / height"),
        "area_ratio": lambda axes, label: _bars(axes, shapes, "area", label, AREA_EDGES, "share of the image's area"),
        "objects_per_image": lambda axes, label: _objects(axes, shapes, label),
        "sizes_at_300": lambda axes, label: _sizes(axes, shapes, label),
    }
    return [save_figure(folder / f"{name}.png", labels, panel) for name, panel in panels.items()]


def draw_coverage(rows: Sequence[Mapping[str, Any]], split: str, folder: Path) -> list[Path]:
    """Return the path of a figure of coverage by priors, a panel a class, the figures of one split."""
    own = [row for row in rows if row["split"] == split]
    labels = list(dict.fromkeys(row["label"] for row in own))

    def panel(axes: Axes, label: str) -> None:
        shown = [row for row in own if row["label"] == label][::-1]
        places, names = [float(place) for place in range(len(shown))], [row["name"] for row in shown]
        axes.barh(places, [row["coverage_50"] for row in shown], height=0.7, color=paint_of(label), alpha=0.45)
        axes.barh(places, [row["coverage_70"] for row in shown], height=0.7, color=paint_of(label))
        axes.set_yticks(places, names)
        axes.set_xlim(0, 1.3)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel(f"{split}: covered at IoU .5 (light), .7")
        axes.text(1.03, len(shown) - 0.5, "positives", va="center", fontsize=8, color=INK)
        for place, row in zip(places, shown, strict=True):
            axes.text(1.03, place, f"{row['positives']:.1f}", va="center", fontsize=9, color=INK)

    return [save_figure(folder / "coverage.png", labels, panel)] if labels else []


def save_figure(path: Path, titles: Sequence[str], panel: Callable[[Axes, str], None]) -> Path:
    """Return the path of a PNG with a panel for each title, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(titles), 3.6), dpi=110, layout="constrained")
    for position, title in enumerate(titles, start=1):
        axes = figure.add_subplot(1, len(titles), position)
        axes.set_title(title, color=INK, fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        panel(axes, title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
    return path


def paint_of(label: str) -> tuple[float, float, float]:
    """Return the colour of a class as matplotlib takes it, a little darker, for white paper."""
    red, green, blue = colour_of(label)
    return red / 255 * 0.9, green / 255 * 0.9, blue / 255 * 0.9


def _bars(axes: Axes, shapes: pa.Table, measure: str, label: str, edges: Any, name: str) -> None:
    counts = histogram(shapes, measure, label)
    centres = middles(edges)
    at = np.array(list(counts), np.int64)
    width = centres[at] * (2 ** (1 / 16) - 2 ** (-1 / 16))
    axes.bar(centres[at], list(counts.values()), width=width, color=paint_of(label), edgecolor="none")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(_short)
    axes.set_xlabel(name)
    axes.set_ylabel("boxes")


def _objects(axes: Axes, shapes: pa.Table, label: str) -> None:
    counts = histogram(shapes, "objects", label)
    axes.bar(list(counts), list(counts.values()), width=0.9, color=paint_of(label))
    axes.set_xlabel("objects in an image")
    axes.set_ylabel("images")


def _sizes(axes: Axes, shapes: pa.Table, label: str) -> None:
    counts, centres = histogram(shapes, "shape", label), middles(SIDE_EDGES)
    width, height = np.divmod(np.array(list(counts), np.int64), SIDE_BINS)
    size = np.array(list(counts.values()), np.float64)
    axes.scatter(
        centres[width],
        centres[height],
        s=4 + 90 * size / max(size.max(initial=1), 1),
        color=paint_of(label),
        lw=0.3,
        ec=INK,
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter(_short)
    axes.yaxis.set_major_formatter(_short)
    axes.set_xlim(2, 320)
    axes.set_ylim(2, 320)
    axes.set_xlabel("width in pixels at 300x300")
    axes.set_ylabel("height")


def _short(value: float, _: float) -> str:
    return f"{value:.3g}" if value >= 1 else f"1/{1 / value:.0f}"
