"""A whole run: judged, kept, stopped at any moment and gone on with, written as a task and read again."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssd import (
    BackboneConfig,
    DivergedError,
    InMemoryDataset,
    ModelConfig,
    Target,
    TrainConfig,
    TrainingCallbacks,
    TrainingRun,
    TrainingTask,
    load_bundle,
    load_task,
    preset,
    read_history,
    save_task,
)
from ssd.training import loop as course_module

CONFIG = TrainConfig(epochs=3, batch=2, lr=1e-3, optimiser="adamw", ema=0.9, best_by="map")


def examples(count: int, seed: int, sets: list[str] | None = None) -> InMemoryDataset:
    """Grey photos with one bright window each, of two sizes."""
    generator = torch.Generator().manual_seed(seed)
    photos, targets = [], []
    for number in range(count):
        height, width = ((96, 128), (120, 100))[number % 2]
        photo = torch.randint(90, 110, (3, height, width), dtype=torch.uint8, generator=generator)
        left, top = (int(value) for value in torch.randint(5, 50, (2,), generator=generator))
        photo[:, top : top + 40, left : left + 30] = 230
        photos.append(photo)
        box = torch.tensor([[left, top, left + 30.0, top + 40.0]])
        targets.append(Target(box, torch.tensor([1]), labelled=torch.tensor([True, True, number % 3 > 0])))
    return InMemoryDataset([f"photo {n}" for n in range(count)], photos, targets, sets=sets)


def task(**changes: object) -> TrainingTask:
    model = ModelConfig(preset("paper_coco"), ("window", "door"), BackboneConfig("tiny"))
    sets = ["a", "b", "b"]
    return replace(TrainingTask(model, CONFIG, examples(7, 1), examples(3, 2, sets), examples(3, 3, sets)), **changes)


def test_a_run_leaves_a_bundle_of_its_best_epoch(tmp_path: Path) -> None:
    rows, shown = [], []
    finished = TrainingRun(task(), tmp_path, callbacks=TrainingCallbacks(shown.append, rows.append)).run()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [3, 6, 9]
    assert sum(shown) == 18
    assert list(finished.rows) == rows
    best = max(rows, key=lambda row: row["val.map50"])
    assert finished.best == best["epoch"]
    assert finished.val["map50"] == best["val.map50"]
    assert {"map50", "map75", "ap50.window", "a.map50", "b.map50", "loss", "loss_location"} <= finished.test.keys()
    assert "ap50.door" not in finished.test, "there is no door to find"
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.trained["epoch"] == finished.best
    assert bundle.trained["test"] == finished.test
    assert read_history(tmp_path) == finished


def test_without_photos_to_judge_by_the_last_epoch_is_kept(tmp_path: Path) -> None:
    finished = TrainingRun(task(val=None, test=None), tmp_path).run()
    assert (finished.best, finished.val, finished.test) == (3, {}, {})


def test_validation_may_be_rare_and_a_run_may_end_early(tmp_path: Path) -> None:
    rare = TrainingRun(task(config=replace(CONFIG, validate_every=2)), tmp_path / "rare").run()
    assert ["val.map50" in row for row in rare.rows] == [False, True, True]
    assert rare.best in {2, 3}
    # A rate this small changes nothing, so that no epoch is better than the first.
    frozen = replace(CONFIG, epochs=9, lr=1e-12, weight_decay=0.0, ema=0.0, best_by="map", early_stopping_epochs=2)
    assert [row["epoch"] for row in TrainingRun(task(config=frozen), tmp_path / "early").run().rows][-1] < 9


def test_the_epoch_may_be_chosen_by_loss(tmp_path: Path) -> None:
    finished = TrainingRun(task(config=replace(CONFIG, best_by="loss")), tmp_path).run()
    assert finished.best == min(finished.rows, key=lambda row: row["val.loss"])["epoch"]


def test_a_task_in_a_folder_is_the_same_task(tmp_path: Path) -> None:
    given = task(init_weights={"backbone.stem.0.weight": torch.ones(16, 3, 3, 3)}, metadata={"data": "digest"})
    save_task(tmp_path / "task", given)
    read = load_task(tmp_path / "task")
    assert read.digest == given.digest
    assert torch.equal(read.build_model().backbone.stem[0].weight, torch.ones(16, 3, 3, 3))
    assert TrainingRun(read, tmp_path / "one").run().digest == TrainingRun(given, tmp_path / "other").run().digest
    assert not [path for path in (tmp_path / "task").iterdir() if path.suffix not in {".json", ".safetensors"}]


def test_a_folder_that_is_no_task_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no prepared task: .* Write it again with"):
        load_task(tmp_path)
    with pytest.raises(FileExistsError, match="exists and is not a prepared task"):
        save_task(tmp_path, task())


def test_seeds_draw_the_weights() -> None:
    def first(seed: int) -> torch.Tensor:
        return task(config=replace(CONFIG, seed=seed)).build_model().backbone.stem[0].weight

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_a_run_killed_in_mid_epoch_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    """A real process, killed with -9 after its second checkpoint; its losses are those of an undisturbed run."""
    long = task(config=replace(CONFIG, epochs=4, batch=2), train=examples(12, 4))
    save_task(tmp_path / "task", long)
    undisturbed = TrainingRun(load_task(tmp_path / "task"), tmp_path / "undisturbed")
    expected = undisturbed.run()
    command = [sys.executable, "-m", "ssd.training", str(tmp_path / "task"), str(tmp_path / "out")]
    command += ["--device", "cpu", "--checkpoint-minutes", "0"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    state = tmp_path / "out" / "checkpoint" / "state.json"
    while not (step := _step(state)) or step % 6 == 0:
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < _step(state) < 24
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "resuming from step" in second.stderr
    line = json.loads(second.stdout)
    assert line["digest"] == expected.digest
    assert line["best"] == expected.best
    after = json.loads(state.read_text())["progress"]["losses"]
    assert [tuple(pair) for pair in after] == undisturbed.trainer.progress.losses


def _step(state: Path) -> int:
    try:
        return int(json.loads(state.read_text())["progress"]["step"])
    except (OSError, ValueError):
        return 0


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    TrainingRun(task(), tmp_path).run()
    with pytest.raises(ValueError, match=r"it is of other photos, settings or priors\. Delete it to start over"):
        TrainingRun(task(config=replace(CONFIG, lr=2e-3)), tmp_path).run()


def test_a_full_disk_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """During training it is logged and training continues; at the end it waits until there is room."""
    write, said = course_module.write_folder, list[str]()
    full = iter([True, False, True, True, False])

    def sometimes(folder: Path, files: dict[str, bytes]) -> None:
        if next(full):
            raise OSError(28, "No space left on device")
        write(folder, files)

    monkeypatch.setattr(course_module, "write_folder", sometimes)
    monkeypatch.setattr(course_module, "RETRY_PAUSE", 0.0)
    short = task(config=replace(CONFIG, epochs=2))
    finished = TrainingRun(
        short, tmp_path, checkpoint_seconds=0.0, retry_seconds=60.0, callbacks=TrainingCallbacks(log=said.append)
    ).run()
    assert sum("keeping the previous one" in line for line in said) == 2
    assert sum("trying again" in line for line in said) == 1
    assert read_history(tmp_path) == finished
    monkeypatch.setattr(course_module, "write_folder", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        TrainingRun(short, tmp_path / "other").run()


def test_a_run_that_diverges_keeps_its_last_checkpoint(tmp_path: Path) -> None:
    wild = task(config=replace(CONFIG, optimiser="sgd", lr=1e30, epochs=9, warmup=0.99, ema=0.0))
    with pytest.raises(DivergedError, match=r"it showed photo \d"):
        TrainingRun(wild, tmp_path, checkpoint_seconds=0.0).run()
    tensors = course_module.load((tmp_path / "checkpoint" / "state.safetensors").read_bytes())
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="A trunk for tiny has tensors named"):
        task(init_weights={"features.0.weight": torch.zeros(64, 3, 3, 3)}).build_model()


def test_uneven_sets_are_shown_by_their_weights() -> None:
    import numpy as np

    given = replace(examples(10, 1), weights=[3.0] * 5 + [1.0] * 5)
    counts = sum(np.bincount(given.order(np.random.default_rng(seed)), minlength=10) for seed in range(200)) / 200
    assert counts == pytest.approx([1.5] * 5 + [0.5] * 5, abs=0.12)
