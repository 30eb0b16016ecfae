"""Real photos to training inputs: plans applied in one batch compared with torchvision's three transforms.

python tests/bench/bench_augmentation.py SHARED_DATA [ROUNDS]
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, read_image
from torchvision.transforms import v2

from ssd import AUGMENTATIONS, NO_AUGMENTATION, Target, apply_plans, augment, plan_augmentation
from ssd.augmentation.transforms import map_targets

SIZE, BATCH, PHOTOS = (300, 300), 8, 64
PARTS = ("plan", "pixels", "targets", "to channels_last after it")
FILL = {tv_tensors.Image: [123, 116, 103], "others": 0}
THEIRS = v2.Compose(
    [
        v2.RandomPhotometricDistort(),
        v2.RandomZoomOut(fill=FILL),
        v2.RandomIoUCrop(),
        v2.SanitizeBoundingBoxes(),
        v2.RandomHorizontalFlip(),
        v2.Resize(SIZE, antialias=True),
    ]
)

Batch = tuple[list[torch.Tensor], list[Target]]


def read_batches(root: Path, planar: bool) -> list[Batch]:
    """Photos as they are decoded (rows of pixels) or planar, each with 20 boxes."""
    generator = torch.Generator().manual_seed(0)
    paths = sorted((root / "labelmefacade").rglob("*.jpg"))[: PHOTOS // 2]
    paths += sorted((root / "cmp" / "base").rglob("*.jpg"))[: PHOTOS - len(paths)]
    items = []
    for path in paths:
        photo = read_image(str(path), ImageReadMode.RGB)
        photo = photo.contiguous() if planar else photo.permute(1, 2, 0).contiguous().permute(2, 0, 1)
        height, width = photo.shape[1:]
        starts = torch.rand((20, 2), generator=generator) * 0.8
        shares = torch.cat([starts, starts + 0.02 + 0.18 * torch.rand((20, 2), generator=generator)], dim=1)
        items.append((photo, Target(shares * torch.tensor([width, height] * 2), torch.ones(20, dtype=torch.int64))))
    order = np.random.default_rng(0).permutation(len(items))
    chosen = [[items[i] for i in order[n : n + BATCH]] for n in range(0, len(items), BATCH)]
    return [([photo for photo, _ in batch], [target for _, target in batch]) for batch in chosen]


def ours(batch: Batch, generator: np.random.Generator) -> None:
    augment(*batch, AUGMENTATIONS["epfl"], SIZE, generator)


def plain(batch: Batch, generator: np.random.Generator) -> None:
    augment(*batch, NO_AUGMENTATION, SIZE, generator)


def theirs(batch: Batch, _: np.random.Generator) -> None:
    done = []
    for photo, target in zip(*batch, strict=True):
        boxes = tv_tensors.BoundingBoxes(target.boxes, format="XYXY", canvas_size=photo.shape[1:])
        done.append(THEIRS(tv_tensors.Image(photo), {"boxes": boxes, "labels": target.labels}))
    torch.stack([photo for photo, _ in done]).float()


def one_pass(run: Callable[[Batch, np.random.Generator], None], batches: list[Batch], seed: int) -> float:
    """Milliseconds a photo."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    start = time.perf_counter()
    for batch in batches:
        run(batch, generator)
    return (time.perf_counter() - start) * 1000 / sum(len(photos) for photos, _ in batches)


def parts(batches: list[Batch]) -> dict[str, float]:
    """Milliseconds a photo of each part of ours, and of what a network in channels_last does next."""
    generator, spent = np.random.default_rng(0), dict.fromkeys(PARTS, 0.0)
    for photos, targets in batches:
        sizes = [tuple(photo.shape[1:]) for photo in photos]
        times = [time.perf_counter()]
        plans = plan_augmentation(sizes, targets, AUGMENTATIONS["epfl"], SIZE, generator)
        times.append(time.perf_counter())
        inputs = apply_plans(photos, plans)
        times.append(time.perf_counter())
        map_targets(targets, plans)
        times.append(time.perf_counter())
        inputs.contiguous(memory_format=torch.channels_last)
        times.append(time.perf_counter())
        for name, before, after in zip(spent, times, times[1:], strict=False):
            spent[name] += (after - before) * 1000 / PHOTOS
    return spent


def main(root: Path, rounds: int) -> None:
    torch.set_num_threads(2)
    print(f"| {PHOTOS} photos, batch {BATCH}, to {SIZE[0]}x{SIZE[1]}, 2 threads | ms a photo | rounds |")
    print("| --- | --- | --- |")
    for layout, planar in (("as decoded", False), ("planar", True)):
        batches = read_batches(root, planar)
        runs = {"epfl": ours, "none": plain, "torchvision": theirs}
        for run in runs.values():
            one_pass(run, batches[:2], 0)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for seed in range(rounds):
            for name, run in runs.items():
                times[name].append(one_pass(run, batches, seed))
        for name, spent in times.items():
            print(f"| {name}, {layout} | {statistics.median(spent):.2f} | {', '.join(f'{t:.2f}' for t in spent)} |")
        ratios = [theirs / ours for theirs, ours in zip(times["torchvision"], times["epfl"], strict=True)]
        print(f"| torchvision / epfl, {layout} | {statistics.median(ratios):.1f} times | |")
        print(f"| parts of epfl, {layout} | {', '.join(f'{k} {v:.2f}' for k, v in parts(batches).items())} | |")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 5)
