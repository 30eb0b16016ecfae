"""Draws a set of facades, its card, and a file of `facade run` for it; runs where the pipeline is installed."""

import sys
from pathlib import Path

from pipeline.demo import BOX_CARD
from pipeline.synthetic import write_dataset

RUN = """\
work = "work"

[[datasets]]
card = "card.toml"
root = "drawn"

[extract]
drawings = 2

[train]
preset = "demo"
priors = "paper_coco"
epochs = 1
batch = 4
device = "cpu"

[evaluate]
resamples = 50
drawings = 0
"""


def main(folder: Path, count: int) -> None:
    """Draw so many facades; those that are there stay."""
    write_dataset(folder / "drawn", count, seed=5, width=320, height=240)
    (folder / "card.toml").write_text(BOX_CARD)
    (folder / "run.toml").write_text(RUN)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
