"""torchvision's own SSD300 on a prepared task: its anchors, its transforms, a loop as its users write it.

python tests/bench/train_torchvision.py TASK SECONDS [WORKERS]

For the machine that `python -m ssd.training TASK OUT` ran on: it needs torch, torchvision, numpy, safetensors, `ssd`.
It trains for so many seconds, in bfloat16 where the device has it, and is scored as the task's own network is.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.models.detection import ssd300_vgg16
from torchvision.transforms import v2

from ssd import Detections, InMemoryDataset, TrainingTask, load_task, match_images, supports_bfloat16, voc_ap

Shown = tuple[torch.Tensor, dict[str, torch.Tensor]]
THEIRS = v2.Compose(
    [
        v2.RandomPhotometricDistort(),
        v2.RandomZoomOut(fill={tv_tensors.Image: [123, 116, 103], "others": 0}),
        v2.RandomIoUCrop(),
        v2.RandomHorizontalFlip(),
        v2.Resize((300, 300), antialias=True),
        v2.SanitizeBoundingBoxes(),
        v2.ToDtype(torch.float32, scale=True),
    ]
)


class Photos(Dataset):  # type: ignore[type-arg]
    """The task's photos with their boxes, transformed one by one in the loader's workers."""

    def __init__(self, examples: InMemoryDataset) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> Shown:
        photo, target = self.examples.photos[number], self.examples.targets[number]
        boxes = tv_tensors.BoundingBoxes(target.boxes, format="XYXY", canvas_size=tuple(photo.shape[-2:]))
        return THEIRS(tv_tensors.Image(photo), {"boxes": boxes, "labels": target.labels})


def batches(task: TrainingTask, workers: int) -> Iterator[list[Shown]]:
    """Yield batches without end."""
    loader = DataLoader(
        Photos(task.train),
        task.config.batch,
        shuffle=True,
        num_workers=workers,
        collate_fn=list,
        drop_last=True,
        persistent_workers=workers > 0,
    )
    while True:
        yield from loader


def network(task: TrainingTask) -> torch.nn.Module:
    """Return torchvision's network with the trunk that the task starts from."""
    model = ssd300_vgg16(
        weights=None,
        weights_backbone=None,
        num_classes=1 + len(task.model.classes),
        trainable_backbone_layers=5,
        score_thresh=task.decode.min_score,
        nms_thresh=task.decode.nms_iou,
        topk_candidates=task.decode.top_k_per_class,
        detections_per_img=task.decode.max_detections,
    )
    state = model.state_dict()
    places = {f"features.{n}": f"backbone.features.{n}" for n in range(23)}
    places |= {f"features.{n}": f"backbone.extra.0.{n - 23}" for n in range(23, 30)}
    for name, tensor in task.init_weights.items():
        module, _, kind = name.rpartition(".")
        state[f"{places[module]}.{kind}"].copy_(tensor)
    model.load_state_dict(state)
    return model


def train(task: TrainingTask, seconds: float, workers: int, device: torch.device) -> tuple[torch.nn.Module, int]:
    """Return the network after so many seconds, and the steps done."""
    model = network(task).to(device).train()
    model.transform.image_mean, model.transform.image_std = list(task.model.mean), list(task.model.std)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    steps, shown, end = 0, batches(task, workers), None
    for batch in shown:
        end = end or time.monotonic() + seconds  # the loader's workers have started
        photos = [photo.to(device, non_blocking=True) for photo, _ in batch]
        targets = [{key: value.to(device) for key, value in target.items()} for _, target in batch]
        with torch.autocast(device.type, torch.bfloat16, enabled=supports_bfloat16(device)):
            loss = sum(model(photos, targets).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
        if time.monotonic() >= end:
            break
    return model, steps


@torch.inference_mode()
def scored(model: torch.nn.Module, task: TrainingTask, examples: InMemoryDataset, device: torch.device) -> str:
    """Return VOC's 11-point average precisions."""
    found = []
    for photo in examples.photos:
        (one,) = model.eval()([photo.to(device) / 255])
        found.append(Detections(one["boxes"].cpu(), one["labels"].cpu(), one["scores"].cpu()))
    matches = match_images(found, examples.targets, 1 + len(task.model.classes))
    aps = {percent: voc_ap(matches, percent / 100, 11) for percent in (50, 75)}
    names = [f"{name} {100 * aps[50].by_label[n]:.1f}" for n, name in enumerate(task.model.classes, start=1)]
    return f"{', '.join(names)}, mean {100 * aps[50].mean:.1f}, at .75 {100 * aps[75].mean:.1f}"


def main(folder: Path, seconds: float, workers: int) -> None:
    """Train, and print images a second and the scores of each split that is kept back."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    task = load_task(folder)
    model, steps = train(task, seconds, workers, device)
    print(
        f"{steps} steps of {task.config.batch} in {seconds:.0f} s: {steps * task.config.batch / seconds:.1f} images/s"
    )
    for name, examples in (("val", task.val), ("test", task.test)):
        if examples is not None:
            print(f"{name}: {scored(model, task, examples, device)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 12)
