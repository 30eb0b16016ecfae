"""Regions on runs compared with skimage's label and regionprops, on the same decoded masks, alternating.

python tests/bench/bench_components.py SHARED_DATA
"""

import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from skimage.measure import label, regionprops_table

from pipeline.datasets.annotations.masks import map_codes_to_names
from pipeline.datasets.card import resolve_card
from pipeline.imaging.image_io import read_mask_codes
from pipeline.imaging.run_length import encode_runs
from pipeline.stages.extract.connected_components import find_regions

CARD = resolve_card("labelmefacade")[0]
BUILDING, WINDOW, DOOR = (CARD.names.index(name) for name in ("building", "window", "door"))


def on_runs(codes: np.ndarray) -> int:
    runs = encode_runs(codes)
    names = map_codes_to_names(CARD, runs.values)
    count = 0
    for members in ([WINDOW, DOOR], [BUILDING, WINDOW, DOOR]):
        layer = np.where(np.isin(names, members), names if len(members) == 2 else 0, -1)
        count += len(find_regions(replace(runs, values=layer).select(layer >= 0)).areas)
    return count


def on_pixels(codes: np.ndarray) -> int:
    names = map_codes_to_names(CARD, codes)
    count = 0
    for members in ([WINDOW, DOOR], [BUILDING, WINDOW, DOOR]):
        layer = np.where(np.isin(names, members), names + 1 if len(members) == 2 else 1, 0)
        table = regionprops_table(label(layer, connectivity=2), properties=("label", "bbox", "area"))
        count += len(table["label"])
    return count


def main(root: Path) -> None:
    paths = sorted((root / "labelmefacade/labels").rglob("*.png"))[:100]
    masks = [read_mask_codes(path.read_bytes(), colours=True)[0] for path in paths]
    assert [on_runs(mask) for mask in masks] == [on_pixels(mask) for mask in masks]
    seconds: dict[str, list[float]] = {"runs": [], "pixels": []}
    for _ in range(5):
        for name, function in (("runs", on_runs), ("pixels", on_pixels)):
            start = time.perf_counter()
            for mask in masks:
                function(mask)
            seconds[name].append((time.perf_counter() - start) / len(masks) * 1000)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        {name: f"{value:.2f} ms a mask" for name, value in middle.items()},
        f"ratio {middle['pixels'] / middle['runs']:.1f}",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
