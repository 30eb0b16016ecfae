"""The card of a model: figures that follow from the tables, and refusal of what another model was judged by."""

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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 drawn streets with their boxes."""
    folder = tmp_path_factory.mktemp("streets")
    write_dataset(folder, 60, seed=4, width=160, height=120)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that says it has learnt from the drawn streets."""
    network = SSD(ModelConfig(preset("paper_coco"), CLASSES, BackboneConfig("tiny"))).eval()
    about = {"data": {"datasets": ["drawn_boxes"]}, "init_weights": {"from": "none"}, "train": {"epochs": 7}}
    save_bundle(tmp_path / "bundle", Bundle(network, trained=about))
    return tmp_path / "bundle"


def judged(make: Callable[..., Workspace], name: str, folder: Path, bundle: Path, card: str = BOX_CARD) -> Workspace:
    """A work folder where a bundle that knows what is true was judged."""
    work = make(name)
    work.index(folder, card)
    work.extract()
    run_detect(work, replace(oracle_spec(work), digest=bundle_digest(bundle), path=str(bundle)), overwrite=True)
    run_evaluate(work)
    return work


def rows_of(card: str, section: str) -> list[list[str]]:
    """The rows of the first table of a section, without its head."""
    text = card.split(f"## {section}\n")[1].split("\n## ", maxsplit=1)[0]
    table = re.search(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert table
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def test_figures_are_those_of_the_tables(workplace: Callable[..., Workspace], folder: Path, bundle: Path) -> None:
    work = judged(workplace, "work", folder, bundle)
    path = write_model_card(bundle, [work.context.work], "## What it is not\n\nA surveyor.")
    card = path.read_text()
    assert path == bundle / CARD_FILE
    assert card.endswith("A surveyor.\n")
    images = [row["split"] for row in work.rows("index", "images")]
    (data,) = rows_of(card, "Data")
    counts = [str(images.count(split)) for split in ("train", "val", "test")]
    assert data == ["drawn_boxes", "Apache-2.0", *counts, "building, window, door"]
    (scores,) = rows_of(card, "How good it is")
    table = {
        row["label"]: row["value"]
        for row in work.rows("evaluate", "scores")
        if (row["split"], row["protocol"], row["part"]) == ("test", "voc11_50", "")
    }
    assert [cell.split()[0] for cell in scores[1:]] == [f"{100 * table[label]:.1f}" for label in ("", *CLASSES)]


def test_selected_by_the_bundles_own_thresholds(
    workplace: Callable[..., Workspace], folder: Path, bundle: Path
) -> None:
    work = judged(workplace, "work", folder, bundle)
    card = write_model_card(bundle, [work.context.work], "").read_text()
    split = {row["image_id"]: row["split"] for row in work.rows("index", "images")}
    chosen = [
        row
        for row in work.rows("evaluate", "detection_matches")
        if row["selected"] and row["outcome"] != "ignored" and split[row["image_id"]] == "test"
    ]
    for _, label, objects, selected, right in rows_of(card, "What is selected"):
        true = [
            row
            for row in work.rows("evaluate", "ground_truths")
            if row["label"] == label and not row["ignore"] and split[row["image_id"]] == "test"
        ]
        own = [row["outcome"] == "correct" for row in chosen if row["label"] == label]
        assert int(objects) == len(true)
        if len(true) >= 20:
            assert selected == f"{100 * sum(row['selected'] for row in true) / len(true):.0f} %"
        if len(own) >= 20:
            assert right == f"{100 * sum(own) / len(own):.0f} %"
    sizes = [row for row in rows_of(card, "How small") if row[:2] == ["window", "found"]]
    counted = sum(int(count) for count in re.findall(r"of (\d+)", " ".join(sizes[0])))
    windows = [row[2] for row in rows_of(card, "What is selected") if row[1] == "window"]
    assert 0.8 * int(windows[0]) < counted <= int(windows[0])


@pytest.mark.parametrize(("seed", "told"), [(5, "strangers, *never learnt from*"), (4, "strangers")])
def test_a_set_never_learnt_from_says_so_unless_its_photos_are_of_another(
    workplace: Callable[..., Workspace], folder: Path, bundle: Path, tmp_path: Path, seed: int, told: str
) -> None:
    write_dataset(tmp_path / "others", 60, seed=seed, width=160, height=120)
    first = judged(workplace, "first", folder, bundle)
    fitted = load_operating_point(bundle, bundle_digest(bundle))
    other = BOX_CARD.replace('name = "drawn_boxes"', 'name = "strangers"')
    second = judged(workplace, "second", tmp_path / "others", bundle, other)
    card = write_model_card(bundle, [first.context.work, second.context.work], "").read_text()
    assert fitted is not None
    assert [row[0] for row in rows_of(card, "Data")] == ["drawn_boxes", told]
    assert len(rows_of(card, "How good it is")) == 2


def test_what_another_model_found_is_refused(
    workplace: Callable[..., Workspace], folder: Path, bundle: Path, tmp_path: Path
) -> None:
    work = judged(workplace, "work", folder, bundle)
    network = SSD(ModelConfig(preset("paper_voc"), CLASSES, BackboneConfig("tiny"))).eval()
    save_bundle(tmp_path / "other", Bundle(network))
    with pytest.raises(FacadeError, match=r"says nothing of .*other, another model was judged there; run `facade det"):
        write_model_card(tmp_path / "other", [work.context.work], "")
    with pytest.raises(FacadeError, match="nothing was judged there"):
        write_model_card(bundle, [tmp_path / "nowhere"], "")
    with pytest.raises(FacadeError, match="in more than one of these work folders"):
        write_model_card(bundle, [work.context.work] * 2, "")
    with pytest.raises(FacadeError, match="came along and keeps its card"):
        write_model_card(resolve_bundle(DEFAULT_MODEL), [work.context.work], "")
    assert not (bundle / CARD_FILE).exists()


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"data": {"datasets": ["drawn_boxes", "secrets"]}}, "has learnt from secrets too"),
        ({"data": {"datasets": ["drawn_boxes"], "photos": {"train": 60}}}, "has learnt from all photos"),
        (
            {"data": {"datasets": ["drawn_boxes"]}, "init_weights": {"trained": {"data": {"datasets": ["old"]}}}},
            "from old too",
        ),
    ],
)
def test_what_it_learnt_from_is_not_left_out(
    workplace: Callable[..., Workspace], folder: Path, bundle: Path, about: dict[str, Any], message: str
) -> None:
    save_bundle(bundle, replace(load_bundle(bundle), trained=about))
    work = judged(workplace, "work", folder, bundle)
    with pytest.raises(FacadeError, match=message):
        write_model_card(bundle, [work.context.work], "")


def test_where_nothing_is_known_nothing_is_claimed(
    workplace: Callable[..., Workspace], folder: Path, bundle: Path
) -> None:
    save_bundle(bundle, replace(load_bundle(bundle), trained={"source": {"file": "ssd.pth"}}))
    odd = BOX_CARD.replace("Apache-2.0", "a | b")
    work = judged(workplace, "work", folder, bundle, odd)
    card = write_model_card(bundle, [work.context.work], "").read_text()
    assert "weights are those of ssd.pth; what they learnt from is not known" in card
    assert "never learnt from" not in card
    assert "| drawn_boxes | a \\| b |" in card
