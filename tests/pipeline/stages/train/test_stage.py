"""`train`: a work folder's boxes become a bundle, whatever happens on the way."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from pipeline.config import resolve_settings
from pipeline.errors import FacadeError, UsageError
from pipeline.execution.runner import Outcome
from pipeline.stages.train import remote_training
from pipeline.stages.train import stage as train
from pipeline.stages.train.config import TrainConfig
from pipeline.stages.train.data import PhotoCache, _decode_photo, load_training_rows
from pipeline.stages.train.plan import make_plan
from pipeline.stages.train.sweep import load_sweep, run_sweep
from ssd import load_bundle, load_task, read_history

from ....conftest import CommandResult, Workspace

QUICK = {"preset": "demo", "priors": "paper_coco", "epochs": 2, "batch": 2, "validate_every": 1, "device": "cpu"}
Prepared = Callable[..., Workspace]


@pytest.fixture
def make_prepared_work(workplace: Callable[..., Workspace], drawn: Path, cards: Sequence[str]) -> Prepared:
    """Makes work folders with the boxes of the drawn photos in them."""

    def make(root: Path = drawn, text: str = cards[1], **context: Any) -> Workspace:
        place = workplace(**context)
        place.index(root, text)
        place.extract()
        return place

    return make


def trained(place: Workspace, resume: bool = False, **changes: Any) -> Outcome:
    return train.run(place.context, TrainConfig(**{**QUICK, **changes}), resume)


def test_boxes_become_a_bundle_once(make_prepared_work: Prepared) -> None:
    place = make_prepared_work()
    outcome = trained(place)
    assert (outcome.stage, outcome.changed, outcome.rows_in, outcome.rows_out) == ("train", True, 10, 10)
    out = Path(outcome.outputs["bundle"]).parent
    assert outcome.outputs["epochs"] == 2
    finished = read_history(out)
    assert finished is not None
    assert finished.digest == outcome.digest
    assert (place.context.work / "train" / "latest").resolve() == out.resolve()
    bundle = load_bundle(place.context.work / "train" / "latest" / "bundle")
    assert bundle.model.config.classes == ("building", "window", "door")
    assert bundle.trained["data"]["photos"] == {
        split: len([row for row in place.rows("index", "images") if row["split"] == split])
        for split in ("train", "val", "test")
        if any(row["split"] == split for row in place.rows("index", "images"))
    }
    assert bundle.trained["train"]["preset"] == "demo"
    assert any("epoch 2 of 2: loss" in line for line in place.messages)
    again = trained(place)
    assert (again.changed, again.digest) == (False, outcome.digest)
    other = trained(place, seed=1)
    assert other.changed
    assert other.digest != outcome.digest
    assert (place.context.work / "train" / "latest").resolve() == Path(other.outputs["bundle"]).parent.resolve()


def test_all_photos_may_be_learnt_from(make_prepared_work: Prepared) -> None:
    place = make_prepared_work()
    bundle = load_bundle(Path(trained(place, use_all_splits=True, epochs=1).outputs["bundle"]))
    assert bundle.trained["data"]["photos"] == {"train": 10}
    assert (bundle.trained["val"], bundle.trained["test"]) == ({}, {})


def test_the_same_boxes_and_settings_give_the_same_bundle(make_prepared_work: Prepared) -> None:
    first, second = trained(make_prepared_work(name="one")), trained(make_prepared_work(name="two"))
    one, two = (load_bundle(Path(outcome.outputs["bundle"])).model.state_dict() for outcome in (first, second))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_several_datasets_with_weights_and_classes_of_their_own(
    make_prepared_work: Prepared, drawn: Path, cards: Sequence[str]
) -> None:
    place = make_prepared_work()
    openings = cards[1].replace('"drawn_boxes"', '"openings"').replace('0 = "building"', '0 = "other"')
    place.index(drawn, openings.replace('["building", "window", "door"]', '["window", "door"]'))
    place.extract()
    outcome = trained(place, datasets={"drawn_boxes": 3, "openings": 1}, epochs=1)
    assert outcome.rows_in == 20
    bundle = load_bundle(Path(outcome.outputs["bundle"]))
    assert bundle.trained["data"]["weights"] == {"drawn_boxes": 3, "openings": 1}
    assert {"drawn_boxes.map50", "openings.map50"} <= bundle.trained["val"].keys() | bundle.trained["test"].keys()
    assert not [name for name in bundle.trained["test"] if name.startswith("openings.ap50.building")]
    plan = make_plan(place.context, TrainConfig(**QUICK))
    examples = train.build_task(place.context, plan, PhotoCache(600), {})[0].train
    pairs = zip(examples.names, examples.targets, strict=True)
    labelled = {name.split("/")[0]: target.labelled.tolist() for name, target in pairs}
    assert labelled == {"drawn_boxes": [True] * 4, "openings": [True, False, True, True]}


def test_priors_are_those_that_were_chosen(make_prepared_work: Prepared) -> None:
    place = make_prepared_work()
    with pytest.raises(FacadeError, match=r"priors.json is not there; run `facade priors` first"):
        trained(place, priors="chosen")
    with pytest.raises(UsageError, match=r"nowhere\.json"):
        trained(place, priors="nowhere.json")
    with pytest.raises(
        FacadeError, match=r"train.priors: Every map to predict from has priors; got 6 maps of the network and 3"
    ):
        trained(place, priors=str(_written_priors(place)))


def _written_priors(place: Workspace) -> Path:
    """Priors for maps that no network here has."""
    from ssd import preset

    spec = preset("paper_coco").to_json()
    spec["maps"] = spec["maps"][:3]
    path = place.context.work / "odd.json"
    path.write_text(json.dumps(spec))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": {"nowhere": 1}}, r"train.datasets: .* has no nowhere; it has drawn_boxes"),
        ({"classes": ("window", "balcony")}, "no object of the class balcony is in the train split; leave it out with"),
        ({"augmentation": "wild"}, "augmentation is epfl, paper, mild, none, or a table"),
        ({"augmentation": {"wild": 1}}, r"settings \[train\]: .*wild"),
        ({"batch": 1}, "two photos a batch or more"),
        ({"batch": 64}, r"There are \d photos to learn from, fewer than a batch of 64"),
        ({"init_weights": "imagenet"}, "tiny has no weights of ImageNet"),
        ({"init_weights": "nowhere.safetensors"}, "nowhere.safetensors"),
    ],
)
def test_what_cannot_be_trained_is_told(make_prepared_work: Prepared, changes: dict[str, Any], message: str) -> None:
    place = make_prepared_work()
    with pytest.raises((FacadeError, UsageError, OSError), match=message) as caught:
        trained(place, **changes)
    assert "\n" not in str(caught.value)


def test_an_empty_train_split_is_told(make_prepared_work: Prepared, cards: Sequence[str]) -> None:
    place = make_prepared_work(text=cards[1] + "\n[splits]\nshares = [0.0, 0.5, 0.5]\n")
    with pytest.raises(FacadeError, match="of 10 images none is in the train split; index more photos"):
        trained(place)


def test_weights_of_another_network_are_told(make_prepared_work: Prepared, tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(3, 3, 3, 3)}, tmp_path / "trunk.safetensors")
    with pytest.raises(FacadeError, match=r"A trunk for mobilenet_v2 has tensors named features.N as torchvision's"):
        trained(make_prepared_work(), backbone="mobilenet_v2", init_weights=str(tmp_path / "trunk.safetensors"))


def test_photos_that_are_gone_are_rejected_and_counted(make_prepared_work: Prepared, drawn_copy: Path) -> None:
    place = make_prepared_work(drawn_copy, max_rejected=0.3)
    gone = sorted((drawn_copy / "photos").iterdir())[0]
    gone.unlink()
    outcome = trained(place, epochs=1)
    assert (outcome.rows_in, outcome.rows_out, outcome.rejected) == (10, 9, 1)
    assert any("1 of 10 photos were rejected, the first is" in line for line in place.messages)
    again = trained(place, epochs=1)
    assert (again.changed, again.rows_out, again.rejected) == (False, 9, 1)
    assert len(pq.read_table(Path(outcome.outputs["bundle"]).parent / "rejected.parquet")) == 1
    for path in sorted((drawn_copy / "photos").iterdir())[:4]:
        path.write_bytes(b"no photo")
    with pytest.raises(FacadeError, match=r"5 of 10 photos were rejected \(50.0%, allowed are 30.0%\)"):
        trained(place, epochs=1, seed=5)


def test_a_box_outside_its_photo_is_rejected(make_prepared_work: Prepared) -> None:
    row = dict(load_training_rows(make_prepared_work().context, {}, ()).rows[0])
    assert isinstance(_decode_photo(row, 600), torch.Tensor)
    wrong = _decode_photo({**row, "boxes": row["boxes"] + 1000}, 600)
    assert "lies outside its photo of 320x240; fix its label" in str(wrong)


def test_another_model_is_a_start(make_prepared_work: Prepared) -> None:
    place = make_prepared_work()
    first = trained(place, epochs=1)
    second = trained(place, init_weights=first.outputs["bundle"], classes=("window", "door"), epochs=1, lr=1e-9)
    assert load_bundle(Path(second.outputs["bundle"])).trained["init_weights"]["from"] == "bundle"
    assert any("The weights know 3 classes, the model 2" in line for line in place.messages)
    one, two = (load_bundle(Path(outcome.outputs["bundle"])).model.backbone for outcome in (first, second))
    assert torch.allclose(one.stem[0].weight, two.stem[0].weight, atol=1e-4)


def test_trained_elsewhere_is_the_same(make_prepared_work: Prepared, tmp_path: Path) -> None:
    """Prepared, trained by a process that has `ssd` only, and taken in: the losses of `facade train`."""
    here, there = make_prepared_work(name="here"), make_prepared_work(name="there")
    own = trained(here)
    made = remote_training.export_task(there.context, TrainConfig(**QUICK), tmp_path / "task")
    assert made.outputs["task"] == str(tmp_path / "task")
    assert load_task(tmp_path / "task").config.epochs == 2
    command = [sys.executable, "-m", "ssd.training", str(tmp_path / "task"), str(tmp_path / "out"), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["rows"] == 2
    with pytest.raises(FacadeError, match="has no finished run"):
        remote_training.import_remote_run(there.context, tmp_path / "task")
    adopted = remote_training.import_remote_run(there.context, tmp_path / "out")
    assert adopted.changed
    assert adopted.rows_in == own.rows_in
    rows, others = (read_history(Path(outcome.outputs["bundle"]).parent) for outcome in (own, adopted))
    assert rows is not None
    assert others is not None
    timing = {"images_per_second", "data_wait"}
    for row, other in zip(rows.rows, others.rows, strict=True):
        assert {k: v for k, v in row.items() if k not in timing} == {k: v for k, v in other.items() if k not in timing}
    assert not remote_training.import_remote_run(there.context, tmp_path / "out").changed


def test_killed_and_resumed_it_ends_the_same(
    make_prepared_work: Prepared,
    facade: Callable[..., CommandResult],
    command: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    """The command itself, killed with -9 in mid-epoch, then with --resume."""
    undisturbed, place = trained(make_prepared_work(name="undisturbed"), epochs=3), make_prepared_work(name="killed")
    sets = [f"--set=train.{key}={value}" for key, value in {**QUICK, "epochs": 3, "checkpoint_minutes": 0}.items()]
    arguments = ["train", "--work", place.context.work, "--tracking", "off"]
    process = subprocess.Popen(
        command(*arguments, *sets), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
    )
    while not list((place.context.work / "train").glob("*/checkpoint/state.json")):
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    result = facade(*arguments, "--resume")
    assert result.code == 0
    assert "resuming from step" in result.text
    outs = [Path(outcome).parent for outcome in (undisturbed.outputs["bundle"], result.line["outputs"]["bundle"])]
    losses = [json.loads((out / "checkpoint" / "state.json").read_text())["progress"]["losses"] for out in outs]
    assert losses[0] == losses[1]
    weights = [(out / "bundle" / "weights.safetensors").read_bytes() for out in outs]
    assert weights[0] == weights[1]
    assert "no run that was stopped" in facade(*arguments, "--resume").line["error"]


def test_a_sweep_is_a_grid_of_runs(make_prepared_work: Prepared, tmp_path: Path) -> None:
    place = make_prepared_work()
    file = tmp_path / "mine.toml"
    file.write_text('[train]\nepochs = 1\n[grid]\npriors = ["paper_voc", "paper_coco"]\nseed = [0, 1]\n')
    line = run_sweep(place.context, TrainConfig(**QUICK), str(file))
    assert len(line["stages"]) == 4
    assert len({outcome["digest"] for outcome in line["stages"].values()}) == 4
    table = [said for said in place.messages if said.startswith("  priors paper_")]
    assert len(table) == 2
    rows = json.loads(Path(line["outputs"]["table"]).read_text())
    assert [row["given"]["seed"] for row in rows] == [0, 1, 0, 1]
    assert not run_sweep(place.context, TrainConfig(**QUICK), str(file))["changed"]


def test_the_sweeps_that_come_along_are_sweeps() -> None:
    assert len(load_sweep("priors").combinations()) == 9
    assert len(load_sweep("augmentation").combinations()) == 12
    assert len(load_sweep("seeds").combinations()) == 5
    with pytest.raises(UsageError, match="no sweep 'nothing': give a TOML file, or one of augmentation, priors, seeds"):
        load_sweep("nothing")


def test_settings_say_what_differs_from_a_preset() -> None:
    settings = resolve_settings(
        TrainConfig, {"train": {"preset": "epfl", "loss": {"min_negatives": 4}, "lr": 0.01}}, "train"
    )
    learning = settings.to_ssd_config()
    assert (learning.epochs, learning.lr, learning.loss.min_negatives) == (358, 0.01, 4)
    assert settings.model_copy(update={"augmentation": "none"}).to_ssd_config().augmentation.flip_chance == 0
    with pytest.raises(UsageError, match="unknown key 'epoch'"):
        resolve_settings(TrainConfig, {"train": {"epoch": 3}}, "train")
