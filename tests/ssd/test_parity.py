"""torchvision's SSD300 with the same weights says the same, and so do the released trunks."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import mobilenet_v2, vgg16
from torchvision.transforms.functional import normalize, to_tensor

from ssd import IMAGENET_MEAN, IMAGENET_STD, SSD, BackboneConfig, ModelConfig, load_trunk, preset

from .samples import torchvision_twin

CLASSES = ("building", "window", "door")


def raw_outputs(theirs: torch.nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    features = list(theirs.backbone(images).values())
    outputs = theirs.head(features)
    return outputs["bbox_regression"], outputs["cls_logits"]


def test_raw_outputs_are_those_of_torchvision() -> None:
    theirs, ours = torchvision_twin()
    images = torch.randn(2, 3, 300, 300)
    with torch.no_grad():
        for mine, yours in zip(ours(images), raw_outputs(theirs, images), strict=True):
            assert mine.std() > 1e-3, "outputs that are all alike would prove nothing"
            torch.testing.assert_close(mine, yours, rtol=0, atol=1e-4)


def test_photos_are_normalised_as_torchvision_does() -> None:
    theirs, ours = torchvision_twin()
    photos = torch.randint(0, 256, (1, 3, 300, 300)).float()
    mine = ours.normalise(photos)
    torch.testing.assert_close(mine[0], theirs.transform.normalize(photos[0] / 255), rtol=1e-5, atol=1e-3)


def one_photo(folder: Path) -> Tensor:
    """A real photo from the folder of the weights, normalised."""
    path = next((folder.parent / "data" / "cmp").rglob("*.jpg"))
    photo = to_tensor(Image.open(path).convert("RGB").resize((300, 300)))
    images: Tensor = normalize(photo, IMAGENET_MEAN, IMAGENET_STD)[None]
    return images


@pytest.fixture(scope="module")
def vgg_weights(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    folder: Path = request.getfixturevalue("released_weights")
    weights: dict[str, Tensor] = load_file(folder / "vgg16_features_imagenet_torchvision_fp16.safetensors")
    return weights


def test_every_tensor_of_vgg_is_used_and_gives_torchvision_features(
    vgg_weights: dict[str, Tensor], released_weights: Path
) -> None:
    model = SSD(ModelConfig(preset("paper_coco"), CLASSES)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert load_trunk(model, vgg_weights) == []
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert len(vgg_weights) == len(changed) == 26
    theirs = vgg16(weights=None).features.eval()
    theirs.load_state_dict({name.removeprefix("features."): tensor.float() for name, tensor in vgg_weights.items()})
    image = one_photo(released_weights)
    with torch.no_grad():
        conv4_3 = model.backbone.maps(image)["conv4_3"]
        theirs[16].ceil_mode = True
        expected = torch.nn.functional.normalize(theirs[:23](image)) * 20
    assert expected.std() > 0.1
    torch.testing.assert_close(conv4_3, expected, rtol=1e-3, atol=1e-3)


def test_mobilenet_gives_torchvision_features(released_weights: Path) -> None:
    weights = load_file(released_weights / "mobilenet_v2_features_imagenet_torchvision_fp16.safetensors")
    model = SSD(ModelConfig(preset("paper_coco"), CLASSES, BackboneConfig("mobilenet_v2"))).eval()
    assert load_trunk(model, weights) == []
    theirs = mobilenet_v2(weights=None).eval()
    theirs.load_state_dict({**theirs.state_dict(), **{name: tensor.float() for name, tensor in weights.items()}})
    image = one_photo(released_weights)
    with torch.no_grad():
        expected = theirs.features(image)
        torch.testing.assert_close(model.backbone.maps(image)["stride32"], expected, rtol=1e-3, atol=1e-3)
    assert expected.std() > 0.1


def test_a_trunk_for_another_network_is_refused(vgg_weights: dict[str, Tensor]) -> None:
    model = SSD(ModelConfig(preset("paper_coco"), CLASSES, BackboneConfig("mobilenet_v2")))
    with pytest.raises(ValueError, match="A trunk for mobilenet_v2 has tensors named features"):
        load_trunk(model, vgg_weights)
    with pytest.raises(ValueError, match="got 1 tensors"):
        load_trunk(model, {"head.weight": torch.zeros(1)})
