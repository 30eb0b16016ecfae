"""`evaluate` on tables: every photo judged once, figures that follow from them, files for those who come after."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.datasets.synthetic.cards import BOX_CARD
from pipeline.errors import FacadeError
from pipeline.models.operating_point import OPERATING_POINT_FILE, load_operating_point
from pipeline.stages.detect import stage as detect
from pipeline.stages.detect.config import DetectConfig
from pipeline.stages.detect.inference import detector_spec
from pipeline.stages.evaluate import stage as evaluate
from pipeline.stages.evaluate.scores import HEADLINE, PARTS, headline_rows, score_rows
from pipeline.stages.evaluate.tables import evaluate_images
from pipeline.storage.schemas import SCHEMAS
from pipeline.storage.verify import verify
from ssd import SSD, BackboneConfig, Bundle, ModelConfig, bundle_digest, match_arrays, preset, save_bundle, voc_ap

from ....conftest import Workspace
from ...noise_model import CLASSES, make_noisy_evaluation
from ...oracle_detector import oracle_spec, run_detect, run_evaluate


@pytest.fixture(scope="module")
def folder(make_streets: Callable[..., Path]) -> Path:
    """40 synthetic streets with their boxes."""
    return make_streets(40, 9, 160, 120)


@pytest.fixture
def work(workplace: Callable[..., Workspace], folder: Path) -> Workspace:
    """A work folder with boxes, and detections in the photos that nothing was learnt from."""
    made = workplace()
    made.index(folder, BOX_CARD)
    made.extract()
    run_detect(made)
    return made


def test_every_photo_is_judged_once(work: Workspace) -> None:
    outcome = run_evaluate(work)
    images = [row for row in work.rows("index", "images") if row["split"] != "train"]
    assert (outcome.rows_in, outcome.rows_out, outcome.changed) == (len(images), len(images), True)
    rows = work.rows("evaluate", "evaluated_images")
    assert {row["image_id"] for row in rows} == {row["image_id"] for row in images}
    boxes = [row["image_id"] for row in work.rows("extract", "boxes")]
    for row in rows:
        assert row["ground_truths"] == boxes.count(row["image_id"])
        assert row["correct"] + row["missed"] == row["ground_truths"]
        assert (
            sum(row[kind] for kind in ("correct", "duplicate", "localisation", "class", "background"))
            == row["selected"]
        )
    assert len(work.rows("evaluate", "detection_matches")) == len(work.rows("detect", "detections"))
    assert verify(work.context.work).problems == ()


def test_a_second_time_there_is_nothing_to_do(work: Workspace) -> None:
    first = run_evaluate(work)
    again = run_evaluate(work)
    assert (again.changed, again.digest) == (False, first.digest)
    assert not run_detect(work).changed, "what it has learnt does not change what it has judged"


def test_the_figures_are_those_of_the_metrics(work: Workspace) -> None:
    run_evaluate(work)
    scores = work.rows("evaluate", "scores")
    for row in headline_rows(scores, "test").values():
        assert 0 <= row["low"] <= row["value"] + 1e-9
        assert row["value"] <= row["high"] + 1e-9 <= 1 + 1e-6
        assert row["value"] > 0.6
    assert {row["split"] for row in scores} == {"val", "test"}
    assert {row["kind"] for row in work.rows("evaluate", "error_breakdown")} >= {"correct", "missed", "background"}


def test_pictures_and_files_are_left(work: Workspace) -> None:
    run_evaluate(work)
    folder = work.context.folder("evaluate").path
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*g") if path.suffix in {".png", ".jpg"}}
    figures = ("precision_recall", "scores", "calibration", "by_size", "by_shape", "error_breakdown")
    assert {f"figures/{name}.png" for name in figures} <= names
    assert "previews/worst_window.jpg" in names
    point = json.loads((folder / OPERATING_POINT_FILE).read_text())
    assert (point["model"], point["split"]) == ("knowing", "val")
    assert (folder / "suspicious_labels.csv").read_text().startswith("rank,kind,image_id,")


def test_photos_without_truth_are_told(work: Workspace, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    finder = oracle_spec(work)
    detect.run(work.context, DetectConfig(), detect.Job(str(folder / "photos"), finder, elsewhere))
    with pytest.raises(FacadeError, match=r"no photo of .* has truth"):
        run_evaluate(work, detections=str(elsewhere))
    with pytest.raises(FacadeError, match="has no finished detections"):
        run_evaluate(work, detections=str(tmp_path / "nowhere"))


def test_the_operating_point_goes_beside_the_bundle_and_chooses(work: Workspace, folder: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    model = SSD(ModelConfig(preset("paper_coco"), CLASSES, BackboneConfig("tiny"))).eval()
    save_bundle(bundle, Bundle(model))
    finder = replace(oracle_spec(work), digest=bundle_digest(bundle), path=str(bundle))
    run_detect(work, finder, overwrite=True)
    run_evaluate(work)
    point = load_operating_point(bundle, bundle_digest(bundle))
    assert point is not None
    assert point.to_json() == (work.context.folder("evaluate").path / OPERATING_POINT_FILE).read_bytes()
    assert detector_spec(bundle).operating_point_digest == point.digest
    assert detector_spec(bundle, use_operating_point=False).operating_point_digest is None
    out = tmp_path / "found"
    detect.run(work.context, DetectConfig(), detect.Job(str(folder / "photos"), detector_spec(bundle), out, limit=3))
    rows = work.context.folder("detect")
    found = replace(rows, custom_path=out).read("detections").to_pylist()
    assert found
    assert all(row["probability"] is not None for row in found)
    (bundle / OPERATING_POINT_FILE).write_text("{}")
    with pytest.raises(FacadeError, match=OPERATING_POINT_FILE):
        detector_spec(bundle)


def test_what_was_cut_short_after_the_tables_is_done_by_the_next(
    work: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = work.context.folder("evaluate").path
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "_finalize", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_evaluate(work)
    assert not (folder / OPERATING_POINT_FILE).exists()
    assert not run_evaluate(work).changed
    point = (folder / OPERATING_POINT_FILE).read_bytes()
    (folder / "suspicious_labels.csv").unlink()
    (folder / OPERATING_POINT_FILE).unlink()
    run_evaluate(work)
    assert (folder / OPERATING_POINT_FILE).read_bytes() == point
    assert (folder / "suspicious_labels.csv").exists()


def test_what_was_judged_without_mlflow_is_told_later(work: Workspace, tmp_path: Path) -> None:
    from pipeline.tracking.registry import open_store

    bundle = tmp_path / "bundle"
    save_bundle(bundle, Bundle(SSD(ModelConfig(preset("paper_coco"), CLASSES, BackboneConfig("tiny"))).eval()))
    run_detect(work, replace(oracle_spec(work), digest=bundle_digest(bundle), path=str(bundle)), overwrite=True)
    run_evaluate(work)
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    tracked = replace(work, context=replace(work.context, tracking=uri))
    assert not run_evaluate(tracked).changed
    (run,) = open_store(uri).runs()
    assert (run.name, run.metrics["test.voc11_50"] > 0.5) == ("evaluate", True)
    assert any("not registered as a version of facade" in line for line in work.messages)
    run_evaluate(tracked)
    assert len(list(open_store(uri).runs())) == 1


def test_photos_that_could_not_be_looked_at_are_told(work: Workspace) -> None:
    run_detect(work, limit=4, overwrite=True)
    folder = work.context.folder("detect")
    assert len(folder.read("photos")) > 4, "a limit takes nothing away"
    shutil.rmtree(folder.path)
    run_detect(work, limit=4)
    run_evaluate(work)
    assert any("(rejected, or not detected on); they were not evaluated" in line for line in work.messages)


def test_where_nothing_is_to_be_found_there_are_no_figures(work: Workspace) -> None:
    ids = {row["image_id"] for row in work.rows("index", "images")}
    rows = [
        f"{box['image_id']},{box['label']},{box['xmin']},{box['ymin']},{box['xmax']},{box['ymax']}\n"
        for box in work.rows("extract", "boxes")
    ]
    (work.context.work / "corrections.csv").write_text(f"image_id,label,xmin,ymin,xmax,ymax\n{''.join(rows)}")
    work.extract()
    outcome = run_evaluate(work)
    assert 0 < outcome.rows_in < len(ids)
    assert any("no ground-truth boxes" in line for line in work.messages)


def test_classes_that_a_dataset_does_not_label_are_left_out() -> None:
    judged = make_noisy_evaluation(40, 1).data
    labelled = np.ones((40, 4), np.bool_)
    labelled[:20, 1] = False
    kept = labelled[judged.ground_truths.images, judged.ground_truths.labels]
    truths = judged.ground_truths
    truths = type(truths)(truths.images[kept], truths.labels[kept], truths.boxes[kept], 4, None, labelled)
    part = replace(judged, ground_truths=truths, box_ids=judged.box_ids.filter(pa.array(kept)))
    scores = headline_rows(score_rows(part, 0), "test")
    counted = part.select_split("test")
    whole = voc_ap(match_arrays(counted.detections, counted.ground_truths), 0.5, 11)
    assert scores["building"]["value"] == pytest.approx(whole.by_label[1])
    kinds = evaluate_images(part, "m", 0)["detection_matches"].to_pylist()
    hidden = {f"drawn/{n:05d}" for n in range(20)}
    assert {row["outcome"] for row in kinds if row["label"] == "building" and row["image_id"] in hidden} == {"ignored"}


def test_parts_add_up_to_the_whole() -> None:
    judged = make_noisy_evaluation(40, 2).data
    rows = score_rows(judged, 0)
    for label in CLASSES:
        whole = headline_rows(rows, "test")[label]["positives"]
        for kind, names in PARTS.items():
            parts = {f"{kind} {name}" for name in names}
            own = [row for row in rows if (row["split"], row["label"]) == ("test", label) and row["part"] in parts]
            assert sum(row["positives"] for row in own if row["protocol"] == "recall_50") == whole
    assert {row["protocol"] for row in rows} >= {HEADLINE, "voc11_75", "voc_50", "coco_100", "coco_500"}


def test_tables_of_nothing_found_and_of_one_photo() -> None:
    judged = make_noisy_evaluation(2, 3, splits=("test",)).data
    one = judged.select_images(np.array([True, False]))
    tables = evaluate_images(one, "m", 10)
    assert {name: table.schema for name, table in tables.items()} == {name: SCHEMAS[name] for name in tables}
    none = type(one.detections)(
        np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 4), np.float32)
    )
    empty = evaluate_images(replace(one, detections=none, detection_ids=pa.array([], pa.string())), "m", 10)
    assert len(empty["detection_matches"]) == 0
    assert headline_rows(empty["scores"].to_pylist(), "test")[""]["value"] == 0
