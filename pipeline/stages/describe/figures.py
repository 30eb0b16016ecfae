"""Figures of box histograms, as in the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.stages.describe.histograms import (
    AREA_EDGES,
    ASPECT_EDGES,
    IMAGE_LABEL,
    SIDE_BINS,
    SIDE_EDGES,
    bin_centres,
    histogram,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from pipeline.imaging.plotting import INK, class_colour, save_figure

__all__ = ["draw_shapes"]


def draw_shapes(shapes: pa.Table, folder: Path) -> list[Path]:
    """Return the paths of the figures of a table of counts, one picture a measure with a panel for each class."""
    labels = sorted(
        set(shapes["label"].to_pylist()) - {IMAGE_LABEL}, key=lambda label: (label != "building", label != "window")
    )
    if not labels:
        return []
    panels: dict[str, Callable[[Axes, str], None]] = {
        "aspect_ratio": lambda axes, label: _plot_histogram(
            axes, shapes, "aspect", label, ASPECT_EDGES, "width / height"
        ),
        "area_ratio": lambda axes, label: _plot_histogram(
            axes, shapes, "area", label, AREA_EDGES, "share of the image's area"
        ),
        "objects_per_image": lambda axes, label: _plot_objects(axes, shapes, label),
        "sizes_at_300": lambda axes, label: _plot_sizes(axes, shapes, label),
    }
    return [save_figure(folder / f"{name}.png", labels, panel) for name, panel in panels.items()]


def _plot_histogram(axes: Axes, shapes: pa.Table, measure: str, label: str, edges: Any, name: str) -> None:
    counts = histogram(shapes, measure, label)
    centres = bin_centres(edges)
    at = np.array(list(counts), np.int64)
    width = centres[at] * (2 ** (1 / 16) - 2 ** (-1 / 16))
    axes.bar(centres[at], list(counts.values()), width=width, color=class_colour(label), edgecolor="none")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(_format_tick)
    axes.set_xlabel(name)
    axes.set_ylabel("boxes")


def _plot_objects(axes: Axes, shapes: pa.Table, label: str) -> None:
    counts = histogram(shapes, "objects", label)
    axes.bar(list(counts), list(counts.values()), width=0.9, color=class_colour(label))
    axes.set_xlabel("objects in an image")
    axes.set_ylabel("images")


def _plot_sizes(axes: Axes, shapes: pa.Table, label: str) -> None:
    counts, centres = histogram(shapes, "shape", label), bin_centres(SIDE_EDGES)
    width, height = np.divmod(np.array(list(counts), np.int64), SIDE_BINS)
    size = np.array(list(counts.values()), np.float64)
    axes.scatter(
        centres[width],
        centres[height],
        s=4 + 90 * size / max(size.max(initial=1), 1),
        color=class_colour(label),
        lw=0.3,
        ec=INK,
    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.xaxis.set_major_formatter(_format_tick)
    axes.yaxis.set_major_formatter(_format_tick)
    axes.set_xlim(2, 320)
    axes.set_ylim(2, 320)
    axes.set_xlabel("width in pixels at 300x300")
    axes.set_ylabel("height")


def _format_tick(value: float, _: float) -> str:
    return f"{value:.3g}" if value >= 1 else f"1/{1 / value:.0f}"
