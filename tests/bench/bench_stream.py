"""The loop of bulk detection compared with torchvision's, on JPEG files of 683x512.

It needs torch, torchvision, numpy and `ssd`.

python tests/bench/bench_stream.py [COUNT] [READERS]

COUNT files (20,000) under as many names, 100 of them different; vgg16 with random weights whose heads are scaled so
that some things are found and not everything. Theirs reads in READERS loader processes, ours in as many threads. The
share of time that the device works on the network is taken from its own clock, where it is a GPU.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg, encode_jpeg, read_file
from torchvision.models.detection import ssd300_vgg16

from ssd import (
    LAYOUTS,
    SSD,
    BackboneConfig,
    Bundle,
    Detections,
    Detector,
    InferenceStream,
    LoadedPhoto,
    ModelConfig,
    best_batch,
    clamp_shapes,
    load_matching_weights,
    preset,
)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLASSES = ("building", "window", "door")


def write_photos(folder: Path, count: int) -> list[str]:
    """Write files like photos: smooth, with edges and grain."""
    generator = torch.Generator().manual_seed(0)
    for number in range(min(count, 100)):
        coarse = torch.rand(1, 3, 12, 16, generator=generator) * 255
        smooth = torch.nn.functional.interpolate(coarse, (512, 683), mode="bicubic")[0]
        for left in range(40, 640, 60):
            smooth[:, 100:160, left : left + 30] = torch.rand(3, 1, 1, generator=generator) * 255
        photo = (smooth + 6 * torch.randn(3, 512, 683, generator=generator)).clamp(0, 255).byte()
        (folder / f"{number}.jpg").write_bytes(encode_jpeg(photo, 90).numpy().tobytes())
    for number in range(100, count):
        os.link(folder / f"{number % 100}.jpg", folder / f"{number}.jpg")
    return [str(folder / f"{number}.jpg") for number in range(count)]


def decoded(path: str) -> Tensor:
    return decode_jpeg(read_file(path), ImageReadMode.RGB)


class Files(Dataset):  # type: ignore[type-arg]
    """Photos as torchvision's model takes them."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor:
        return decoded(self.paths[number])


def twin(paths: Sequence[str]) -> torch.nn.Module:
    """Return torchvision's network, on the CPU."""
    torch.manual_seed(0)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=1 + len(CLASSES)).eval()
    with torch.no_grad():
        photos = [decoded(path).float() / 255 for path in paths[:2]]
        outputs = theirs.head(list(theirs.backbone(theirs.transform(photos)[0].tensors).values()))["cls_logits"]
        parts = outputs.split(preset("paper_coco").counts_per_map, dim=1)
        for layer, part in zip(theirs.head.classification_head.module_list, parts, strict=True):
            layer.weight.mul_(1.5 / part.std())
            layer.bias.copy_(torch.tensor([6.0, 0.0, 0.0, 0.0]).repeat(len(layer.bias) // 4))
    return theirs


class Timed:
    """A detector that notes how long the device works on each batch."""

    def __init__(self, detector: Detector) -> None:
        self.detector, self.device = detector, detector.device
        self.inputs_of = detector.inputs_of
        self.detections_of = detector.detections_of
        self.spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self.seconds = 0.0

    def outputs(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network, timed."""
        if self.device.type == "cpu":
            begin = time.perf_counter()
            outputs = self.detector.outputs(inputs)
            self.seconds += time.perf_counter() - begin
            return outputs
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        first.record()
        outputs = self.detector.outputs(inputs)
        last.record()
        self.spans.append((first, last))
        return outputs

    def busy(self) -> float:
        """Return the seconds that the device was busy."""
        return self.seconds + sum(first.elapsed_time(last) for first, last in self.spans) / 1000


def ours(model: torch.nn.Module, paths: Sequence[str], readers: int) -> str:
    """Find with the stream and tell how fast."""
    layout = LAYOUTS["torchvision"]
    mine = SSD(
        ModelConfig(clamp_shapes(preset("paper_coco")), CLASSES, BackboneConfig(), layout.mean, layout.std)
    ).eval()
    load_matching_weights(mine, layout.convert(model.state_dict()), 1 + len(CLASSES))
    detector = Detector(Bundle(mine), DEVICE)
    batch = best_batch(detector, torch.zeros(1, 3, *detector.input_size, dtype=torch.uint8))
    list(InferenceStream(detector, _read, readers, batch)(paths[: 2 * batch]))
    timed = Timed(detector)
    begin = time.perf_counter()
    found = [one.detections for one in InferenceStream(timed, _read, readers, batch)(paths)]
    spent = time.perf_counter() - begin
    things = sum(len(one) for one in found if isinstance(one, Detections)) / len(paths)
    return (
        f"{len(paths) / spent:.0f} photos/s, {detector.dtype}, batches of {batch}, the device at work "
        f"{100 * timed.busy() / spent:.0f} % of the time, {things:.0f} detections a photo"
    )


def _read(path: str) -> LoadedPhoto:
    photo = decoded(path)
    return LoadedPhoto(photo, (photo.shape[1], photo.shape[2]))


@torch.no_grad()
def theirs(model: torch.nn.Module, paths: Sequence[str], readers: int) -> str:
    """Find with torchvision's own network and a loader."""
    model = model.to(DEVICE)
    loader = DataLoader(Files(paths), 32, num_workers=readers, collate_fn=list)

    def found() -> Iterator[int]:
        for photos in loader:
            for one in model([photo.to(DEVICE, non_blocking=True) / 255 for photo in photos]):
                yield len(one["boxes"].cpu())

    begin = time.perf_counter()
    things = sum(found()) / len(paths)
    return f"{len(paths) / (time.perf_counter() - begin):.0f} photos/s, float32, {things:.0f} detections a photo"


def main(count: int, readers: int) -> None:
    """Print both, ours twice."""
    torch.set_num_threads(1)  # or each of the threads that read resizes with as many of its own
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    print(f"{name}, {count} photos, {readers} readers", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photos(Path(folder), count)
        model = twin(paths)
        print("ours:", ours(model, paths, readers), flush=True)
        print("torchvision:", theirs(model, paths[: max(count // 5, 1)], readers), flush=True)
        print("ours:", ours(model.cpu(), paths, readers), flush=True)


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 20_000,
        int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count() or 1,
    )
