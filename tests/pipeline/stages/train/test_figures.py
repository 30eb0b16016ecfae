"""Figures of a training: something is drawn of any run, the same each time, and boxes in their colours."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from pipeline.imaging.drawing import class_rgb
from pipeline.stages.train.figures import draw_mosaic, draw_training
from ssd import Target

BOTH = ["losses.png", "precision.png"]


def rows_of(
    epochs: int, every: int = 1, span: float = 2.0, classes: tuple[str, ...] = ("window", "door")
) -> list[Mapping[str, float]]:
    """Return rows whose losses fall from `span` to 1; `every` 0: without validation."""
    rows = []
    for epoch in range(1, epochs + 1):
        loss = span ** (1 - (epoch - 1) / max(epochs - 1, 1))
        row = {"epoch": epoch, "step": 9 * epoch, "lr": 1e-3, "images_per_second": 9.0}
        for name in ("train", "val"):
            if name == "train" or (every and epoch % every == 0):
                row |= {f"{name}.loss": loss, f"{name}.loss_location": loss / 3, f"{name}.loss_confidence": loss / 1.5}
        if every and epoch % every == 0:
            aps = {label: epoch / epochs / (place + 1) for place, label in enumerate(classes)}
            for percent in (50, 75):
                row |= {f"val.map{percent}": float(np.mean(list(aps.values())))}
                row |= {f"val.ap{percent}.{label}": value for label, value in aps.items()}
        rows.append(row)
    return rows


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written, in order."""
    written: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **more: written.append(figure) or save(figure, *args, **more)
    )
    return written


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (rows_of(1), BOTH),
        (rows_of(12, every=5, span=1e4), BOTH),
        (rows_of(3, every=0), BOTH[:1]),
        (rows_of(2, classes=tuple("abcdefghijkl")), BOTH),
        ([{"epoch": 1, "train.loss": float("nan"), "val.loss": float("nan"), "val.map50": 0.0}], BOTH),
    ],
    ids=["one epoch", "now and then", "no validation", "many classes", "no numbers"],
)
def test_any_training_can_be_drawn(rows: list[Mapping[str, float]], names: list[str], tmp_path: Path) -> None:
    paths = draw_training(rows, len(rows), tmp_path / "figures")
    assert [path.name for path in paths] == names
    for path in paths:
        assert path.parent == tmp_path / "figures"
        assert len(np.unique(np.asarray(Image.open(path).convert("L")))) > 20


def test_lines_have_the_numbers_of_the_rows(figures: list[Figure], tmp_path: Path) -> None:
    rows = rows_of(12, every=5)
    draw_training(rows, 5, tmp_path)
    losses, precision = figures
    for axes, name in zip(losses.axes, ("loss", "loss_location", "loss_confidence"), strict=True):
        train, val, kept = axes.get_lines()
        assert [line.get_label() for line in (train, val, kept)] == ["train", "validation", "kept: epoch 5"]
        assert train.get_xydata().tolist() == [[row["epoch"], row[f"train.{name}"]] for row in rows]
        assert val.get_xydata().tolist() == [[row["epoch"], row[f"val.{name}"]] for row in rows[4::5]]
        assert list(kept.get_xdata()) == [5, 5]
        assert axes.get_yscale() == "linear"
    lines = {line.get_label(): line.get_xydata().tolist() for line in precision.axes[1].get_lines()}
    assert list(lines) == ["window", "door", "mean", "kept: epoch 5"]
    assert lines["door"] == [[epoch, epoch / 24] for epoch in (5, 10)]


def test_values_that_span_decades_are_drawn_in_decades(figures: list[Figure], tmp_path: Path) -> None:
    draw_training(rows_of(5, span=100.0), 5, tmp_path)
    assert [axes.get_yscale() for axes in figures[0].axes] == ["log"] * 3
    assert [axes.get_yscale() for axes in figures[1].axes] == ["linear"] * 2


def test_classes_that_share_a_colour_differ_in_their_dashes(figures: list[Figure], tmp_path: Path) -> None:
    draw_training(rows_of(2, classes=tuple("abcdefghijkl")), 2, tmp_path)
    looks = [(line.get_color(), line.get_linestyle()) for line in figures[1].axes[0].get_lines()]
    assert len(set(looks)) == len(looks) == 14


def test_a_mosaic_shows_boxes_in_their_colours(tmp_path: Path) -> None:
    inputs = torch.full((18, 3, 60, 80), 127.6)
    inputs[1] += 200  # what is too bright is white
    boxes = torch.tensor([[10.0, 20, 40, 50], [50, 20, 70, 50]])
    targets = [
        Target(boxes, torch.tensor([1, 2]), torch.tensor([False, True])),
        Target(torch.zeros(0, 4), torch.zeros(0).long()),
    ]
    path = draw_mosaic(inputs, targets * 9, ("window", "door"), tmp_path / "some" / "augmented.png")
    picture = np.asarray(Image.open(path))
    assert path == tmp_path / "some" / "augmented.png"
    assert picture.shape == (4 * (60 + 10) + 10, 4 * (80 + 10) + 10, 3)
    first, second = picture[10:70, 10:90], picture[10:70, 100:180]
    assert (first[49, 10:40] == class_rgb("window")).all()
    assert (first[30, 20] == 128).all()
    assert (first[20, 50:70] == 255).all()
    assert (first[21, 52:68] == 0).all()
    assert (second == 255).all()
    assert not (first == class_rgb("door")).all(axis=-1).any()


def test_a_mosaic_of_few_photos_is_small(tmp_path: Path) -> None:
    nothing = Target(torch.zeros(0, 4), torch.zeros(0).long())
    path = draw_mosaic(torch.zeros(1, 3, 30, 40, dtype=torch.uint8), [nothing], ("window",), tmp_path / "a.png")
    with Image.open(path) as picture:
        assert picture.size == (60, 50)
