"""The picture of two runs: precision and recall of each class, and how they were trained, drawn over one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pipeline.imaging.plotting import INK, class_colour, save_figure
from pipeline.stages.evaluate.record import PrCurves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["RunCurves", "draw_runs"]

STYLES: Final = ("solid", "dashed")
TITLES: Final = {"val.loss": "loss on validation photos", "val.map50": "mAP at IoU .5 on validation photos"}


@dataclass(frozen=True)
class RunCurves:
    """What is drawn of a run: recall and precision of each class, and figures of its training, by epoch."""

    name: str
    pr_curves: PrCurves
    metric_history: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)


def draw_runs(runs: Sequence[RunCurves], path: Path) -> Path:
    """Return the path of a picture with a panel a class, and one for each figure that all trainings have kept."""
    labels = sorted({label for run in runs for label in run.pr_curves})
    kept = {TITLES[name]: name for name in TITLES if all(run.metric_history.get(name) for run in runs)}

    def panel(axes: Axes, title: str) -> None:
        for run, style in zip(runs, STYLES, strict=True):
            if title in kept:
                steps, values = zip(*run.metric_history[kept[title]], strict=True)
                axes.plot(steps, values, color=INK, linestyle=style, label=run.name)
            elif title in run.pr_curves:
                axes.plot(*run.pr_curves[title], color=class_colour(title), linestyle=style, label=run.name)
        _style_axes(axes, title in kept)

    return save_figure(path, [*labels, *kept], panel)


def _style_axes(axes: Axes, by_epoch: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    if by_epoch:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel("epoch")
        axes.set_ylim(bottom=0)
    else:
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
    axes.legend(frameon=False, fontsize=8, loc="best" if by_epoch else "lower left")
