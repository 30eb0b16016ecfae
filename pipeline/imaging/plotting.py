"""Figures of counts: the report's histograms, drawn without any window or global state."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.imaging.drawing import class_rgb
from pipeline.storage.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["INK", "class_colour", "save_figure"]

INK, GRID = "#303030", "#dddddd"


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


def class_colour(label: str) -> tuple[float, float, float]:
    """Return the colour of a class as matplotlib takes it, a little darker, for white paper."""
    red, green, blue = class_rgb(label)
    return red / 255 * 0.9, green / 255 * 0.9, blue / 255 * 0.9
