"""The loss against torchvision's, against a loop, and against its own numeric gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, smooth_l1_loss
from torch.overrides import TorchFunctionMode

from ssd import (
    BACKGROUND,
    IGNORED,
    SSD,
    BackboneConfig,
    Loss,
    LossConfig,
    ModelConfig,
    MultiBoxLoss,
    Target,
    TargetBatch,
    encode_xyxy,
    preset,
)

from ..samples import random_boxes, random_target, small_spec, torchvision_twin

SPEC = small_spec()
CLASSES = 4


def outputs(images: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(images, SPEC.count, 4, dtype=dtype), 2 * torch.randn(images, SPEC.count, CLASSES, dtype=dtype)


def loss_of(targets: list[Target], offsets: Tensor, logits: Tensor, **settings: float) -> Loss:
    result = MultiBoxLoss(SPEC, LossConfig(**settings))(offsets, logits, TargetBatch.from_targets(targets, CLASSES))
    assert isinstance(result, Loss)
    return result


def plain_loss(targets: list[Target], offsets: Tensor, logits: Tensor, config: LossConfig) -> tuple[float, float]:
    """Equation 1 an image at a time, a prior at a time where it matters."""
    priors, location, confidence, positives, negatives = SPEC.priors_cxcywh(), 0.0, 0.0, 0, 0
    matches = MultiBoxLoss(SPEC, config).match(TargetBatch.from_targets(targets, CLASSES))
    for target, match, offset, logit in zip(targets, matches, offsets, logits, strict=True):
        hit = (match >= 0).nonzero().squeeze(1)
        wanted = encode_xyxy(target.boxes[match[hit]], priors[hit], SPEC.variances)
        location += float(smooth_l1_loss(offset[hit], wanted, reduction="sum"))
        confidence += float(cross_entropy(logit[hit], target.labels[match[hit]], reduction="sum"))
        labelled = torch.ones(CLASSES, dtype=torch.bool) if target.labelled is None else target.labelled
        unseen = torch.cat([torch.tensor([True]), ~labelled[1:]])
        probability = log_softmax(logit, dim=1).exp()[:, unseen].sum(dim=1)
        wrong = -probability[match == BACKGROUND].log()
        count = min(int(max(config.neg_pos_ratio * len(hit), config.min_negatives)), len(wrong))
        confidence += float(wrong.sort(descending=True).values[:count].sum())
        positives, negatives = positives + len(hit), negatives + count
    divisor = max(positives, negatives / config.neg_pos_ratio, 1)
    return config.alpha * location / divisor, confidence / divisor


@pytest.mark.parametrize("config", [LossConfig(), LossConfig(alpha=0.5, neg_pos_ratio=2, min_negatives=20)])
@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (1, 0, 300), (20, 3), (0,), (1,)])
def test_it_is_the_sum_that_the_paper_writes(config: LossConfig, counts: tuple[int, ...]) -> None:
    targets = [random_target(count) for count in counts]
    offsets, logits = outputs(len(counts))
    loss = MultiBoxLoss(SPEC, config)(offsets, logits, TargetBatch.from_targets(targets, CLASSES))
    location, confidence = plain_loss(targets, offsets, logits, config)
    assert float(loss.location.sum()) == pytest.approx(location, rel=1e-4)
    assert float(loss.confidence.sum()) == pytest.approx(confidence, rel=1e-4)
    assert float(loss.total) == pytest.approx(location + confidence, rel=1e-4)


def test_both_terms_are_those_of_torchvision() -> None:
    theirs, ours = torchvision_twin(CLASSES)
    spec = ours.config.priors
    targets = [Target(random_boxes(n, 300, 300), torch.randint(1, CLASSES, (n,))) for n in (12, 1, 40)]
    offsets, logits = torch.randn(3, spec.count, 4), torch.randn(3, spec.count, CLASSES)
    function, block = MultiBoxLoss(spec), TargetBatch.from_targets(targets, CLASSES)
    matches = function.match(block)
    loss = function(offsets, logits, block, matches)
    expected = theirs.compute_loss(
        [{"boxes": target.boxes, "labels": target.labels} for target in targets],
        {"bbox_regression": offsets, "cls_logits": logits},
        [spec.priors_xyxy()] * 3,
        list(matches),
    )
    assert float(loss.location.sum()) == pytest.approx(float(expected["bbox_regression"]), abs=1e-4, rel=1e-5)
    assert float(loss.confidence.sum()) == pytest.approx(float(expected["classification"]), abs=1e-4, rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(0, 30), st.integers(0, 2**31))
def test_a_batch_is_its_images_one_by_one(counts: list[int], least: int, seed: int) -> None:
    torch.manual_seed(seed)
    targets, (offsets, logits) = [random_target(count) for count in counts], outputs(len(counts))
    together = loss_of(targets, offsets, logits, min_negatives=least)
    for row, target in enumerate(targets):
        alone = loss_of([target], offsets[row : row + 1], logits[row : row + 1], min_negatives=least)
        for name in ("location", "confidence"):
            share = getattr(together, name)[row] * together.divisor
            torch.testing.assert_close(share, (getattr(alone, name) * alone.divisor)[0], rtol=1e-4, atol=1e-4)
        assert together.positives[row] == alone.positives[0]


def test_nothing_to_find_gives_nothing() -> None:
    offsets, logits = (part.requires_grad_() for part in outputs(2))
    loss = loss_of([random_target(0), random_target(0)], offsets, logits)
    assert loss.total == 0
    loss.total.backward()
    assert not offsets.grad.any()
    assert not logits.grad.any()


def test_empty_images_teach_where_they_should_and_weigh_no_more_than_others() -> None:
    offsets, logits = outputs(2)
    loss = loss_of([random_target(0), random_target(0)], offsets, logits, min_negatives=30)
    assert loss.divisor == 20
    assert loss.confidence.min() > 0


def test_priors_over_ignored_boxes_have_no_gradient() -> None:
    region = torch.tensor([[0.0, 0.0, 64.0, 96.0]])
    target = Target(region, torch.tensor([1]), torch.tensor([True]))
    offsets, logits = (part.requires_grad_() for part in outputs(1))
    function, block = MultiBoxLoss(SPEC, LossConfig(min_negatives=10_000)), TargetBatch.from_targets([target], CLASSES)
    matches = function.match(block)
    function(offsets, logits, block).total.backward()
    taught = logits.grad.abs().sum(dim=2) > 0
    assert torch.equal(taught, matches == BACKGROUND)
    assert (matches == IGNORED).sum() > 20


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_rare_classes_may_be_made_up_for(balance: float) -> None:
    """One door among many windows: its share of the positives' gradient grows, that of all of them together stays."""
    windows, door = random_target(19), random_target(1)
    boxes = torch.cat([windows.boxes, door.boxes])
    target = Target(boxes, torch.tensor([2] * 19 + [3]))
    offsets, logits = torch.zeros(1, SPEC.count, 4), torch.zeros(1, SPEC.count, CLASSES, requires_grad=True)
    loss = MultiBoxLoss(SPEC, LossConfig(class_balance=balance))
    matches = loss.match(batch := TargetBatch.from_targets([target], CLASSES))
    loss(offsets, logits, batch, matches).confidence.sum().backward()
    assert logits.grad is not None
    hit = matches[0] >= 0
    labels = target.labels[matches[0][hit]]
    pulls = -logits.grad[0, hit, labels]  # each positive pulls at the logit of its class by its weight
    counts = torch.tensor([(labels == label).sum() for label in (2, 3)], dtype=torch.float32)
    assert bool((counts > 0).all())
    sums = torch.stack([pulls[labels == label].sum() for label in (2, 3)])
    assert sums[1] / sums[0] == pytest.approx(float((counts[1] / counts[0]) ** (1 - balance)), rel=1e-4)
    assert float(sums.sum()) == pytest.approx(0.75, rel=1e-4)  # of four classes alike: 1 - 1/4


def test_a_class_that_nobody_labelled_may_be_there() -> None:
    labelled = torch.tensor([True, True, False, True])
    block = TargetBatch.from_targets(
        [Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), labelled=labelled)], CLASSES
    )
    logits = torch.zeros(1, SPEC.count, CLASSES)
    logits[..., 2] = 9.0
    function = MultiBoxLoss(SPEC, LossConfig(min_negatives=100))
    offsets = torch.zeros(1, SPEC.count, 4)
    sure = function(offsets, logits, block).total
    assert sure < 1e-2
    logits[..., 2], logits[..., 1] = 0.0, 9.0
    assert function(offsets, logits, block).total > 8


@pytest.mark.parametrize("negatives", [0, 40])
def test_the_gradient_is_the_numeric_one(negatives: int) -> None:
    targets = [
        random_target(5, labelled=torch.tensor([True, True, True, True])),
        Target(random_boxes(4), torch.tensor([1, 1, 3, 1]), labelled=torch.tensor([True, True, False, True])),
        Target(random_boxes(2), torch.tensor([1, 2]), torch.tensor([True, False])),
        random_target(0, labelled=torch.tensor([True, False, False, True])),
    ]
    block = TargetBatch.from_targets(targets, CLASSES).to("cpu", torch.float64)
    function = MultiBoxLoss(SPEC, LossConfig(min_negatives=negatives)).double()
    matches = function.match(block)
    offsets, logits = (part.requires_grad_() for part in outputs(4, torch.float64))
    total = function(offsets, logits, block, matches).total
    assert total.dtype == torch.float64
    total.backward()
    for tensor in (offsets, logits):
        taught = tensor.grad.flatten().nonzero().squeeze(1)
        assert len(taught) >= 40
        untaught = (tensor.grad.flatten() == 0).nonzero().squeeze(1)
        for place in [*taught[:: max(len(taught) // 60, 1)].tolist(), *untaught[:: len(untaught) // 10].tolist()]:
            numeric = numeric_gradient(lambda: function(offsets, logits, block, matches).total, tensor, place)
            assert numeric == pytest.approx(float(tensor.grad.flatten()[place]), abs=1e-6)


def numeric_gradient(function: object, tensor: Tensor, place: int, step: float = 1e-6) -> float:
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            tensor.flatten()[place] += sign * step
            values.append(float(function()))  # type: ignore[operator]
            tensor.flatten()[place] -= sign * step
    return (values[0] - values[1]) / (2 * step)


def test_half_precision_outputs_are_summed_in_single() -> None:
    offsets, logits = outputs(1)
    exact = loss_of([random_target(3)], offsets.bfloat16().float(), logits.bfloat16().float())
    torch.manual_seed(0)
    outputs(1)
    half = loss_of([random_target(3)], offsets.bfloat16(), logits.bfloat16())
    assert half.total.dtype == torch.float32
    assert exact.total == half.total


class MadeThere(TorchFunctionMode):
    """How many tensors were made of Python's numbers on a device: a GPU has to be waited for each time."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        self.count += func in {torch.tensor, Tensor.new_tensor} and result.device.type != "cpu"
        return result


def test_a_step_of_training_waits_for_no_gpu_but_to_match() -> None:
    """Where no data is, as a GPU is not everywhere."""
    block = TargetBatch.from_targets([random_target(5)], CLASSES)
    matches = MultiBoxLoss(SPEC).match(block).to("meta")
    model = SSD(ModelConfig(preset("paper_voc"), ("window",), BackboneConfig("tiny")))
    function, (offsets, logits) = MultiBoxLoss(SPEC).to("meta"), (part.to("meta") for part in outputs(1))
    with MadeThere() as made:
        assert model.normalise(torch.zeros(1, 3, 8, 8, device="meta")).is_meta
        assert function(offsets, logits, block.to("meta"), matches).total.is_meta
    assert made.count == 0


@pytest.mark.parametrize(
    "wrong",
    [{"threshold": 1.0}, {"class_balance": 1.5}, {"neg_pos_ratio": 0.0}, {"neg_pos_ratio": torch.inf}, {"alpha": -1.0}],
)
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="all finite, a threshold between 0 and 1, and a balance"):
        LossConfig(**wrong)


def test_arguments_stay_as_they_were() -> None:
    block = TargetBatch.from_targets([random_target(5)], CLASSES)
    parts = [*outputs(1), block.boxes, block.labels, block.ignore, block.labelled]
    before = [part.clone() for part in parts]
    MultiBoxLoss(SPEC)(parts[0], parts[1], block)
    assert all(torch.equal(old, new) for old, new in zip(before, parts, strict=True))
