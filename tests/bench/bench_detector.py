"""The detector compared with torchvision's SSD300: decoding, the whole call, and what lies outside the network.

python tests/bench/bench_detector.py DATA [BUNDLE]

Batches of 8, two threads, contenders in turn, medians. Decoding runs on what a network says about photos it has not
seen, that of the bundle or one trained for ten minutes by this script and left as BUNDLE; and on noise in which every
prior is a candidate of every class.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.image_list import ImageList

from pipeline.datasets.card import resolve_card
from pipeline.datasets.synthetic import Scene, draw_scene
from pipeline.execution.parallel import WorkerConfig
from pipeline.execution.runner import Context
from pipeline.imaging.image_io import decode_photo
from pipeline.stages.extract import stage as extract
from pipeline.stages.index import stage as index
from ssd import (
    LAYOUTS,
    SSD,
    TRAIN_PRESETS,
    BackboneConfig,
    Bundle,
    DecodeConfig,
    Decoder,
    Detector,
    InMemoryDataset,
    ModelConfig,
    PriorSpec,
    Target,
    Trainer,
    clamp_shapes,
    load_bundle,
    load_matching_weights,
    load_trunk,
    preset,
    resize_photo,
    save_bundle,
)

CLASSES, BATCH = ("building", "window", "door"), 8
SETTINGS = DecodeConfig()


def photo_of(drawing: Scene) -> Tensor:
    return torch.tensor(drawing.photo).permute(2, 0, 1).contiguous()


def labelled_photos(root: Path) -> tuple[list[Tensor], list[Target]]:
    """CMP's photos at 400 pixels, and their boxes."""
    photos, targets = [], []
    with tempfile.TemporaryDirectory() as work:
        context = Context(Path(work), workers=WorkerConfig(count=0), tracking="off")
        card, text = resolve_card("cmp_xml")
        index.run(context, index.IndexConfig(), card, text, str(root / "cmp"))
        extract.run(context, extract.ExtractConfig(previews=0))
        boxes = pandas.DataFrame(context.folder("extract").read("boxes").to_pylist())
        for row in context.folder("index").read("images").to_pylist():
            photo = torch.tensor(decode_photo(Path(row["uri"]).read_bytes())).permute(2, 0, 1)
            mine = boxes[(boxes.image_id == row["image_id"]) & boxes.label.isin(CLASSES)]
            scale = torch.tensor([400 / photo.shape[2], 400 / photo.shape[1]] * 2)
            corners = torch.tensor(mine[["xmin", "ymin", "xmax", "ymax"]].to_numpy(np.float32)) * scale
            labels = torch.tensor([1 + CLASSES.index(label) for label in mine.label], dtype=torch.int64)
            photos.append(resize_photo(photo.contiguous(), 400, 400))
            targets.append(Target(corners.reshape(-1, 4), labels))
    return photos, targets


def trained(spec: PriorSpec, data: Path, photos: list[Tensor], targets: list[Target], steps: int = 1500) -> SSD:
    """MobileNetV2, its trunk as it came from ImageNet, after some minutes with CMP but for the last photos."""
    torch.manual_seed(0)
    model = SSD(ModelConfig(spec, CLASSES, BackboneConfig("mobilenet_v2")))
    weights = load_file(data.parent / "weights" / "mobilenet_v2_features_imagenet_torchvision_fp16.safetensors")
    load_trunk(model, weights)
    known = InMemoryDataset([str(n) for n in range(len(photos) - BATCH)], photos[:-BATCH], targets[:-BATCH])
    config = replace(TRAIN_PRESETS["light"], batch=8, epochs=1 + steps // (len(known) // 8))
    trainer = Trainer(model, known, config)
    trainer.run(steps)
    location, confidence = np.mean(trainer.progress.losses[-50:], axis=0)
    print(f"trained {steps} steps to a loss of {location:.2f} + {confidence:.2f}", flush=True)
    return trainer.eval_weights.eval()


def race(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds a photo of each, run in turn."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append((time.perf_counter() - start) * 1000 / BATCH)
    medians = {name: statistics.median(rows) for name, rows in times.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"| {name} | {median:.2f} | {median / first:.2f} | {1000 / median:.1f} |", flush=True)
    return medians


def torchvision_ssd() -> torch.nn.Module:
    """torchvision's SSD300 with random weights, its heads scaled so that it finds some things and not everything."""
    theirs = ssd300_vgg16(
        weights=None,
        weights_backbone=None,
        num_classes=1 + len(CLASSES),
        score_thresh=SETTINGS.min_score,
        nms_thresh=SETTINGS.nms_iou,
        topk_candidates=SETTINGS.top_k_per_class,
        detections_per_img=SETTINGS.max_detections,
    ).eval()
    with torch.no_grad():
        photo = photo_of(draw_scene(0)).float() / 255
        said = theirs.head(list(theirs.backbone(theirs.transform([photo])[0].tensors).values()))["cls_logits"]
        parts = said.split(preset("paper_coco").counts_per_map, dim=1)
        for layer, part in zip(theirs.head.classification_head.module_list, parts, strict=True):
            layer.weight.mul_(1.5 / part.std())
            layer.bias.copy_(torch.tensor([6.0, 0.0, 0.0, 0.0]).repeat(len(layer.bias) // 4))
    return theirs


def decoding(theirs: Any, spec: PriorSpec, data: Path, bundle: Path, rounds: int) -> None:
    photos, targets = labelled_photos(data)
    if not bundle.is_dir():
        save_bundle(bundle, Bundle(trained(spec, data, photos, targets)))
    model, decoder = load_bundle(bundle).model, Decoder(spec, SETTINGS)
    inputs = torch.stack([resize_photo(photo, *spec.input_size) for photo in photos[-BATCH:]])
    cells = [torch.empty(BATCH, 1, *level.size) for level in spec.maps]
    anchors = theirs.anchor_generator(ImageList(torch.empty(BATCH, 3, 300, 300), [(300, 300)] * BATCH), cells)
    with torch.inference_mode():
        said = {"trained": model(model.normalise(inputs.float()))}
        said["worst"] = torch.randn(BATCH, spec.count, 4), torch.randn(BATCH, spec.count, 4)
        for name, (offsets, logits) in said.items():
            probable = (logits.softmax(dim=2)[..., 1:] > SETTINGS.min_score).sum(dim=(1, 2)).float().mean()
            print(f"| decoding, {name}: {probable:.0f} candidates a photo | ms | of torchvision | a second |")
            outputs, sizes = {"bbox_regression": offsets, "cls_logits": logits}, [(300, 300)] * BATCH
            contenders = {
                "torchvision": partial(theirs.postprocess_detections, outputs, anchors, sizes),
                "ours": partial(decoder, offsets, logits),
            }
            race(contenders, 10 * rounds)


def whole_call(theirs: Any, spec: PriorSpec, rounds: int) -> None:
    layout = LAYOUTS["torchvision"]
    ours = SSD(ModelConfig(spec, CLASSES, BackboneConfig(), layout.mean, layout.std)).eval()
    load_matching_weights(ours, layout.convert(theirs.state_dict()), 1 + len(CLASSES))
    half, whole = (Detector(Bundle(ours, SETTINGS), bfloat16=bfloat16) for bfloat16 in (True, False))
    photos = [photo_of(draw_scene(seed, 683, 512)) for seed in range(BATCH)]
    inputs = torch.stack([resize_photo(photo, 300, 300) for photo in photos])
    print(f"| photos to {sum(map(len, half(photos))) / BATCH:.0f} detections | ms | of torchvision | a second |")
    with torch.inference_mode():
        contenders = {
            "torchvision, float32": lambda: theirs([photo.float() / 255 for photo in photos]),
            "vgg16, float32": lambda: whole(photos),
            "vgg16, bfloat16": lambda: half(photos),
        }
        race(contenders, rounds)
        said = half.outputs(inputs)
        half.model.forward = lambda _: said
        print("| all but the network | ms | of the first | a second |")
        race({"resize, normalise, decode, scale": partial(half, photos)}, 5 * rounds)
    light = SSD(ModelConfig(spec, CLASSES, BackboneConfig("mobilenet_v2"))).eval()
    for outputs in light.heads.outputs:
        outputs[-1].bias.data.copy_(torch.tensor([0.0] * 4 + [7.0, 0.0, 0.0, 0.0]).repeat(len(outputs[-1].bias) // 8))
    ready = [Detector(Bundle(light, SETTINGS), bfloat16=bfloat16) for bfloat16 in (True, False)]
    print("| photos to detections | ms | of the first | a second |")
    race({f"mobilenet_v2, {detector.dtype}": partial(detector, photos) for detector in ready}, 3 * rounds)


if __name__ == "__main__":
    torch.set_num_threads(2)
    twin, priors = torchvision_ssd(), clamp_shapes(preset("paper_coco"))
    with tempfile.TemporaryDirectory() as folder:
        whole_call(twin, priors, rounds=3)
        decoding(twin, priors, Path(sys.argv[1]), Path(*sys.argv[2:3] or (folder, "bundle")), rounds=3)
