"""Networks have the paper's grids and counts; a config makes its network again."""

import json
from pathlib import Path

import pytest
import torch

from ssd import SSD, BackboneConfig, ModelConfig, PriorMap, PriorSpec, make_backbone, preset
from ssd.backbones import BACKBONE_NAMES
from ssd.backbones.vgg16 import L2Norm, decimate_classifier

CLASSES = ("building", "window", "door")
STRIDE_4 = ("conv3_3", "conv4_3", "fc7", "conv8_2", "conv9_2", "conv10_2", "conv11_2")


@pytest.mark.parametrize(
    ("config", "side", "grid"),
    [
        (BackboneConfig(), 300, [38, 19, 10, 5, 3, 1]),
        (BackboneConfig(fusion="concat"), 300, [38, 19, 10, 5, 3, 1]),
        (BackboneConfig(sources=STRIDE_4), 300, [75, 38, 19, 10, 5, 3, 1]),
        (BackboneConfig(sources=("conv4_3", "fc7", "conv9_2")), 300, [38, 19, 5]),
        (BackboneConfig(layout=512), 512, [64, 32, 16, 8, 4, 2, 1]),
        (BackboneConfig("mobilenet_v2"), 300, [38, 19, 10, 5, 3, 1]),
        (BackboneConfig("mobilenet_v2", sources=("stride4", "stride8", "stride32")), 300, [75, 38, 10]),
        (BackboneConfig("mobilenet_v2", layout=512), 512, [64, 32, 16, 8, 4, 2, 1]),
        (BackboneConfig("tiny"), 300, [38, 19, 10, 5, 3, 1]),
        (BackboneConfig("tiny", layout=512), 512, [64, 32, 16, 8, 4, 2, 1]),
    ],
)
def test_all_networks_stand_on_one_grid(config: BackboneConfig, side: int, grid: list[int]) -> None:
    with torch.device("meta"):
        backbone = make_backbone(config).eval()
        maps = backbone(torch.empty(2, 3, side, side))
    assert [tuple(features.shape[1:]) for features in maps] == [
        (channels, cells, cells) for channels, cells in zip(backbone.channels, grid, strict=True)
    ]


@pytest.mark.parametrize("name", BACKBONE_NAMES)
@pytest.mark.parametrize("layout", [300, 512])
def test_a_grid_is_known_without_a_photo(name: str, layout: int) -> None:
    with torch.device("meta"):
        backbone = make_backbone(BackboneConfig(name, layout=layout)).eval()
        for size in [(300, 321), (302, 511), (323, 517), (700, 333)]:
            maps = backbone(torch.empty(1, 3, *size))
            assert backbone.grid(size) == [tuple(features.shape[2:]) for features in maps]


def test_an_input_that_is_not_square() -> None:
    maps = ((38, 50), (19, 25))
    levels = tuple(PriorMap(size, (step, step), ((30.0, 40.0),)) for size, step in zip(maps, (8, 16), strict=True))
    spec = PriorSpec("wide", (300, 400), levels)
    model = SSD(ModelConfig(spec, CLASSES, BackboneConfig("tiny", sources=("stride8", "stride16")))).eval()
    offsets, logits = model(model.normalise(torch.zeros(2, 3, 300, 400)))
    assert offsets.shape == (2, 38 * 50 + 19 * 25, 4)
    assert logits.shape == (2, 38 * 50 + 19 * 25, 4)


@pytest.mark.parametrize(("name", "count"), [("paper_voc", 8732), ("paper_512_voc", 24564)])
@pytest.mark.parametrize("backbone", ["vgg16", "mobilenet_v2", "tiny"])
def test_an_output_for_every_prior(name: str, count: int, backbone: str) -> None:
    spec = preset(name)
    with torch.device("meta"):
        model = SSD(ModelConfig(spec, CLASSES, BackboneConfig(backbone, layout=spec.input_size[0]))).eval()
        offsets, logits = model(torch.empty(1, 3, *spec.input_size))
    assert offsets.shape == (1, count, 4)
    assert logits.shape == (1, count, 4)


def test_outputs_stand_where_their_priors_do() -> None:
    """A cell's outputs move with what it sees: the prior whose outputs a bright spot changes most lies on the spot."""
    spec = preset("paper_coco")
    model = SSD(ModelConfig(spec, CLASSES, BackboneConfig("tiny"))).eval()
    dark = torch.zeros(1, 3, 300, 300)
    lit = dark.clone()
    lit[:, :, 90:106, 200:216] = 3.0
    with torch.no_grad():
        change = (model(lit)[1] - model(dark)[1]).abs().sum(dim=2)[0, : spec.counts_per_map[0]]
    x, y = spec.priors_cxcywh()[int(change.argmax()), :2].tolist()
    assert abs(x - 208) < 25
    assert abs(y - 98) < 25


def test_what_offsets_stand_for_is_kept_apart_from_logits() -> None:
    spec = preset("paper_coco")
    model = SSD(ModelConfig(spec, CLASSES, BackboneConfig("tiny"))).eval()
    for outputs in model.heads.outputs:
        layer = outputs[-1]
        torch.nn.init.zeros_(layer.weight)
        layer.bias.data.copy_(torch.arange(8.0).repeat(len(layer.bias) // 8))
    offsets, logits = model(torch.zeros(1, 3, 300, 300))
    assert torch.equal(offsets, torch.arange(4.0).expand_as(offsets))
    assert torch.equal(logits, torch.arange(4.0, 8.0).expand_as(logits))


def test_features_of_length_one_times_twenty() -> None:
    features = torch.rand(2, 16, 5, 7) + 0.1
    torch.testing.assert_close(L2Norm(16)(features).norm(dim=1), torch.full((2, 5, 7), 20.0))
    assert not L2Norm(16)(torch.zeros(1, 16, 2, 2)).any()


def test_a_classifier_is_decimated_to_atrous_layers() -> None:
    weights = {
        "0.weight": torch.arange(4096 * 8.0).repeat_interleave(3136).reshape(4096, -1)[:, : 512 * 49],
        "0.bias": torch.arange(4096.0),
        "3.weight": torch.randn(4096, 4096),
        "3.bias": torch.arange(4096.0),
    }
    layers = decimate_classifier(weights)
    assert layers["fc6.weight"].shape == (1024, 512, 3, 3)
    square = weights["0.weight"].reshape(4096, 512, 7, 7)
    assert torch.equal(layers["fc6.weight"][5, 9], square[20, 9][[0, 3, 6]][:, [0, 3, 6]])
    assert torch.equal(layers["fc7.weight"][3, 7, 0, 0], weights["3.weight"][12, 28])
    assert layers["fc7.bias"].tolist() == list(range(0, 4096, 4))


@pytest.mark.parametrize(
    "config",
    [
        BackboneConfig(),
        BackboneConfig(fusion="concat"),
        BackboneConfig(sources=STRIDE_4[:3]),
        BackboneConfig("mobilenet_v2", layout=512),
    ],
)
def test_a_config_comes_back_from_json(config: BackboneConfig) -> None:
    whole = ModelConfig(preset("paper_voc"), CLASSES, config, mean=(0.1, 0.2, 0.3))
    assert ModelConfig.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_every_weight_learns() -> None:
    for config in (BackboneConfig("tiny"), BackboneConfig("mobilenet_v2"), BackboneConfig(fusion="concat")):
        side, sources = 300, config.sources
        model = SSD(ModelConfig(preset("paper_voc"), CLASSES, BackboneConfig(config.name, sources, 300, config.fusion)))
        offsets, logits = model(torch.randn(2, 3, side, side))
        (offsets.square().mean() + logits.square().mean()).backward()
        still = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
        assert not still


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BackboneConfig("resnet"), "The backbones are vgg16"),
        (lambda: BackboneConfig(layout=400), "The layouts are 300, 512"),
        (lambda: BackboneConfig("tiny", fusion="concat"), "others have none"),
        (lambda: make_backbone(BackboneConfig(sources=("fc7", "conv4_3"))), "in this order"),
        (lambda: make_backbone(BackboneConfig(sources=("conv4_4",))), "maps to predict from"),
        (lambda: ModelConfig(preset("paper_voc"), ("window", "window")), "different names"),
        (lambda: ModelConfig(preset("paper_voc"), ()), "different names"),
        (lambda: ModelConfig(preset("paper_voc"), ("background", "window")), "background not among them"),
        (lambda: ModelConfig(preset("paper_voc"), "window"), "different names"),
        (lambda: ModelConfig(preset("paper_voc"), CLASSES, std=(0, 1, 1)), "each std above 0"),
        (lambda: SSD(ModelConfig(preset("paper_512_voc"), CLASSES)), "Every map to predict from has priors"),
        (
            lambda: SSD(ModelConfig(preset("paper_512_voc"), CLASSES, BackboneConfig(sources=STRIDE_4))),
            "lie on maps of 64x64",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: object, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_the_example_of_the_readme_runs() -> None:
    readme = Path(__file__).resolve().parents[2] / "README.md"
    section = readme.read_text(encoding="utf-8").split("## The detector as a library")[1].split("\n## ")[0]
    code = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    found = names["detections"]
    assert isinstance(found, list)
    assert len(found) == 2
    model = names["model"]
    assert isinstance(model, SSD)
    assert model.heads.outputs[0][-1].weight.grad is not None
