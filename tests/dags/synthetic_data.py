"""Draws a set of facades with its card, and makes a network of chance; runs where the pipeline is installed."""

import sys
from pathlib import Path

import torch

from pipeline.datasets.synthetic import write_dataset
from pipeline.datasets.synthetic.cards import BOX_CARD
from ssd import SSD, BackboneConfig, Bundle, ModelConfig, preset, save_bundle


def main(folder: Path, count: int) -> None:
    """Draw so many facades, and make a bundle that finds something in them."""
    write_dataset(folder / "drawn", count, seed=5, width=320, height=240)
    (folder / "card.toml").write_text(BOX_CARD)
    torch.manual_seed(0)
    config = ModelConfig(preset("paper_coco"), ("building", "window", "door"), BackboneConfig("tiny"))
    save_bundle(folder / "bundle", Bundle(SSD(config).eval()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
