"""Overlaps of an image's ground truths with 8732 priors, compared with torchvision's.

python tests/bench/bench_iou.py
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ssd import iou_xyxy, preset


def median_ms(function: Callable[[], Tensor], rounds: int = 50) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


if __name__ == "__main__":
    torch.set_num_threads(2)
    torch.manual_seed(0)
    priors = preset("paper_coco").priors_xyxy()
    print("| ground truths | torchvision, ms | ours, ms | share |")
    print("| --- | --- | --- | --- |")
    for count in (10, 30, 100, 300):
        low = torch.rand(count, 2) * 250
        boxes = torch.cat([low, low + 8 + torch.rand(count, 2) * 40], dim=1)
        theirs = median_ms(lambda given=boxes: box_iou(given, priors))
        ours = median_ms(lambda given=boxes: iou_xyxy(given, priors))
        print(f"| {count} | {theirs:.2f} | {ours:.2f} | {ours / theirs:.2f} |")
