"""A bundle comes back as it went, and one that was touched is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssd import SSD, BackboneConfig, Bundle, DecodeConfig, ModelConfig, bundle_digest, load_bundle, preset, save_bundle
from ssd.bundle import MODEL_FILE, WEIGHTS_FILE


def bundle(seed: int = 0) -> Bundle:
    torch.manual_seed(seed)
    config = ModelConfig(replace(preset("paper_voc"), clip=True), ("window", "door"), BackboneConfig("tiny"))
    return Bundle(SSD(config).eval(), DecodeConfig(nms_iou=0.5, class_agnostic_iou=0.7), {"data": "abc", "epochs": 3})


def same_weights(first: SSD, second: SSD) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(one == other and torch.equal(a, b) for (one, a), (other, b) in pairs)


def test_there_and_back(tmp_path: Path) -> None:
    given = bundle()
    digest = save_bundle(tmp_path / "model", given)
    back = load_bundle(tmp_path / "model")
    assert (back.model.config, back.decode, back.trained) == (given.model.config, given.decode, given.trained)
    assert same_weights(back.model, given.model)
    assert not back.model.training
    assert digest == bundle_digest(tmp_path / "model") == save_bundle(tmp_path / "again", back)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "model"]


def test_half_the_space_where_nothing_is_lost(tmp_path: Path) -> None:
    whole, half = bundle(), bundle()
    half.model.half().float()
    save_bundle(tmp_path / "whole", whole)
    save_bundle(tmp_path / "half", half)
    sizes = [(tmp_path / name / WEIGHTS_FILE).stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.55 * sizes[1]
    for name, given in (("whole", whole), ("half", half)):
        back = load_bundle(tmp_path / name).model
        assert same_weights(back, given.model)
        assert all(tensor.dtype == torch.float32 for tensor in back.parameters())


def test_a_bundle_takes_the_place_of_one_and_of_nothing_else(tmp_path: Path) -> None:
    save_bundle(tmp_path / "model", bundle(0))
    save_bundle(tmp_path / "model", bundle(1))
    assert same_weights(load_bundle(tmp_path / "model").model, bundle(1).model)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="is not a model bundle"):
        save_bundle(tmp_path / "letters", bundle())
    assert (tmp_path / "letters" / "dear.txt").read_text() == "keep me"


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_a_bundle_outlives_what_interrupts_its_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    digest = save_bundle(tmp_path / "model", bundle(0))
    rename = Path.rename

    def fail_on_the_new(path: Path, target: Path) -> Path:
        if path.name.endswith(".new"):
            raise failure
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_new)
    with pytest.raises(failure):
        save_bundle(tmp_path / "model", bundle(1))
    assert bundle_digest(tmp_path / "model") == digest
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, number: float) -> None:
    diverged = bundle()
    diverged.model.state_dict()["backbone.stem.1.running_var"][3] = number
    with pytest.raises(ValueError, match=r"1 tensors are not, the first is backbone\.stem\.1\.running_var"):
        save_bundle(tmp_path / "model", diverged)
    assert not list(tmp_path.iterdir())


def test_other_weights_are_another_model(tmp_path: Path) -> None:
    digests = {save_bundle(tmp_path / str(seed), bundle(seed)) for seed in (0, 1)}
    assert len(digests) == 2


def test_touched_weights_are_refused(tmp_path: Path) -> None:
    save_bundle(tmp_path / "model", bundle())
    weights = tmp_path / "model" / WEIGHTS_FILE
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ValueError, match="sha256"):
        load_bundle(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "has format 3; this release reads format 2"),
        ({"photos": {"channels": "blue, green, red"}}, "which this release does not do"),
        ({"classes": ["window"]}, "can't be used"),
        ({"classes": []}, "different names"),
        ({"decode": {"min_score": 2}}, "can't be used"),
        ({"backbone": {"name": "resnet"}}, "backbones are"),
        ({"mean": None}, "can't be used"),
    ],
)
def test_a_model_file_that_says_something_else_is_refused(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    save_bundle(tmp_path / "model", bundle())
    path = tmp_path / "model" / MODEL_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        load_bundle(tmp_path / "model")


def test_what_is_no_bundle_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a model bundle: a folder with"):
        load_bundle(tmp_path / "nowhere")
    (tmp_path / MODEL_FILE).write_text("[1]")
    with pytest.raises(ValueError, match="reads format 2"):
        load_bundle(tmp_path)
