"""The bundled default model: small, complete, and as good as its card says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.assets import DEFAULT_MODEL, is_packaged, resolve_bundle
from pipeline.cli.detect import _default_model
from pipeline.datasets.card import resolve_card
from pipeline.datasets.synthetic import write_dataset
from pipeline.datasets.synthetic.cards import BOX_CARD
from pipeline.errors import UsageError
from pipeline.models.bundle import CARD_FILE, bundle_info
from pipeline.models.operating_point import OPERATING_POINT_FILE, load_operating_point
from pipeline.stages.detect import stage as detect
from pipeline.stages.detect.config import DetectConfig
from pipeline.stages.detect.inference import detector_spec
from pipeline.stages.evaluate import stage as evaluate
from pipeline.stages.evaluate.scores import HEADLINE
from pipeline.stages.evaluate.stage import EvaluateConfig

from ...conftest import CommandResult, Workspace

FOLDER = resolve_bundle(DEFAULT_MODEL)


def test_it_is_small_and_whole() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        "model.json",
        "weights.safetensors",
        OPERATING_POINT_FILE,
        CARD_FILE,
    }
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 12e6
    facts = bundle_info(FOLDER)
    assert facts["classes"] == ["building", "window", "door"]
    point = load_operating_point(FOLDER, facts["digest"])
    assert point is not None
    assert (point.split, set(point.classes)) == ("val", {"building", "window", "door"})


def test_its_card_says_what_it_is() -> None:
    facts, card = bundle_info(FOLDER), (FOLDER / CARD_FILE).read_text()
    assert facts["digest"] in card
    assert facts["trained"]["data"]["datasets"] == ["cmp_xml", "drawn_boxes", "saint_petersburg"]
    for name in ("cmp_xml", "saint_petersburg", "labelmefacade"):
        assert f"| {resolve_card(name)[0].licence} |" in card
    assert "labelmefacade, *not used in training*" in card
    assert "damage" in card


def test_it_knows_nothing_of_the_machine_that_made_it() -> None:
    for name in ("model.json", OPERATING_POINT_FILE, CARD_FILE):
        assert not re.search(r"[\"` (](/\w|[A-Z]:\\|\.\./)", (FOLDER / name).read_text())


def test_photos_and_nothing_else_said_is_enough(facade: Callable[..., CommandResult], tmp_path: Path) -> None:
    write_dataset(tmp_path / "streets", 8, seed=77)
    done = facade("detect", "streets/photos", "--out", "found", "--tracking", "off")
    assert (done.code, done.line["rows_out"]) == (0, 8)
    found = json.loads((tmp_path / "found" / "summary.json").read_text())
    assert found["model"] == bundle_info(FOLDER)["digest"]
    lines = (tmp_path / "streets/truth.jsonl").read_text().splitlines()
    true = [box for line in lines for box in json.loads(line)["boxes"]]
    windows = sum(box["label"] == "window" for box in true)
    assert 0.6 * windows < found["selected"]["window"] < 1.4 * windows
    shown = facade("model", "show", DEFAULT_MODEL)
    assert (FOLDER / CARD_FILE).read_text().strip() in shown.text


def test_its_thresholds_are_not_fitted_to_other_photos(workplace: Callable[..., Workspace], cards: list[str]) -> None:
    work = workplace()
    write_dataset(work.context.work.parent / "streets", 20, seed=3, width=160, height=120)
    work.index(work.context.work.parent / "streets", cards[1])
    work.extract()
    before = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    place = work.context.folder("detect").path
    job = detect.Job(str(work.context.work), detector_spec(FOLDER, use_operating_point=False), place)
    detect.run(work.context, DetectConfig(), job)
    evaluate.run(work.context, EvaluateConfig(bootstrap_samples=0, previews=0))
    assert before == {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert any("keeps its thresholds" in line for line in work.messages)
    assert (
        work.context.folder("detect").require_manifest().settings["bundle"] == DEFAULT_MODEL
    )  # wherever it is installed
    assert is_packaged(FOLDER)
    assert not is_packaged(place)


@pytest.mark.parametrize(
    ("name", "root", "least"),
    [
        ("saint_petersburg", "saint_petersburg", {"window": 0.55, "door": 0.45}),
        ("cmp_xml", "cmp", {"window": 0.60, "door": 0.35}),
    ],
)
def test_it_is_as_good_as_promised(
    workplace: Callable[..., Workspace], real_data: Path, name: str, root: str, least: dict[str, float]
) -> None:
    work = workplace(name)
    work.index(real_data / root, name=name)
    work.extract()
    place = work.context.folder("detect").path
    job = detect.Job(str(work.context.work), detector_spec(FOLDER, use_operating_point=False), place, split="test")
    detect.run(work.context, DetectConfig(), job)
    evaluate.run(work.context, EvaluateConfig(bootstrap_samples=0, previews=0))
    scores = {
        row["label"]: row["value"]
        for row in work.rows("evaluate", "scores")
        if (row["protocol"], row["part"]) == (HEADLINE, "")
    }
    assert {label: scores[label] for label, value in least.items() if scores[label] < value} == {}


def test_it_is_used_unless_a_work_folder_has_its_own(workplace: Callable[..., Workspace], drawn: Path) -> None:
    work = workplace()
    photos = work.context.work.parent / "photos"
    (photos / "index").mkdir(parents=True)
    assert _default_model(str(photos)) == DEFAULT_MODEL
    work.index(drawn, BOX_CARD)
    with pytest.raises(UsageError, match="has no trained model; run `facade train`, or name one, as --model default"):
        _default_model(str(work.context.work))
    own = work.context.folder("train").path / "latest" / "bundle"
    own.mkdir(parents=True)
    assert _default_model(str(work.context.work)) == str(own)
