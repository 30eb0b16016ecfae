"""`detect`: every photo once, right boxes in its own pixels, and nothing done twice."""

import io
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.errors import FacadeError, UsageError
from pipeline.execution.parallel import WorkerConfig
from pipeline.execution.runner import Context, Outcome
from pipeline.imaging.image_io import TRANSPOSES
from pipeline.stages.detect import stage as detect
from pipeline.stages.detect.config import DetectConfig
from pipeline.stages.detect.inference import detector_spec
from pipeline.stages.detect.job import Job
from pipeline.stages.detect.plan import DetectionPlan
from pipeline.stages.detect.stage import gpu_workers
from pipeline.storage.stage_folder import StageFolder
from pipeline.storage.verify import verify
from ssd import SSD, BackboneConfig, Bundle, Detector, ModelConfig, preset, save_bundle

from ....conftest import SilentProgress

pytestmark = pytest.mark.usefixtures("even_shards")
BOX = (40, 16, 88, 64)  # in multiples of 8, so that JPEG files show it sharply at any scale
SIZE = (160, 96)  # width, height


@dataclass
class Place:
    """A source, a folder of results, and `detect` on them with a stub."""

    folder: Path
    stubs: Any
    messages: list[str]

    @property
    def source(self) -> Path:
        return self.folder / "photos"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def context(self) -> Context:
        quiet: Any = lambda *_: SilentProgress()  # noqa: E731
        return Context(
            self.folder, WorkerConfig(count=0), "off", max_rejected=1.0, log=self.messages.append, make_progress=quiet
        )

    def job(self, **changes: Any) -> Job:
        return replace(Job(str(self.source), self.stubs.StubSpec(), self.out), **changes)

    def run(self, config: DetectConfig | None = None, **changes: Any) -> Outcome:
        return detect.run(self.context, config or DetectConfig(), self.job(**changes))

    def rows(self, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = StageFolder(self.folder, "detect", custom_path=self.out).read(table).to_pylist()
        return rows

    def photo(self, name: str, **more: Any) -> Path:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(scene(), **more))
        return path

    def photos(self, count: int) -> None:
        for number in range(count):
            self.photo(f"{number:03d}.jpg")


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    import stub_networks as module

    return module


@pytest.fixture
def detection_run(tmp_path: Path, stubs: Any) -> Place:
    return Place(tmp_path, stubs, [])


def scene(value: int = 250) -> np.ndarray:
    pixels = np.full((SIZE[1], SIZE[0], 3), 8, np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = value
    return pixels


def encoded(pixels: np.ndarray, form: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": 95} | options if form == "JPEG" else options
    Image.fromarray(pixels).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def box_of(row: dict[str, Any]) -> tuple[float, ...]:
    return tuple(row[name] for name in ("xmin", "ymin", "xmax", "ymax"))


def test_an_archive_becomes_tables(detection_run: Place) -> None:
    detection_run.photos(20)
    detection_run.photo("deep/er/one.png", form="PNG")
    outcome = detection_run.run()
    assert (outcome.rows_in, outcome.rows_out, outcome.rejected, outcome.added) == (21, 21, 0, 21)
    photos, detections = detection_run.rows("photos"), detection_run.rows("detections")
    assert [row["image_id"] for row in photos] == [f"{n:03d}.jpg" for n in range(20)] + ["deep/er/one.png"]
    assert {(row["status"], row["width"], row["height"], row["detections"]) for row in photos} == {("done", *SIZE, 1)}
    assert [row["detection_id"] for row in detections] == [f"{row['image_id']}#0" for row in photos]
    assert {(box_of(row), row["label"], row["selected"], row["model_digest"]) for row in detections} == {
        (BOX, "window", True, "lights")
    }
    assert {row["probability"] for row in detections} == {None}
    assert verify(detection_run.out).rows_in == 21
    summary = json.loads((detection_run.out / "summary.json").read_text())
    assert summary["photos"] == {"all": 21, "done": 21, "rejected": 0}
    assert (summary["detections"], summary["selected"]) == ({"window": 21}, {"window": 21})
    assert summary["seconds"].keys() == {"listing", "detecting"}


ORIENTATIONS = {f"turned {number}": {"exif": {0x0112: number}} for number in range(1, 9)}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "progressive": {"progressive": True},
    "grey": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
    "png": {"form": "PNG"},
    "palette": {"form": "PNG", "mode": "P"},
    "alpha": {"form": "PNG", "mode": "RGBA"},
    "grey alpha": {"form": "PNG", "mode": "LA"},
    "webp": {"form": "WEBP", "lossless": True},
    "tiff": {"form": "TIFF"},
    "cmyk tiff": {"form": "TIFF", "mode": "CMYK"},
    "bmp": {"form": "BMP"},
    **ORIENTATIONS,
}


@pytest.mark.parametrize("least", [(0, 0), (10, 10)])
def test_photos_of_every_kind_have_their_box_in_their_own_upright_pixels(
    detection_run: Place, stubs: Any, least: tuple[int, int]
) -> None:
    for kind, options in KINDS.items():
        more = dict(options)
        if "exif" in more:
            more["exif"] = exif(more["exif"])
        detection_run.photo(f"{kind}.jpg", **more)
    animated = [Image.fromarray(scene()), Image.fromarray(scene(0)), Image.fromarray(scene(90))]
    animated[0].save(detection_run.source / "animated.gif", save_all=True, append_images=animated[1:])
    wide = scene().astype(np.uint16)[..., 0] * 257
    (detection_run.source / "16 bit.png").write_bytes(png16(wide))
    assert detection_run.run(detector=stubs.StubSpec(min_size=least)).rejected == 0
    found = {row["image_id"]: box_of(row) for row in detection_run.rows("detections")}
    sizes = {row["image_id"]: (row["width"], row["height"]) for row in detection_run.rows("photos")}
    assert len(found) == len(sizes) == len(KINDS) + 2
    for name, box in found.items():
        kind = name.partition(".")[0]
        true, size = turned(int(kind[-1])) if kind in ORIENTATIONS else (BOX, SIZE)
        assert sizes[name] == size, name
        assert box == pytest.approx(true, abs=2 if any(least) else 1), name


def exif(values: dict[int, int]) -> Image.Exif:
    made = Image.Exif()
    made.update(values)
    return made


def png16(wide: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(wide).save(buffer, "PNG")
    return buffer.getvalue()


def turned(orientation: int) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Where the box is after turning the photo upright, by turning a mask of it."""
    mask = Image.new("L", SIZE)
    mask.paste(255, BOX)
    upright = mask.transpose(TRANSPOSES[orientation]) if orientation != 1 else mask
    box = upright.getbbox()
    assert box is not None
    return box, upright.size


def test_bad_photos_are_rejected_rows(detection_run: Place) -> None:
    good = detection_run.photo("good.jpg").read_bytes()
    bomb = io.BytesIO()
    Image.new("1", (40_000, 40_000)).save(bomb, "PNG")
    heic = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100)
    bad = {
        "empty.jpg": (b"", "empty"),
        "cut.jpg": (good[: len(good) * 3 // 4], "damaged"),
        "text.jpg": (b"hello", "not an"),
        "bomb.png": (bomb.getvalue(), "pixels, more than"),
        "x.heic": (heic, "not an image in a format that is read here"),
        "x.avif": (b"x", ""),
    }
    for name, (data, _) in bad.items():
        (detection_run.source / name).write_bytes(data)
    (detection_run.source / "folder.jpg").mkdir()
    (detection_run.source / "gone.jpg").symlink_to("nowhere.jpg")
    (detection_run.source / "loop.jpg").symlink_to("loop.jpg")
    before = sorted(path for path in detection_run.folder.rglob("*") if not path.is_relative_to(detection_run.out))
    outcome = detection_run.run()
    assert (outcome.rows_in, outcome.rows_out, outcome.rejected) == (len(bad) + 3, 1, len(bad) + 2)
    told = {row["image_id"]: row["message"] for row in detection_run.rows("rejected")}
    assert told.keys() == {*bad, "gone.jpg", "loop.jpg"}
    for name, (_, message) in bad.items():
        assert message in told[name], told[name]
    statuses = {row["image_id"]: row["status"] for row in detection_run.rows("photos")}
    assert statuses == {"good.jpg": "done", **dict.fromkeys(told, "rejected")}
    assert (
        sorted(path for path in detection_run.folder.rglob("*") if not path.is_relative_to(detection_run.out)) == before
    )
    assert verify(detection_run.out).rejected == len(bad) + 2


def test_what_is_done_is_not_done_again(detection_run: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    detection_run.photos(700)
    first = detection_run.run()
    monkeypatch.setattr(
        "pipeline.stages.detect.inference.read_photo", lambda row: pytest.fail(f"{row['image_id']} was read again")
    )
    again = detection_run.run()
    assert (again.changed, again.rows_in, again.digest) == (False, 700, first.digest)
    monkeypatch.undo()
    sys.path.insert(0, str(Path(__file__).parents[2]))
    before = {path.name for path in (detection_run.out / "photos").iterdir()}
    detection_run.photo("a new one.jpg")
    more = detection_run.run()
    assert (more.changed, more.rows_in, more.added) == (True, 701, 1)
    assert before < {path.name for path in (detection_run.out / "photos").iterdir()}
    changed = detection_run.photo("600.jpg", quality=50)
    os.utime(changed, (1, 1))
    last = detection_run.run()
    assert (last.rows_in, last.added, last.modified) == (701, 0, 1)
    assert len(before & {path.name for path in (detection_run.out / "photos").iterdir()}) == 1


def test_rejected_photos_are_tried_again_when_asked_and_no_other(
    detection_run: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    detection_run.photos(600)
    whole = (detection_run.source / "100.jpg").read_bytes()
    for number in (100, 300, 550):
        (detection_run.source / f"{number}.jpg").write_bytes(b"no photo at all" * 100)
    first = detection_run.run()
    assert (first.rejected, first.rows_out) == (3, 597)
    stamps = {number: (detection_run.source / f"{number}.jpg").stat() for number in (100, 550)}
    read: list[str] = []
    real = detect.detect_rows.__globals__["read_photo"]
    monkeypatch.setitem(
        detect.detect_rows.__globals__, "read_photo", lambda row: read.append(row["image_id"]) or real(row)
    )
    assert detection_run.run().changed is False
    assert read == []
    for number, stat in stamps.items():  # mended, but with the stamps of before: only --retry-failed looks at them
        (detection_run.source / f"{number}.jpg").write_bytes(
            whole + bytes(stat.st_size - len(whole)) if stat.st_size > len(whole) else whole
        )
        os.utime(detection_run.source / f"{number}.jpg", ns=(stat.st_mtime_ns, stat.st_mtime_ns))
    rows = [{**row, "uri": row["uri"]} for row in detection_run.rows("photos")]
    second = detection_run.run(retry_rejected=True)
    assert sorted(read) == ["100.jpg", "300.jpg", "550.jpg"]
    assert (second.rejected, second.rows_out, second.rows_in) == (1, 599, 600)
    after = detection_run.rows("photos")
    assert [row["image_id"] for row in after] == [row["image_id"] for row in rows]
    assert [row["image_id"] for row in detection_run.rows("detections")] == [
        row["image_id"] for row in after if row["status"] == "done"
    ]
    (detection_run.source / "300.jpg").write_bytes(whole)
    assert detection_run.run(retry_rejected=True).rejected == 0
    fresh = detection_run.run(out=detection_run.folder / "fresh")
    assert [
        {**row, "uri": ""}
        for row in StageFolder(detection_run.folder, "detect", custom_path=detection_run.folder / "fresh")
        .read("photos")
        .to_pylist()
    ] == [{**row, "uri": ""} for row in detection_run.rows("photos")]
    assert fresh.rows_out == 600


def test_a_retry_that_was_cut_short_before_its_end_is_kept(
    detection_run: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    detection_run.photos(3)
    (detection_run.source / "001.jpg").write_bytes(b"no photo")
    detection_run.run()
    detection_run.photo("001.jpg")
    os.utime(detection_run.source / "001.jpg", ns=(1, 1))
    monkeypatch.setattr(StageFolder, "commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        detection_run.run(retry_rejected=True)
    monkeypatch.undo()
    sys.path.insert(0, str(Path(__file__).parents[2]))
    assert detection_run.run().rejected == 0


@pytest.mark.parametrize("change", ["model", "settings", "source"])
def test_another_model_source_or_setting_is_refused_in_a_sentence(detection_run: Place, change: str) -> None:
    detection_run.photos(2)
    detection_run.run()
    (detection_run.folder / "other").mkdir()
    config = DetectConfig(min_score=0.4) if change == "settings" else DetectConfig()
    changes = {
        "model": {"detector": detection_run.stubs.StubSpec("nothing")},
        "source": {"source": str(detection_run.folder / "other")},
        "settings": {},
    }[change]
    told = {"model": "model lights, not nothing", "source": "other", "settings": r"detect\.min_score None, not 0\.4"}[
        change
    ]
    with pytest.raises(FacadeError, match=told):
        detection_run.run(config, **changes)
    assert (
        detection_run.run(DetectConfig(batch=3, reader_threads=1)).changed is False
    )  # these decide nothing but the speed


def test_a_limit_and_a_preview(detection_run: Place) -> None:
    detection_run.photos(30)
    line = detect.dry_run(detection_run.context, DetectConfig(), detection_run.job(limit=10))
    assert (line["rows_in"], line["added"], line["changed"]) == (10, 10, False)
    assert not detection_run.out.exists()
    assert detection_run.run(limit=10).rows_in == 10
    line = detect.dry_run(detection_run.context, DetectConfig(), detection_run.job())
    assert (line["rows_in"], line["added"]) == (30, 20)
    assert len(DetectionPlan(detection_run.out).shards()) == 1
    assert detection_run.run().rows_in == 30


def test_shards_for_schedulers_make_the_same_tables(detection_run: Place) -> None:
    detection_run.photos(1100)
    (detection_run.source / "700.jpg").write_bytes(b"no photo")
    line = detect.write_plan(detection_run.context, DetectConfig(), detection_run.job())
    assert (line["rows_in"], line["groups"], line["outputs"]) == (1100, ["0:3"], {"plan": 3})
    for span in ((1, 3), (0, 1)):
        part = detection_run.run(shards=span)
        assert part.changed
        assert part.rows_in == {(1, 3): 588, (0, 1): 512}[span]
    assert not (detection_run.out / "_manifest.json").exists()
    assert detection_run.run(shards=(1, 3)).changed is False
    whole = detection_run.run()
    assert (whole.rows_in, whole.rejected) == (1100, 1)
    assert any("3 of 3 shards were finished before" in line for line in detection_run.messages)
    assert whole.digest == detection_run.run(out=detection_run.folder / "calm").digest
    with pytest.raises(UsageError, match="0:3"):
        detection_run.run(shards=(2, 4))
    with pytest.raises(FacadeError, match="no plan"):
        detection_run.run(shards=(0, 1), out=detection_run.folder / "nowhere")


def test_nothing_to_find_in_is_an_error(detection_run: Place) -> None:
    detection_run.source.mkdir()
    (detection_run.source / "notes.txt").touch()
    with pytest.raises(FacadeError, match="has no photos"):
        detection_run.run()


def test_too_many_rejected_photos_are_an_error_and_stay_done(detection_run: Place) -> None:
    detection_run.photos(10)
    for number in range(5):
        (detection_run.source / f"{number:03d}.jpg").write_bytes(b"no photo")
    strict = replace(detection_run.context, max_rejected=0.2)
    with pytest.raises(FacadeError, match=r"50\.0%, allowed are 20\.0%"):
        detect.run(strict, DetectConfig(), detection_run.job())
    assert detection_run.run().rejected == 5
    assert any("1 of 1 shards were finished before" in line for line in detection_run.messages)


def test_a_list_s_own_columns_come_through(detection_run: Place) -> None:
    detection_run.photos(2)
    rows = "path,id,lat,lon,heading,street\n000.jpg,a,59.5,30.25,90,Nevsky\n001.jpg,b,,,,Moika\n"
    (detection_run.source / "list.csv").write_text(rows)
    detection_run.run(source=str(detection_run.source / "list.csv"))
    first, second = detection_run.rows("photos")
    assert (first["image_id"], first["latitude"], first["longitude"], first["heading"]) == ("a", 59.5, 30.25, 90.0)
    assert (dict(first["extra"]), dict(second["extra"])) == ({"street": "Nevsky"}, {"street": "Moika"})
    assert [row["image_id"] for row in detection_run.rows("detections")] == ["a", "b"]


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # Dask's use of pandas 3.1
def test_the_tables_open_in_pandas_duckdb_and_dask(detection_run: Place) -> None:
    import dask.dataframe as dd
    import duckdb
    import pandas as pd

    detection_run.photos(600)
    rows = "path,street\n" + "".join(f"{number:03d}.jpg,Street {number}\n" for number in range(600))
    (detection_run.source / "list.csv").write_text(rows)
    detection_run.run(source=str(detection_run.source / "list.csv"))
    detections, photos = str(detection_run.out / "detections"), str(detection_run.out / "photos")
    assert len(pd.read_parquet(detections)) == len(pd.read_parquet(photos)) == 600
    frame = dd.read_parquet(detections)
    assert frame.npartitions == 2
    assert frame["score"].count().compute() == 600
    assert set(frame["label"].compute()) == {"window"}
    (row,) = duckdb.sql(
        f"select count(*), sum(xmax - xmin), min(extra['street'][1]) from read_parquet('{detections}/*.parquet') d "
        f"join read_parquet('{photos}/*.parquet') p using (image_id)"
    ).fetchall()
    assert (row[0], row[1]) == (600, 600 * 48)
    assert pq.read_schema(next((detection_run.out / "detections").iterdir())).metadata[b"facade.table"] == b"detections"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained tiny network of three classes."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    model = SSD(ModelConfig(preset("paper_coco"), ("building", "window", "door"), BackboneConfig("tiny"))).eval()
    save_bundle(folder, Bundle(model))
    return folder


def test_the_command_finds_what_the_detector_finds(facade: Callable, bundle: Path, drawn: Path, tmp_path: Path) -> None:
    from pipeline.imaging.image_io import decode_photo
    from ssd import load_bundle

    common = ("--model", bundle, "--out", "out", "--tracking", "off", "--set", "detect.bfloat16=false")
    done = facade("detect", drawn / "photos", *common, "--previews", 3)
    assert done.code == 0, done.text
    assert "Dask's dashboard is at http://127.0.0.1:" in done.text
    assert (done.line["rows_in"], done.line["rows_out"], done.line["added"]) == (10, 10, 10)
    detector = Detector(load_bundle(bundle), bfloat16=False)
    rows = StageFolder(tmp_path, "detect", custom_path=tmp_path / "out").read("detections").to_pylist()
    for path in sorted((drawn / "photos").iterdir()):
        (expected,) = detector([torch.tensor(decode_photo(path.read_bytes())).permute(2, 0, 1)])
        own = [row for row in rows if row["image_id"] == path.name]
        assert np.allclose([row["score"] for row in own], expected.scores, atol=1e-4)
        assert len({row["label"] for row in own}) > 1
    assert [path.name for path in sorted((tmp_path / "out/previews").iterdir())] == [
        *("000_facade_00000.jpg", "001_facade_00003.jpg", "002_facade_00006.jpg", "contact_sheet.jpg", "scores.jpg")
    ]
    again = facade("detect", drawn / "photos", *common)
    assert (again.code, again.line["changed"], "nothing to do" in again.text) == (0, False, True)
    assert facade("verify", "out").code == 0
    other = facade("detect", drawn / "photos", *common, "--tile")
    assert other.code == 1
    assert "detect.tile False, not True" in other.line["error"]


def test_a_work_folder_is_read_by_its_index(
    facade: Callable, workplace: Callable, bundle: Path, drawn: Path, cards: tuple[str, str]
) -> None:
    work = workplace("made")
    work.index(drawn, cards[0])
    work.extract()
    images = work.rows("index", "images")
    common = ("detect", work.context.work, "--model", bundle, "--tracking", "off", "--workers", 1)
    done = facade(*common, "--split", "all", "--previews", 2)
    assert done.code == 0, done.text
    folder = StageFolder(work.context.work, "detect")
    assert [row["image_id"] for row in folder.read("photos").to_pylist()] == [row["image_id"] for row in images]
    with Image.open(next((folder.path / "previews").glob("000_*"))) as picture:
        assert picture.width > 2 * 320  # detections next to ground truth
    train = facade(*common, "--split", "train", "--out", "train")
    assert train.line["rows_in"] == sum(row["split"] == "train" for row in images)
    wrong = facade(*common, "--split", "train")
    assert wrong.code == 1
    assert "split all, not train" in wrong.line["error"]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("nowhere",), 1, "nowhere is not there"),
        (("photos", "--split", "half"), 2, "--split half"),
        (("photos", "--shards", "1-2"), 2, "give two numbers as 0:8"),
        (("photos", "--plan", "--dry-run"), 2, "three different things"),
        (("photos", "--scheduler", "tcp://127.0.0.1:9"), 1, "no Dask scheduler answers"),
        (("photos", "--set", "detect.scor=1"), 2, "unknown key 'scor'"),
    ],
)
def test_wrong_words_are_answered_in_a_sentence(
    facade: Callable, bundle: Path, tmp_path: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_bytes(encoded(scene()))
    done = facade("detect", *words, "--model", bundle, "--out", "out", "--tracking", "off")
    assert (done.code, sentence in done.line["error"]) == (code, True), done.line["error"]


def test_an_out_folder_must_be_named_unless_the_source_has_a_place_for_it(facade: Callable, bundle: Path) -> None:
    done = facade("detect", "photos", "--model", bundle)
    assert done.code == 2
    assert "--out is missing" in done.line["error"]


@pytest.mark.parametrize(
    ("spoilt", "sentence"),
    [("pickle", "not a model bundle"), ("digest", "sha256"), ("keys", "colour"), ("absent", "not a model bundle")],
)
def test_a_bundle_that_is_none_is_refused(
    facade: Callable, bundle: Path, drawn: Path, tmp_path: Path, spoilt: str, sentence: str
) -> None:
    import shutil

    model = tmp_path / "model"
    if spoilt != "absent":
        shutil.copytree(bundle, model)
    if spoilt == "pickle":
        (model / "model.json").unlink()
        torch.save({"a": 1}, model / "weights.pth")
    elif spoilt == "digest":
        data = bytearray((model / "weights.safetensors").read_bytes())
        data[-1] ^= 1
        (model / "weights.safetensors").write_bytes(data)
    elif spoilt == "keys":
        value = json.loads((model / "model.json").read_text())
        (model / "model.json").write_text(json.dumps({**value, "colour": "red"}))
    done = facade("detect", drawn / "photos", "--model", model, "--out", "out", "--tracking", "off")
    assert done.code == 1
    assert sentence in done.line["error"], done.line["error"]
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_mlflow_by_its_alias(facade: Callable, bundle: Path, drawn: Path, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    from pipeline.tracking.run_logger import open_run

    store = f"sqlite:///{tmp_path}/mlflow.db"
    with open_run("train", store) as run:
        run.log_bundle(bundle)
    client = MlflowClient(store)
    (logged,) = client.search_logged_models([client.get_run(run.run_id).info.experiment_id])
    client.create_registered_model("facade")
    version = client.create_model_version("facade", logged.artifact_location, run.run_id, model_id=logged.model_id)
    client.set_registered_model_alias("facade", "champion", version.version)
    common = ("detect", drawn / "photos", "--out", "out", "--tracking", store, "--limit", 2, "--workers", 0)
    done = facade(*common, "--model", "models:/facade@champion")
    assert done.code == 0, done.text
    run = client.get_run(done.line["run_id"])
    assert (run.data.metrics["rows_in"], run.data.params["detect.tile"]) == (2.0, "False")
    wrong = facade(*common, "--model", "models:/facade@nobody")
    assert wrong.code == 1
    assert "models:/facade@nobody cannot be had" in wrong.line["error"]


def test_a_network_is_opened_once_for_two_threads(bundle: Path) -> None:
    finder, config = detector_spec(bundle), DetectConfig(max_detections=7, device="cpu")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(finder.load, [config, config])
    assert first is second


def test_a_gpu_is_one_process_with_two_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "glob", lambda _: ["/dev/nvidia0", "/dev/nvidia1"])
    assert gpu_workers(WorkerConfig(), "auto") == WorkerConfig(count=2, threads=2)
    assert gpu_workers(WorkerConfig(count=5), "auto") == WorkerConfig(count=5, threads=2)
    assert gpu_workers(WorkerConfig(count=0), "auto").local_count == 0
    assert gpu_workers(WorkerConfig(), "cpu") == WorkerConfig()
    assert gpu_workers(WorkerConfig("tcp://x"), "auto") == WorkerConfig("tcp://x")
    monkeypatch.setattr(detect, "glob", lambda _: [])
    assert gpu_workers(WorkerConfig(), "auto") == WorkerConfig()
