"""Weights of other programs are converted; other classes get new heads, and a note says so."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.models import mobilenet_v2, vgg16, vgg16_bn

from ssd import (
    LAYOUTS,
    SSD,
    BackboneConfig,
    ModelConfig,
    PriorSpec,
    count_classes,
    detect_layout,
    load_matching_weights,
    load_trunk,
    preset,
)

from .samples import torchvision_twin

SHAPES, WIDTHS = (4, 6, 6, 6, 4, 4), (512, 1024, 512, 256, 256, 256)


def theirs(name: str, classes: int) -> dict[str, Tensor]:
    """Weights in a layout, every tensor full of a number of its own."""
    layout, weights = LAYOUTS[name], {}
    with torch.device("meta"):
        own = SSD(ModelConfig(preset("paper_voc"), ("window",))).state_dict()
    for number, (module, their) in enumerate(layout.modules.items()):
        for kind in ("weight", "bias"):
            weights[f"{their}.{kind}"] = torch.full(own[f"backbone.{module}.{kind}"].shape, float(number))
    weights[layout.scale] = torch.full((1, 512, 1, 1) if name == "report" else (512,), 7.0)
    for (offsets, logits), shapes, width in zip(layout.heads, SHAPES, WIDTHS, strict=True):
        for head, rows in ((offsets, 4), (logits, classes)):
            weights[f"{head}.weight"] = torch.randn(shapes * rows, width, 3, 3)
            weights[f"{head}.bias"] = torch.arange(float(shapes * rows))
    return weights


def model(classes: int, spec: PriorSpec | None = None) -> SSD:
    names = tuple(f"class {n}" for n in range(1, classes))
    return SSD(ModelConfig(spec or preset("paper_voc"), names)).eval()


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_tensor_finds_its_place(name: str) -> None:
    weights = theirs(name, 3)
    assert detect_layout(weights) == name
    assert count_classes(weights, LAYOUTS[name]) == 3
    ours = model(3)
    assert load_matching_weights(ours, LAYOUTS[name].convert(weights), 3) == []
    places = dict(ours.named_parameters())
    for number, module in enumerate(LAYOUTS[name].modules):
        assert bool((places[f"backbone.{module}.bias"] == number).all())
    bias = places["heads.outputs.1.bias"].reshape(6, 7)
    assert bias[:, :4].flatten().tolist() == list(range(24)), "offsets"
    assert bias[:, 4:].flatten().tolist() == list(range(18)), "logits"
    assert LAYOUTS[name].priors().counts_per_map == preset("paper_voc").counts_per_map


def test_other_classes_keep_their_offsets_and_draw_their_logits_anew() -> None:
    weights = theirs("report", 21)
    ours = model(4)
    fresh = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    notes = load_matching_weights(ours, LAYOUTS["report"].convert(weights), 21)
    assert notes == ["The weights know 20 classes, the model 3: other classes get newly initialised heads."]
    for name, tensor in ours.state_dict().items():
        if not name.startswith("heads.") or not name.endswith(".weight"):
            continue
        shapes = SHAPES[int(name.split(".")[2])]
        mine, before = (block.reshape(shapes, 8, -1) for block in (tensor, fresh[name]))
        assert torch.equal(mine[:, 4:], before[:, 4:])
        assert not torch.equal(mine[:, :4], before[:, :4])


def test_other_shapes_start_anew() -> None:
    ours = model(3, preset("epfl_table"))
    assert load_matching_weights(ours, LAYOUTS["torchvision"].convert(theirs("torchvision", 3)), 3) == [
        "The priors have other shapes than those of the weights: the heads are newly initialised."
    ]


def test_another_network_takes_nothing_and_says_so() -> None:
    ours = SSD(ModelConfig(preset("paper_voc"), ("window", "door"), BackboneConfig("tiny")))
    notes = load_matching_weights(ours, {"backbone.conv1_1.weight": torch.zeros(1)}, 3)
    assert "1 tensors have no place in this model" in notes[0]
    assert "are missing and newly initialised" in notes[1]


def test_a_tensor_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone.conv1_1.bias is \(64,\) in this model; got \(3,\)"):
        load_matching_weights(model(3), {"backbone.conv1_1.bias": torch.zeros(3)}, 3)


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"named as in torchvision, ssd.pytorch, report; got 1 tensors"):
        detect_layout({"conv.weight": torch.zeros(1)})


def trunk(make: Callable[..., torch.nn.Module]) -> dict[str, Tensor]:
    """What torchvision's network of that name saves of its features, full of ones."""
    with torch.device("meta"):
        shapes = make(weights=None).features.state_dict()
    return {f"features.{name}": torch.ones(tensor.shape, dtype=tensor.dtype) for name, tensor in shapes.items()}


@pytest.mark.parametrize(("name", "make"), [("vgg16", vgg16), ("mobilenet_v2", mobilenet_v2)])
def test_a_trunk_is_taken_as_a_whole_or_not_at_all(name: str, make: Callable[..., torch.nn.Module]) -> None:
    ours, weights = SSD(ModelConfig(preset("paper_voc"), ("window",), BackboneConfig(name))), trunk(make)
    first = next(iter(weights))
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    cut = {name: tensor for name, tensor in weights.items() if name != first}
    for wrong in (cut, {**weights, first: weights[first][:, :1]}, {**weights, "features.99.bias": torch.ones(3)}, {}):
        with pytest.raises(ValueError, match=f"A trunk for {name} has tensors named features.N as torchvision's"):
            load_trunk(ours, wrong)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())
    assert load_trunk(ours, {**weights, "classifier.6.bias": torch.ones(5)}) == ["classifier.6.bias"]
    assert sum(not torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items()) > 20


@pytest.mark.parametrize("make", [vgg16_bn, mobilenet_v2])
def test_vgg_takes_no_trunk_of_another_network(make: Callable[..., torch.nn.Module]) -> None:
    with pytest.raises(ValueError, match="A trunk for vgg16 has"):
        load_trunk(model(2), trunk(make))


def test_torchvision_carries_its_normalisation() -> None:
    twin, ours = torchvision_twin()
    assert ours.config.mean == tuple(twin.transform.image_mean)
    assert ours.config.std == pytest.approx(twin.transform.image_std)
