"""Training vgg16 compared with a plain torchvision loop, and how well the result detects windows.

python tests/bench/bench_training.py speed DATA [ROUNDS]
python tests/bench/bench_training.py score BUNDLE PHOTOS_WITH_CMP_XML

`speed`: photos a second on this machine, in turn, medians; photos of CMP with their boxes, batches of 8, all layers
trainable, augmentation included in both. Theirs decodes photos in two loader workers and trains in float32, as the
tutorial does; ours is the preset `fast` as `facade train` runs it, with photos in memory.

`score`: VOC 11-point average precision of a bundle on a folder of CMP's layout (`*.jpg` with `*.xml`), with scores from
.01, suppression at .45 and 400 detections.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.models.detection import ssd300_vgg16
from torchvision.transforms import v2

from pipeline.datasets.card import resolve_card
from pipeline.execution.parallel import WorkerConfig
from pipeline.execution.progress import Progress
from pipeline.execution.runner import Context
from pipeline.stages.extract import stage as extract
from pipeline.stages.index import stage as index
from pipeline.stages.train.data import PhotoCache, TrainingRows, load_training_rows
from ssd import (
    SSD,
    TRAIN_PRESETS,
    InMemoryDataset,
    LossConfig,
    ModelConfig,
    Trainer,
    Validator,
    load_bundle,
    preset,
    supports_bfloat16,
)

BATCH, STEPS = 8, 3
THEIRS = v2.Compose(
    [
        v2.ToImage(),
        v2.RandomPhotometricDistort(),
        v2.RandomZoomOut(fill={tv_tensors.Image: [123, 116, 103], "others": 0}),
        v2.RandomIoUCrop(),
        v2.RandomHorizontalFlip(),
        v2.SanitizeBoundingBoxes(),
        v2.ToDtype(torch.float32, scale=True),
    ]
)


class Plain(Dataset):  # type: ignore[type-arg]
    """Photos on disk with their boxes, as a tutorial has them."""

    def __init__(self, material: TrainingRows) -> None:
        self.rows = material.rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        row = self.rows[number]
        photo = Image.open(row["uri"].removeprefix("file://")).convert("RGB")
        canvas = {"format": "XYXY", "canvas_size": (photo.height, photo.width)}
        boxes = tv_tensors.BoundingBoxes(torch.from_numpy(row["boxes"]), **canvas)
        return THEIRS(photo, {"boxes": boxes, "labels": torch.from_numpy(row["labels"])})


def material_of(data: Path, folder: Path, card: str = "cmp_xml") -> TrainingRows:
    """Return the rows of CMP with the boxes that people drew."""
    context = Context(folder, WorkerConfig(count=0), tracking="off")
    index.run(context, index.IndexConfig(), *resolve_card(card), str(data))
    extract.run(context, extract.ExtractConfig(previews=0))
    return load_training_rows(context, {}, ())


def examples_of(material: TrainingRows) -> InMemoryDataset:
    """Return all photos with their boxes, whatever their split."""
    photos = PhotoCache(600)
    photos.load(material.rows, Progress("decode", len(material.rows)))
    alike = replace(material, rows=[{**row, "split": "train"} for row in material.rows])
    found = photos.make_dataset(alike, "train")
    assert found is not None
    return found


def ours(material: TrainingRows) -> Callable[[], float]:
    """Return what does some steps and says how long they took."""
    torch.manual_seed(0)
    model = SSD(ModelConfig(preset("paper_coco"), material.classes))
    trainer = Trainer(model, examples_of(material), replace(TRAIN_PRESETS["fast"], batch=BATCH))
    assert trainer.bfloat16 == supports_bfloat16("cpu")

    def steps() -> float:
        begin = time.perf_counter()
        trainer.run(trainer.progress.step + STEPS)
        return time.perf_counter() - begin

    return steps


def theirs(material: TrainingRows) -> Callable[[], float]:
    """Return the same of torchvision's network with its own loop."""
    torch.manual_seed(0)
    classes = 1 + len(material.classes)
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes, trainable_backbone_layers=5).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(Plain(material), BATCH, shuffle=True, num_workers=2, collate_fn=list, drop_last=True)

    def endless() -> Iterator[list[tuple[torch.Tensor, dict[str, torch.Tensor]]]]:
        while True:
            yield from loader

    batches = endless()

    def steps() -> float:
        begin = time.perf_counter()
        for _ in range(STEPS):
            photos, targets = zip(*next(batches), strict=True)
            loss = sum(model(list(photos), list(targets)).values())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return time.perf_counter() - begin

    return steps


def speed(data: Path, rounds: int) -> None:
    """Print photos a second of both, and their ratio."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        material = material_of(data / "cmp", Path(folder))
        contenders = {"ours": ours(material), "torchvision": theirs(material)}
        for steps in contenders.values():
            steps()
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, steps in contenders.items():
                rates[name].append(BATCH * STEPS / steps())
    for name, found in rates.items():
        print(f"| {name} | {statistics.median(found):.2f} | {', '.join(f'{rate:.2f}' for rate in found)} |")
    ratios = [one / other for one, other in zip(rates["ours"], rates["torchvision"], strict=True)]
    print(f"| ours / torchvision | {statistics.median(ratios):.2f} | {', '.join(f'{ratio:.2f}' for ratio in ratios)} |")


def score(bundle_folder: Path, data: Path) -> None:
    """Print the average precisions of a bundle on photos with CMP's boxes."""
    bundle = load_bundle(bundle_folder)
    decode = replace(bundle.decode, min_score=0.01, nms_iou=0.45, max_detections=400)
    with tempfile.TemporaryDirectory() as folder:
        material = material_of(data, Path(folder))
    config = bundle.model.config
    assert config.classes == material.classes
    scores = Validator(examples_of(material), config, LossConfig(), decode)(
        bundle.model, "cpu", supports_bfloat16("cpu")
    )
    for percent in (50, 75):
        cells = [f"{name} {100 * scores[f'ap{percent}.{name}']:.1f}" for name in config.classes]
        print(
            f"AP{percent}: {', '.join(cells)}, mean {100 * scores[f'map{percent}']:.1f} ({len(material.rows)} photos)"
        )


if __name__ == "__main__":
    if sys.argv[1] == "speed":
        speed(Path(sys.argv[2]).resolve(), int(sys.argv[3]) if len(sys.argv) > 3 else 5)
    else:
        score(Path(sys.argv[2]), Path(sys.argv[3]).resolve())
