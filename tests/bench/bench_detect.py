"""`detect` compared with a script with torchvision, at scale with a network that answers at once, and with tiles.

python tests/bench/bench_detect.py speed DATA BUNDLE [LIGHT_BUNDLE]
python tests/bench/bench_detect.py rows [COUNT]
python tests/bench/bench_detect.py tiles BUNDLE [PHOTOS]

`speed`: all of LabelMeFacade's photos. BUNDLE is a vgg16 trained with the priors paper_coco, so that its weights are
torchvision's too: `facade train --work WORK --set train.preset=fast --set train.priors=paper_coco`. `rows`: so many
entries of a list that name 1,000 photos of 64x48. `tiles`: drawn streets of 2000 pixels, BUNDLE of the demo's kind.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from detect_torchvision import load_model
from PIL import Image

from pipeline.datasets.card import resolve_card
from pipeline.datasets.synthetic import draw_scene
from pipeline.execution.parallel import WorkerConfig
from pipeline.execution.runner import Context
from pipeline.stages.detect.config import DetectConfig
from pipeline.stages.detect.inference import BundleDetectorSpec, detect_rows
from pipeline.stages.detect.sources import list_photos
from pipeline.stages.extract import stage as extract
from pipeline.stages.index import stage as index
from pipeline.stages.train.data import load_training_rows
from pipeline.storage.stage_folder import StageFolder
from ssd import (
    LAYOUTS,
    Bundle,
    DetectionArrays,
    Detector,
    GroundTruthArrays,
    bundle_digest,
    iou_xyxy,
    load_bundle,
    match_arrays,
    match_outcomes,
    resize_photo,
    voc_ap,
)

HERE = Path(__file__).parent
FACADE = [sys.executable, "-c", "from pipeline.cli.main import main; main()"]
COORDINATES = ["xmin", "ymin", "xmax", "ymax"]


def weights_of(bundle: Bundle) -> dict[str, Any]:
    """Return a bundle's weights as torchvision names them."""
    layout, ours, classes = LAYOUTS["torchvision"], bundle.model.state_dict(), 1 + len(bundle.model.config.classes)
    theirs = {layout.scale: ours["backbone.norm4.weight"]}
    for kind in ("weight", "bias"):
        for name, module in layout.modules.items():
            theirs[f"{module}.{kind}"] = ours[f"backbone.{name}.{kind}"]
        for number, heads in enumerate(layout.heads):
            joined = ours[f"heads.outputs.{number}.{kind}"]
            shapes = len(joined) // (4 + classes)
            parts = joined.reshape(shapes, 4 + classes, *joined.shape[1:])
            for head, part in zip(heads, (parts[:, :4], parts[:, 4:]), strict=True):
                theirs[f"{head}.{kind}"] = part.flatten(0, 1).contiguous()
    config = bundle.model.config
    return {"weights": theirs, "classes": classes, "mean": list(config.mean), "std": list(config.std)}


def timed(arguments: Sequence[object]) -> float:
    """Run a command and return its seconds."""
    begin = time.perf_counter()
    subprocess.run([*map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def detect(source: object, bundle: Path, out: Path, *more: str) -> list[object]:
    return [*FACADE, "detect", source, "--model", bundle, "--out", out, "--tracking", "off", *more]


def rows_of(table: pandas.DataFrame, numbers: Mapping[str, int]) -> DetectionArrays:
    """Return detections as rows of images by their numbers."""
    images = table["path"].map(numbers).to_numpy(np.int64)
    boxes = table[COORDINATES].to_numpy(np.float64)
    return DetectionArrays(images, table["label"].to_numpy(np.int64), table["score"].to_numpy(np.float64), boxes)


def found_in(out: Path, classes: Sequence[str]) -> pandas.DataFrame:
    """Return the detections of a folder with the paths of their photos and the numbers of their labels."""
    folder = StageFolder(out.parent, "detect", custom_path=out)
    photos = folder.read("photos", columns=["image_id", "uri"]).to_pandas().set_index("image_id")["uri"]
    table = folder.read("detections").to_pandas()
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    return table.assign(path=table["image_id"].map(photos), label=table["label"].map(numbers))


def speed(data: Path, bundle_folder: Path, light: Path | None) -> None:
    """Print photos a second of both, how their tables agree, and the core time that is not the network's."""
    bundle = load_bundle(bundle_folder)
    classes = bundle.model.config.classes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        context = Context(folder / "work", WorkerConfig(count=0), tracking="off")
        index.run(context, index.IndexConfig(), *resolve_card("labelmefacade"), str(data / "labelmefacade"))
        extract.run(context, extract.ExtractConfig(previews=0))
        truths = load_training_rows(context, {}, classes).rows
        paths = [row["uri"] for row in truths]
        (folder / "photos.txt").write_text("".join(f"{path}\n" for path in paths))
        torch.save(weights_of(bundle), folder / "weights.pt")
        script = [sys.executable, HERE / "detect_torchvision.py", folder / "weights.pt", folder / "photos.txt"]
        ours, theirs = list[float](), list[float]()
        for turn in range(3):
            ours.append(timed(detect(folder / "photos.txt", bundle_folder, folder / f"ours{turn}")))
            if turn < 2:
                theirs.append(timed([*script, folder / "theirs.parquet"]))
        print(f"| {len(paths)} photos | seconds | photos/s |")
        for contender, times in {"ours": ours, "torchvision's script": theirs}.items():
            told = ", ".join(f"{one:.1f}" for one in times)
            print(f"| {contender} | {told} | {len(paths) / np.median(times):.2f} |", flush=True)
        print(f"ratio {np.median(theirs) / np.median(ours):.2f}")
        scored(folder, classes, truths)
        if light is not None:
            once = timed(detect(folder / "photos.txt", light, folder / "light"))
            summary = json.loads((folder / "light" / "summary.json").read_text())
            network, rate = load_bundle(light).model.config.backbone.name, summary["photos_per_second"]
            print(f"{network}: {once:.1f} s in all, {len(paths) / once:.1f} photos/s; {rate:.1f} without the start")
        agreement(bundle, folder, paths[:64])
        beside_the_network(folder, bundle_folder)


def scored(folder: Path, classes: Sequence[str], truths: Sequence[Mapping[str, Any]]) -> None:
    """Print the average precision of both tables."""
    numbers = {row["uri"]: number for number, row in enumerate(truths)}
    sizes = [len(row["labels"]) for row in truths]
    wanted = GroundTruthArrays(
        np.repeat(np.arange(len(truths)), sizes),
        np.concatenate([row["labels"] for row in truths]),
        np.concatenate([row["boxes"] for row in truths]).astype(np.float64),
        1 + len(classes),
        np.concatenate([row["ignore"] for row in truths]),
    )
    tables = {"ours": found_in(folder / "ours0", classes), "theirs": pandas.read_parquet(folder / "theirs.parquet")}
    for name, table in tables.items():
        aps = voc_ap(match_arrays(rows_of(table, numbers), wanted), 0.5, 11)
        print(f"{name}: {len(table)} detections, mAP {100 * aps.mean:.2f}", (100 * aps.by_label[1:]).round(2))


def agreement(bundle: Bundle, folder: Path, paths: Sequence[str]) -> None:
    """Print how the detections of both agree on the same resized photos."""
    size = bundle.model.config.priors.input_size
    pictures = [np.array(Image.open(path).convert("RGB")) for path in paths]
    photos = [resize_photo(torch.from_numpy(picture).permute(2, 0, 1), *size) for picture in pictures]
    ours, model, best = Detector(bundle)(photos), load_model(folder / "weights.pt"), []
    with torch.no_grad():
        theirs = [model([photo / 255])[0] for photo in photos]
    for mine, other in zip(ours, theirs, strict=True):
        for label in range(1, 1 + len(bundle.model.config.classes)):
            sure = (mine.labels == label) & (mine.scores > 0.3)
            best += _best(mine.boxes[sure], other["boxes"][other["labels"] == label])
            certain = (other["labels"] == label) & (other["scores"] > 0.3)
            best += _best(other["boxes"][certain], mine.boxes[mine.labels == label])
    print(f"same inputs, {len(best)} detections over .3 in either: mean best IoU {np.mean(best):.4f}")


def _best(boxes: torch.Tensor, others: torch.Tensor) -> list[float]:
    if not len(boxes):
        return []
    best: list[float] = iou_xyxy(boxes, others).max(dim=1).values.tolist() if len(others) else [0.0] * len(boxes)
    return best


def beside_the_network(folder: Path, bundle_folder: Path) -> None:
    """Print the core time of a photo apart from the network, which says here what it said of the first photos."""
    rows, config = list(list_photos(str(folder / "photos.txt"))), DetectConfig(reader_threads=2)
    finder = BundleDetectorSpec(str(bundle_folder), bundle_digest(bundle_folder))
    detector: Any = finder.load(config).network
    first = [torch.from_numpy(np.array(Image.open(row["uri"]).convert("RGB"))).permute(2, 0, 1) for row in rows[:8]]
    said = detector.outputs(torch.cat([detector.inputs_of(photo) for photo in first]))
    detector.outputs = lambda inputs: tuple(part[: len(inputs)] for part in said)
    begin = time.process_time()
    tables = detect_rows(rows, finder, config)
    spent = 1000 * (time.process_time() - begin) / len(rows)
    print(f"outside the network: {spent:.2f} ms of core time a photo, {len(tables['detections'])} detections")


def rows(count: int) -> None:
    """Print how fast rows go through, and how much the scheduling process grows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        paths = [folder / "photos" / f"{number}.jpg" for number in range(1000)]
        for number, path in enumerate(paths):
            Image.fromarray(np.full((48, 64, 3), number % 256, np.uint8)).save(path)
        for total in (count // 10, count):
            listed, out = folder / f"{total}.parquet", folder / f"out{total}"
            table = {"path": [str(paths[n % 1000]) for n in range(total)], "id": [f"p{n:07d}" for n in range(total)]}
            pq.write_table(pa.table(table), listed)
            process = subprocess.Popen(
                [sys.executable, str(HERE.parent / "pipeline" / "stub_networks.py"), str(listed), str(out), "nothing"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            with _watched(process.pid) as most:
                begin = time.perf_counter()
                code = process.wait()
                spent = time.perf_counter() - begin
            written = StageFolder(folder, "detect", custom_path=out).read("photos", columns=["image_id"])
            exact = len(written) == total == len(written["image_id"].unique())
            print(
                f"{total} entries: exit {code}, {spent:.1f} s, {total / spent:.0f} photos/s, the scheduling process "
                f"took {most['rss'] / 1e6:.0f} MB, rows exact: {exact}",
                flush=True,
            )


@contextmanager
def _watched(pid: int) -> Iterator[dict[str, int]]:
    """Watch the memory of a process, not of its children."""
    most, process, done = {"rss": 0}, psutil.Process(pid), threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            try:
                most["rss"] = max(most["rss"], process.memory_info().rss)
            except psutil.Error:
                return

    thread = threading.Thread(target=watch)
    thread.start()
    yield most
    done.set()
    thread.join()


def tiles(bundle: Path, count: int) -> None:
    """Print recall of windows, and what is found twice, with tiles and without."""
    names = load_bundle(bundle).model.config.classes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        drawings = [draw_scene(10_000 + number, 2000, 1500) for number in range(count)]
        paths = {str(folder / "photos" / f"{n}.jpg"): n for n in range(count)}
        for path, drawing in zip(paths, drawings, strict=True):
            Image.fromarray(drawing.photo).save(path, quality=92)
        boxes = [(n, names.index(box.label) + 1, box) for n, one in enumerate(drawings) for box in one.boxes]
        wanted = GroundTruthArrays(
            np.array([n for n, _, _ in boxes]),
            np.array([label for _, label, _ in boxes]),
            np.array([[box.xmin, box.ymin, box.xmax, box.ymax] for _, _, box in boxes], np.float64),
            1 + len(names),
        )
        for title, more in {"whole": (), "tiles": ("--tile",)}.items():
            spent = timed(detect(folder / "photos", bundle, folder / title, *more))
            table = found_in(folder / title, names)
            for what, own in {"score from .01": table, "selected": table[table["selected"]]}.items():
                matches = match_arrays(rows_of(own, paths), wanted)
                told = [_told(matches, label, name) for label, name in enumerate(names, start=1)]
                print(f"{title}, {what}: {'; '.join(told)}; {spent:.0f} s", flush=True)


def _told(matches: Any, label: int, name: str) -> str:
    own = matches.detections.labels == label
    right = match_outcomes(matches, 0.5) == 1
    twice = own & ~right & (matches.iou >= 0.5)
    positives, hits, all_found = int(matches.truths.positives()[label]), (own & right).sum(), max(own.sum(), 1)
    return (
        f"{name} recall {100 * hits / positives:.1f} of {positives}, precision {100 * hits / all_found:.1f}, "
        f"found twice {100 * twice.sum() / all_found:.2f} %"
    )


if __name__ == "__main__":
    what, given = sys.argv[1], sys.argv[2:]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent / "pipeline"), os.environ.get("PYTHONPATH", "")])
    if what == "speed":
        speed(Path(given[0]).resolve(), Path(given[1]), Path(given[2]) if len(given) > 2 else None)
    elif what == "rows":
        rows(int(given[0]) if given else 1_000_000)
    else:
        tiles(Path(given[0]), int(given[1]) if len(given) > 1 else 20)
