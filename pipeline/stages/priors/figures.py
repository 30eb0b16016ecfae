"""Figure of the coverage of ground truth boxes by priors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from pipeline.imaging.plotting import INK, class_colour, save_figure

__all__ = ["draw_coverage"]


def draw_coverage(rows: Sequence[Mapping[str, Any]], split: str, folder: Path) -> list[Path]:
    """Return the path of a figure of coverage by priors, a panel a class, the figures of one split."""
    own = [row for row in rows if row["split"] == split]
    labels = list(dict.fromkeys(row["label"] for row in own))

    def panel(axes: Axes, label: str) -> None:
        shown = [row for row in own if row["label"] == label][::-1]
        places, names = [float(place) for place in range(len(shown))], [row["name"] for row in shown]
        axes.barh(places, [row["coverage_50"] for row in shown], height=0.7, color=class_colour(label), alpha=0.45)
        axes.barh(places, [row["coverage_70"] for row in shown], height=0.7, color=class_colour(label))
        axes.set_yticks(places, names)
        axes.set_xlim(0, 1.3)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel(f"{split}: covered at IoU .5 (light), .7")
        axes.text(1.03, len(shown) - 0.5, "positives", va="center", fontsize=8, color=INK)
        for place, row in zip(places, shown, strict=True):
            axes.text(1.03, place, f"{row['positives']:.1f}", va="center", fontsize=9, color=INK)

    return [save_figure(folder / "coverage.png", labels, panel)] if labels else []
