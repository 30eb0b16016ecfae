"""An interrupted run resumes bit for bit; a diverging one names its photos."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from ssd import (
    SSD,
    TRAIN_PRESETS,
    BackboneConfig,
    DivergedError,
    InMemoryDataset,
    ModelConfig,
    Target,
    TrainConfig,
    Trainer,
    preset,
)

from ..samples import random_boxes

SMALL = TrainConfig(epochs=3, batch=2, lr=1e-3)


def examples(count: int = 7, weights: list[float] | None = None) -> InMemoryDataset:
    generator = torch.Generator().manual_seed(5)
    photos = [torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8, generator=generator) for _ in range(count)]
    torch.manual_seed(6)
    targets = [Target(random_boxes(3), torch.tensor([1, 2, 1])) for _ in range(count)]
    return InMemoryDataset([f"photo {n}" for n in range(count)], photos, targets, weights)


def trainer(config: TrainConfig, given: InMemoryDataset | None = None) -> Trainer:
    torch.manual_seed(1)
    model = SSD(ModelConfig(preset("paper_coco"), ("window", "door"), BackboneConfig("tiny")))
    return Trainer(model, given or examples(), config)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, optimiser="adamw", ema=0.9, clip=1.0, warmup=0.3, lr_schedule="cosine"),
        replace(SMALL, momentum=0.0, lr_schedule=(0.5,)),
    ],
)
def test_stopped_and_resumed_is_the_same_bit_for_bit(config: TrainConfig) -> None:
    undisturbed = trainer(config)
    undisturbed.run(5)
    first = trainer(config)
    first.run(2)
    second = trainer(config)
    second.restore(load(save(first.state())), first.progress)
    second.run(5)
    assert second.progress.losses == undisturbed.progress.losses
    assert len(second.progress.losses) == second.progress.step == 5
    pairs = zip(second.eval_weights.state_dict().items(), undisturbed.eval_weights.state_dict().items(), strict=True)
    assert all(one == other and torch.equal(a, b) for (one, a), (other, b) in pairs)


def test_a_run_lowers_its_loss() -> None:
    run = trainer(replace(SMALL, epochs=8, optimiser="adamw", lr=3e-3))
    run.run(24)
    sums = [location + confidence for location, confidence in run.progress.losses]
    assert np.mean(sums[-3:]) < 0.7 * np.mean(sums[:3])
    assert 0 <= run.progress.wait_seconds < run.progress.seconds


def test_no_epoch_begins_with_waiting() -> None:
    """Its first batches are made while the epoch before is judged; after the last there is nothing to make."""
    run = trainer(SMALL)
    size, steps = run.steps_per_epoch, run.steps_per_epoch * SMALL.epochs
    run.run(size)
    assert list(run.prefetcher.futures) == [size]
    run.run(steps)
    assert not run.prefetcher.futures


def test_threads_that_make_batches_side_by_side_change_nothing() -> None:
    one, three = trainer(SMALL), trainer(SMALL)
    three.prefetcher = type(three.prefetcher)(
        three.prefetcher.function, three.prefetcher.steps, threads=3
    )  # as on a GPU
    for run in (one, three):
        run.run(9)
    assert three.progress.losses == one.progress.losses


def test_another_seed_shows_other_pictures() -> None:
    def first_input(seed: int) -> torch.Tensor:
        return trainer(replace(SMALL, seed=seed))._batch(0)[1]

    assert torch.equal(first_input(1), first_input(1))
    assert not torch.equal(first_input(1), first_input(2))


def test_every_photo_is_shown_once_an_epoch_or_by_its_weight() -> None:
    assert sorted(examples().order(np.random.default_rng(0)).tolist()) == list(range(7))
    order = examples(4, [0.0, 1.0, 3.0, 0.0]).order(np.random.default_rng(0))
    assert len(order) == 4
    assert set(order.tolist()) <= {1, 2}


def test_a_loss_that_is_no_number_names_the_images_and_leaves_the_weights() -> None:
    run = trainer(SMALL)
    run.run(1)
    before = {name: tensor.clone() for name, tensor in run.model.named_parameters()}
    with torch.no_grad():
        run.model.heads.outputs[0][-1].bias[0] = torch.nan
    with pytest.raises(DivergedError, match=r"The loss of step 1 is not finite; it showed photo \d \(loss nan, boxes"):
        run.run(2)
    assert run.progress.step == 1
    changed = [name for name, tensor in run.model.named_parameters() if not torch.equal(tensor, before[name])]
    assert changed == ["heads.outputs.0.3.bias"]


def test_biases_learn_twice_as_fast() -> None:
    run = trainer(SMALL)
    run.run(1)
    assert [group["lr"] for group in run.optimiser.param_groups] == [SMALL.lr, 2 * SMALL.lr]
    assert all(weight.ndim == 1 for weight in run.optimiser.param_groups[1]["params"])


def test_rates_rise_and_fall() -> None:
    cosine = replace(SMALL, warmup=0.1, lr_schedule="cosine")
    assert cosine.lr_at(0.05) == pytest.approx(SMALL.lr / 2)
    assert cosine.lr_at(0.1) == pytest.approx(SMALL.lr)
    assert cosine.lr_at(0.55) == pytest.approx(SMALL.lr / 2)
    assert cosine.lr_at(1.0) == pytest.approx(0)
    paper = TRAIN_PRESETS["paper"]
    assert [paper.lr_at(share) for share in (0, 0.6, 0.7, 0.9)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


def test_the_report_is_the_default() -> None:
    report = TRAIN_PRESETS["epfl"]
    assert report == TrainConfig()
    assert (report.batch, report.lr, report.momentum, report.weight_decay, report.epochs) == (8, 1e-3, 0.9, 5e-4, 358)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 1},
        {"epochs": 0},
        {"lr": 0.0},
        {"ema": 1.0},
        {"optimiser": "lion"},
        {"lr_schedule": "linear"},
        {"seed": -1},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"got"):
        TrainConfig(**wrong)  # type: ignore[arg-type]


def test_too_few_photos_are_refused() -> None:
    with pytest.raises(ValueError, match="There are 1 photos to learn from, fewer than a batch of 2"):
        trainer(SMALL, examples(1))
    with pytest.raises(ValueError, match="a name, a photo, a target"):
        InMemoryDataset(["a"], [], [])
