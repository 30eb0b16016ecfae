"""`extract` on 4,500 masks compared with decoding them only, on one worker and on two, and with a plain script.

    python tests/bench/bench_extract.py SHARED_DATA [ROUNDS]

Each LabelMeFacade mask counts ten times, under other names. The clusters are up before the clock starts; what is
compared alternates within each round, and the medians over the rounds are compared.
"""

import io
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from distributed import Client
from PIL import Image
from skimage.measure import label, regionprops

from pipeline.datasets.card import parse_card, resolve_card
from pipeline.execution.parallel import WorkerConfig, local_client
from pipeline.execution.runner import Context
from pipeline.execution.sharding import SHARD_ROWS
from pipeline.stages.extract import stage as extract
from pipeline.stages.index import stage as index
from pipeline.storage.stage_folder import StageFolder

COLOURS = {"building": [(128, 0, 0), (0, 0, 128), (128, 128, 0)], "window": [(0, 0, 128)], "door": [(128, 128, 0)]}
COPIES = 10


def make_set(root: Path, folder: Path) -> None:
    """Link every photo and mask ten times under other names."""
    for kind in ("images", "labels"):
        for path in sorted((root / "labelmefacade" / kind).rglob("*.*")):
            for copy in range(COPIES):
                target = folder / kind / f"{path.stem}_{copy}{path.suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path)


def decode(paths: list[str]) -> int:
    """Decode masks as `extract` does, and do nothing with them."""
    return sum(np.asarray(Image.open(io.BytesIO(Path(path).read_bytes()))).shape[0] for path in paths)


def decode_only(client: Client, paths: list[str]) -> None:
    pieces = [paths[start : start + SHARD_ROWS] for start in range(0, len(paths), SHARD_ROWS)]
    client.gather(client.map(decode, pieces, pure=False))


def run_extract(work: Path, address: str) -> None:
    extract.run(Context(work, WorkerConfig(address), "off"), extract.ExtractConfig())


def plain_script(paths: list[str], out: Path) -> None:
    """What somebody would write in ten minutes: a loop, skimage class by class, pandas."""
    rows: list[dict[str, Any]] = []
    for path in paths:
        pixels = np.asarray(Image.open(path))[..., :3]
        for name, colours in COLOURS.items():
            mask = np.zeros(pixels.shape[:2], bool)
            for colour in colours:
                mask |= (pixels == colour).all(-1)
            smallest = max(256, 0.01 * mask.size) if name == "building" else 16
            for region in regionprops(label(mask, connectivity=2)):
                if region.area >= smallest:
                    ymin, xmin, ymax, xmax = region.bbox
                    rows.append({"image": Path(path).stem, "label": name, "area": int(region.area)})
                    rows[-1] |= {"xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax}
    pd.DataFrame(rows).to_parquet(out)


def same_boxes(work: Path, script: Path) -> bool:
    ours = StageFolder(work, "extract").read("boxes").to_pandas()
    ours["image"] = [Path(name).stem for name in ours["image_id"]]
    keys = ["image", "label", "xmin", "ymin", "xmax", "ymax"]
    return set(map(tuple, ours[keys].values)) == set(map(tuple, pd.read_parquet(script)[keys].values))


def timed(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main(root: Path, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_set(root, folder / "set")
        indexed = folder / "indexed"
        text = resolve_card("labelmefacade")[1].replace("[splits]", "[splits]\n").split("[splits]")[0]
        index.run(
            Context(indexed, tracking="off"), index.IndexConfig(), parse_card(text, "bench"), text, str(folder / "set")
        )
        paths = StageFolder(indexed, "index").read("images")["annotation_uri"].to_pylist()
        with local_client(1) as one, local_client(2) as two:
            decode_only(two, paths[:256])
            seconds: dict[str, list[float]] = {}
            for turn in range(rounds):
                measure(seconds, one, two, paths, indexed, folder / str(turn))
        middle = {name: statistics.median(values) for name, values in seconds.items()}
        report(middle, seconds, len(paths))


def measure(
    seconds: dict[str, list[float]], one: Client, two: Client, paths: list[str], indexed: Path, folder: Path
) -> None:
    works = {name: Path(shutil.copytree(indexed, folder / name)) for name in ("one", "two")}
    contenders = {
        "decode, two workers": partial(decode_only, two, paths),
        "extract, two workers": partial(run_extract, works["two"], two.scheduler.address),
        "extract, one worker": partial(run_extract, works["one"], one.scheduler.address),
        "plain script": partial(plain_script, paths, folder / "script.parquet"),
    }
    for name, function in contenders.items():
        seconds.setdefault(name, []).append(timed(function))
        print(f"{name}: {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
    assert same_boxes(works["two"], folder / "script.parquet")
    assert same_boxes(works["one"], folder / "script.parquet")


def report(middle: dict[str, float], seconds: dict[str, list[float]], count: int) -> None:
    for name, value in middle.items():
        rounds = ", ".join(f"{entry:.1f}" for entry in seconds[name])
        print(f"| {name} | {value:.1f} s | {value / count * 1000:.2f} ms | {rounds} |")
    two, one = middle["extract, two workers"], middle["extract, one worker"]
    print(f"extract / decode, two workers: {two / middle['decode, two workers']:.2f} (at most 1.9)")
    print(f"two workers against one: {one / two:.2f} (at least 1.7)")
    print(f"script / one worker: {middle['plain script'] / one:.2f} (at least 1)")
    print(f"script / two workers: {middle['plain script'] / two:.2f} (at least 1.8)")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
