"""Bulk detection as a user of torchvision writes it: a model, a loop over files, a table at the end.

python tests/bench/detect_torchvision.py WEIGHTS PHOTOS.txt OUT.parquet

WEIGHTS is what `bench_detect.py` makes of a bundle: a state dict of `ssd300_vgg16`, and how it was normalised.
"""

import sys
from pathlib import Path

import pandas
import torch
from PIL import Image
from torchvision.models.detection import ssd300_vgg16
from torchvision.transforms.functional import pil_to_tensor

BATCH, LEAST, OVERLAP, KEEP = 8, 0.01, 0.45, 200


def load_model(path: Path) -> torch.nn.Module:
    """Return torchvision's SSD300 with these weights."""
    saved = torch.load(path, weights_only=True)
    model = ssd300_vgg16(
        weights=None,
        weights_backbone=None,
        num_classes=saved["classes"],
        image_mean=saved["mean"],
        image_std=saved["std"],
        score_thresh=LEAST,
        nms_thresh=OVERLAP,
        detections_per_img=KEEP,
    )
    model.load_state_dict(saved["weights"])
    return model.eval()


@torch.no_grad()
def main(weights: Path, listed: Path, out: Path) -> None:
    """Write a row a detection."""
    model, paths, rows = load_model(weights), listed.read_text().splitlines(), []
    for start in range(0, len(paths), BATCH):
        part = paths[start : start + BATCH]
        photos = [pil_to_tensor(Image.open(path).convert("RGB")) / 255 for path in part]
        for path, found in zip(part, model(photos), strict=True):
            for box, label, score in zip(found["boxes"], found["labels"], found["scores"], strict=True):
                rows.append([path, int(label), float(score), *box.tolist()])
    columns = ["path", "label", "score", "xmin", "ymin", "xmax", "ymax"]
    pandas.DataFrame(rows, columns=columns).to_parquet(out)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
