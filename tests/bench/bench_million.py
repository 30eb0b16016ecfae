"""`describe` and `priors` on 1,000,000 drawn boxes of 100,000 images: seconds, and the most memory of a process.

python tests/bench/bench_million.py [IMAGES]
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.execution.runner import Context
from pipeline.execution.sharding import SHARD_ROWS
from pipeline.stages.describe import stage as describe
from pipeline.stages.priors import stage as priors
from pipeline.storage.manifest import Manifest, Receipt, Shard
from pipeline.storage.schemas import table_from_rows
from pipeline.storage.stage_folder import StageFolder

CLASSES = (("building", 1, 0.4, 0.9), ("window", 8, 0.03, 0.12), ("door", 1, 0.05, 0.15))


def image_row(number: int) -> dict[str, object]:
    split = ("train", "train", "val", "test")[number % 4]
    row = {"image_id": f"set/{number:06d}.jpg", "dataset": "set", "uri": f"/{number}", "width": 800, "height": 600}
    row |= {"orientation": 1, "size": 1, "mtime_or_etag": "1", "sha256": str(number), "split": split}
    return row | {"labelled_classes": [name for name, *_ in CLASSES]}


def box_rows(number: int, rng: np.random.Generator) -> list[dict[str, object]]:
    rows = []
    for label, count, least, most in CLASSES:
        for _ in range(count):
            width, height = rng.uniform(least, most, 2) * (800, 600)
            left, top = rng.random(2) * (800 - width, 600 - height)
            row = {"box_id": f"set/{number:06d}.jpg#{len(rows)}", "image_id": f"set/{number:06d}.jpg", "label": label}
            row |= {"xmin": left, "ymin": top, "xmax": left + width, "ymax": top + height, "truncated": False}
            rows.append({**row, "difficult": False, "ignore": False, "source": "yolo", "recipe": "true"})
    return rows


def make_tables(work: Path, images: int) -> None:
    rng = np.random.default_rng(0)
    index, extract = StageFolder(work, "index"), StageFolder(work, "extract")
    receipts: dict[str, list[Receipt]] = {"index": [], "extract": []}
    for ordinal, start in enumerate(range(0, images, SHARD_ROWS)):
        numbers = range(start, min(start + SHARD_ROWS, images))
        shard = Shard("set", ordinal, f"{ordinal:064d}", [{}] * len(numbers))
        rows = [image_row(number) for number in numbers]
        receipts["index"].append(index.write_shard(shard, {"images": table_from_rows("images", rows)}, len(rows)))
        boxes = table_from_rows("boxes", [row for number in numbers for row in box_rows(number, rng)])
        done = [{"image_id": row["image_id"], "boxes": 10, "dropped": [], "unknown_share": 0.0} for row in rows]
        tables = {"boxes": boxes, "extraction_log": table_from_rows("extraction_log", done)}
        receipts["extract"].append(extract.write_shard(shard, tables, len(rows)))
    manifest = Manifest("index", tuple(receipts["index"]))
    index.commit(manifest)
    extract.commit(Manifest("extract", tuple(receipts["extract"]), {"index": manifest.digest}))


def main(images: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        make_tables(Path(name), images)
        context = Context(Path(name), tracking="off")
        for stage, config in ((describe, describe.DescribeConfig()), (priors, priors.PriorsConfig())):
            start = time.perf_counter()
            stage.run(context, config)
            print(f"{stage.STAGE.name}: {time.perf_counter() - start:.1f} s")
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"{images:,} images, {10 * images:,} boxes; the largest process took {most / 1e6:.2f} GB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
