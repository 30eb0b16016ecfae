"""The model card: its numbers equal those of the tables, and the evaluation of another model is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.assets import DEFAULT_MODEL, resolve_bundle
from pipeline.datasets.synthetic import write_dataset
from pipeline.datasets.synthetic.cards import BOX_CARD
from pipeline.errors import FacadeError
from pipeline.models.bundle import CARD_FILE
from pipeline.models.operating_point import load_operating_point
from pipeline.stages.report.model_card import write_model_card
from ssd import SSD, BackboneConfig, Bundle, ModelConfig, bundle_digest, load_bundle, preset, save_bundle

from ....conftest import Workspace
from ...noise_model import CLASSES
from ...oracle_detector import oracle_spec, run_detect, run_evaluate


@pytest.fixture(scope="module")
def folder(make_streets: Callable[..., Path]) -> Path:
    """60 synthetic streets with their boxes."""
    return make_streets(60, 4, 160, 120)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle whose metadata name the synthetic streets as its training data."""
    network = SSD(ModelConfig(preset("paper_coco"), CLASSES, BackboneConfig("tiny"))).eval()
    training_info = {"data": {"datasets": ["drawn_boxes"]}, "init_weights": {"from": "none"}, "train": {"epochs": 7}}
    save_bundle(tmp_path / "bundle", Bundle(network, trained=training_info))
    return tmp_path / "bundle"


def evaluated_workspace(
    make_workspace: Callable[..., Workspace], name: str, folder: Path, bundle: Path, card: str = BOX_CARD
) -> Workspace:
    """Evaluate an oracle under the bundle's digest in a new work folder."""
    work = make_workspace(name)
    work.index(folder, card)
    work.extract()
    run_detect(work, replace(oracle_spec(work), digest=bundle_digest(bundle), path=str(bundle)), overwrite=True)
    run_evaluate(work)
    return work


def table_rows(card: str, section: str) -> list[list[str]]:
    """Return the rows of the first table of a section, without its headers."""
    text = card.split(f"## {section}\n")[1].split("\n## ", maxsplit=1)[0]
    table = re.search(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert table
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def test_card_has_the_numbers_of_the_tables(workplace: Callable[..., Workspace], folder: Path, bundle: Path) -> None:
    work = evaluated_workspace(workplace, "work", folder, bundle)
    path = write_model_card(bundle, [work.context.work], "## Limitations\n\nNot a survey.")
    card = path.read_text()
    assert path == bundle / CARD_FILE
    assert card.endswith("Not a survey.\n")
    splits = [row["split"] for row in work.rows("index", "images")]
    (data,) = table_rows(card, "Data")
    counts = [str(splits.count(split)) for split in ("train", "val", "test")]
    assert data == ["drawn_boxes", "Apache-2.0", *counts, "building, window, door"]
    (scores,) = table_rows(card, "Average precision")
    expected = {
        row["label"]: row["value"]
        for row in work.rows("evaluate", "scores")
        if (row["split"], row["protocol"], row["part"]) == ("test", "voc11_50", "")
    }
    assert [cell.split()[0] for cell in scores[1:]] == [f"{100 * expected[label]:.1f}" for label in ("", *CLASSES)]


def test_card_applies_the_thresholds_of_the_bundle(
    workplace: Callable[..., Workspace], folder: Path, bundle: Path
) -> None:
    work = evaluated_workspace(workplace, "work", folder, bundle)
    card = write_model_card(bundle, [work.context.work], "").read_text()
    split = {row["image_id"]: row["split"] for row in work.rows("index", "images")}
    selected = [
        row
        for row in work.rows("evaluate", "detection_matches")
        if row["selected"] and row["outcome"] != "ignored" and split[row["image_id"]] == "test"
    ]
    for _, label, count, recall, precision in table_rows(card, "Selected detections"):
        objects = [
            row
            for row in work.rows("evaluate", "ground_truths")
            if row["label"] == label and not row["ignore"] and split[row["image_id"]] == "test"
        ]
        is_correct = [row["outcome"] == "correct" for row in selected if row["label"] == label]
        assert int(count) == len(objects)
        if len(objects) >= 20:
            assert recall == f"{100 * sum(row['selected'] for row in objects) / len(objects):.0f} %"
        if len(is_correct) >= 20:
            assert precision == f"{100 * sum(is_correct) / len(is_correct):.0f} %"
    sizes = [row for row in table_rows(card, "Results by object size") if row[:2] == ["window", "detected"]]
    total = sum(int(count) for count in re.findall(r"of (\d+)", " ".join(sizes[0])))
    windows = [row[2] for row in table_rows(card, "Selected detections") if row[1] == "window"]
    assert 0.8 * int(windows[0]) < total <= int(windows[0])


@pytest.mark.parametrize("use_count_calibration", [True, False])
def test_card_explains_how_detections_are_selected(
    workplace: Callable[..., Workspace], folder: Path, bundle: Path, use_count_calibration: bool
) -> None:
    work = evaluated_workspace(workplace, "work", folder, bundle)
    point = load_operating_point(bundle, bundle_digest(bundle))
    assert point is not None
    window = replace(point.classes["window"], use_count_calibration=use_count_calibration, count_threshold=0.257)
    point = replace(point, classes={**point.classes, "window": window})
    (bundle / "operating.json").write_bytes(point.to_json())
    card = write_model_card(bundle, [work.context.work], "").read_text()
    rules = ["detections with a score of 0.26 or more", "as many of the best detections as expected"]
    assert f"* window: {rules[use_count_calibration]}" in card


@pytest.mark.parametrize(("seed", "title"), [(5, "strangers, *not used in training*"), (4, "strangers")])
def test_card_marks_a_dataset_as_unseen_only_if_its_photos_are(
    workplace: Callable[..., Workspace], folder: Path, bundle: Path, tmp_path: Path, seed: int, title: str
) -> None:
    write_dataset(tmp_path / "others", 60, seed=seed, width=160, height=120)
    first = evaluated_workspace(workplace, "first", folder, bundle)
    point = load_operating_point(bundle, bundle_digest(bundle))
    other_card = BOX_CARD.replace('name = "drawn_boxes"', 'name = "strangers"')
    second = evaluated_workspace(workplace, "second", tmp_path / "others", bundle, other_card)
    card = write_model_card(bundle, [first.context.work, second.context.work], "").read_text()
    assert point is not None
    assert [row[0] for row in table_rows(card, "Data")] == ["drawn_boxes", title]
    assert len(table_rows(card, "Average precision")) == 2


def test_card_refuses_the_evaluation_of_another_model(
    workplace: Callable[..., Workspace], folder: Path, bundle: Path, tmp_path: Path
) -> None:
    work = evaluated_workspace(workplace, "work", folder, bundle)
    network = SSD(ModelConfig(preset("paper_voc"), CLASSES, BackboneConfig("tiny"))).eval()
    save_bundle(tmp_path / "other", Bundle(network))
    with pytest.raises(
        FacadeError, match=r"no evaluation of .*other, another model was evaluated there; run `facade d"
    ):
        write_model_card(tmp_path / "other", [work.context.work], "")
    with pytest.raises(FacadeError, match="nothing was evaluated there"):
        write_model_card(bundle, [tmp_path / "nowhere"], "")
    with pytest.raises(FacadeError, match="in more than one of these work folders"):
        write_model_card(bundle, [work.context.work] * 2, "")
    with pytest.raises(FacadeError, match="is the bundled default model, whose card is read-only"):
        write_model_card(resolve_bundle(DEFAULT_MODEL), [work.context.work], "")
    assert not (bundle / CARD_FILE).exists()


@pytest.mark.parametrize(
    ("training_info", "message"),
    [
        ({"data": {"datasets": ["drawn_boxes", "secrets"]}}, "was also trained on secrets"),
        ({"data": {"datasets": ["drawn_boxes"], "photos": {"train": 60}}}, "was trained on all splits"),
        (
            {"data": {"datasets": ["drawn_boxes"]}, "init_weights": {"trained": {"data": {"datasets": ["old"]}}}},
            "also trained on old",
        ),
    ],
)
def test_card_refuses_to_leave_out_training_data(
    workplace: Callable[..., Workspace], folder: Path, bundle: Path, training_info: dict[str, Any], message: str
) -> None:
    save_bundle(bundle, replace(load_bundle(bundle), trained=training_info))
    work = evaluated_workspace(workplace, "work", folder, bundle)
    with pytest.raises(FacadeError, match=message):
        write_model_card(bundle, [work.context.work], "")


def test_card_claims_nothing_of_unknown_training_data(
    workplace: Callable[..., Workspace], folder: Path, bundle: Path
) -> None:
    save_bundle(bundle, replace(load_bundle(bundle), trained={"source": {"file": "ssd.pth"}}))
    odd_card = BOX_CARD.replace("Apache-2.0", "a | b")
    work = evaluated_workspace(workplace, "work", folder, bundle, odd_card)
    card = write_model_card(bundle, [work.context.work], "").read_text()
    assert "weights were imported from ssd.pth; their training data is not known" in card
    assert "not used in training*" not in card
    assert "| drawn_boxes | a \\| b |" in card


def test_card_warns_of_incomplete_labels(workplace: Callable[..., Workspace], folder: Path, bundle: Path) -> None:
    work = evaluated_workspace(workplace, "work", folder, bundle, "complete = false\n" + BOX_CARD)
    card = write_model_card(bundle, [work.context.work], "").read_text()
    data_section = card.split("## Data\n")[1].split("\n## ", maxsplit=1)[0]
    assert "The labels of drawn_boxes are incomplete: some objects are not labelled" in data_section
