"""Weights of others become bundles that detect alike, bundles tell what they are and become ONNX that says the same."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16

from pipeline.cli.main import main
from pipeline.errors import FacadeError, UsageError
from pipeline.models.bundle import bundle_info, format_info, open_bundle
from pipeline.models.onnx_export import export_model, largest_difference, to_onnx
from pipeline.models.prior_specs import load_prior_spec
from pipeline.models.weight_files import WeightFile, read_weight_file
from pipeline.models.weight_import import VOC_CLASSES, build_bundle, default_class_names, import_model, parse_classes
from ssd import (
    LAYOUTS,
    SSD,
    BackboneConfig,
    Bundle,
    DecodeConfig,
    Detections,
    Detector,
    ModelConfig,
    PriorMap,
    bundle_digest,
    clamp_shapes,
    load_bundle,
    preset,
    save_bundle,
)

from ...ssd.samples import assert_same_detections

CLASSES = ("building", "window", "door")
README = Path(__file__).resolve().parents[3] / "README.md"


@pytest.fixture
def scratch_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is gone after the test: networks with VGG-16 have 96 MB."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def network(backbone: str = "tiny", seed: int = 0) -> SSD:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SSD(ModelConfig(clamp_shapes(preset("paper_coco")), CLASSES, BackboneConfig(backbone))).eval()


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Random weights of our SSD300 with VGG-16 and three classes, under our names."""
    return network("vgg16").state_dict()


@pytest.fixture(scope="module")
def onnx_export(tmp_path_factory: pytest.TempPathFactory, command: Callable) -> SimpleNamespace:
    """A small bundle onnx_export by a process: where both are, and what the process said."""
    folder = tmp_path_factory.mktemp("exported")
    save_bundle(folder / "model", Bundle(network(), DecodeConfig(min_score=0.02), {"run": {"id": "abc"}}))
    arguments = command("model", "export", folder / "model", "--out", folder / "onnx")
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return SimpleNamespace(folder=folder, line=json.loads(done.stdout), text=done.stderr)


@pytest.fixture
def run_facade_in_process(
    capfd: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable]:
    """The command line in this process, where torch is imported already: exit code, line, text."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(*arguments: object) -> SimpleNamespace:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        (line,) = out.splitlines()
        return SimpleNamespace(code=end.value.code or 0, line=json.loads(line), text=err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def named_as(layout: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our weights of three classes under the names of a layout: what `Layout.convert` undoes."""
    names, weights = LAYOUTS[layout], {}
    for ours, theirs in names.modules.items():
        weights |= {f"{theirs}.{kind}": state[f"backbone.{ours}.{kind}"] for kind in ("weight", "bias")}
    scale = state["backbone.norm4.weight"]
    weights[names.scale] = scale.reshape(1, 512, 1, 1) if layout == "report" else scale
    for number, (offsets, logits) in enumerate(names.heads):
        for kind in ("weight", "bias"):
            joined = state[f"heads.outputs.{number}.{kind}"]
            shapes = joined.reshape(-1, 8, *joined.shape[1:])
            weights[f"{offsets}.{kind}"] = shapes[:, :4].flatten(0, 1).contiguous()
            weights[f"{logits}.{kind}"] = shapes[:, 4:].flatten(0, 1).contiguous()
    return weights


def small_bundle(folder: Path) -> Path:
    save_bundle(folder / "model", Bundle(network()))
    return folder / "model"


def imported(path: Path, out: Path, classes: str | None = None, priors: str | None = None) -> dict:
    return import_model(path, out, classes, priors, lambda _: None)


# --- import


def wrapped(layout: str, weights: dict[str, Tensor]) -> object:
    """Weights as training programs of each kind leave them."""
    if layout == "torchvision":
        return {"model": weights, "epoch": 3}
    if layout == "report":
        return {"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}
    return weights


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_of_every_layout_come_back_as_they_were(
    layout: str, state: dict[str, Tensor], scratch_folder: Path
) -> None:
    torch.save(wrapped(layout, named_as(layout, state)), scratch_folder / "weights.pth")
    line = imported(scratch_folder / "weights.pth", scratch_folder / "model", "building,window,door")
    assert (line["changed"], line["notes"], line["outputs"]["layout"]) == (True, [], layout)
    bundle = load_bundle(scratch_folder / "model")
    back = bundle.model.state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
    config, names = bundle.model.config, LAYOUTS[layout]
    assert (config.mean, config.std, config.priors) == (names.mean, names.std, names.priors())
    assert bundle.decode.nms_iou == (0.6 if layout == "report" else 0.45)
    assert line["digest"] == bundle_digest(scratch_folder / "model")
    assert bundle.trained["source"]["layout"] == layout


def test_an_imported_torchvision_model_detects_as_torchvision(scratch_folder: Path) -> None:
    torch.manual_seed(0)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=4).eval()
    with torch.no_grad():  # mild offsets: torchvision keeps boxes that clipping leaves without area, we do not
        for parameter in theirs.head.parameters():
            parameter.mul_(0.05)
    torch.save(theirs.state_dict(), scratch_folder / "weights.pt")
    line = imported(scratch_folder / "weights.pt", scratch_folder / "model")
    assert line["outputs"]["classes"] == ["class_1", "class_2", "class_3"]
    assert "name --classes" in line["notes"][0]
    photo = torch.randint(0, 256, (3, 300, 300), dtype=torch.uint8)
    (mine,) = Detector(load_bundle(scratch_folder / "model"), bfloat16=False)([photo])
    with torch.no_grad():
        (yours,) = theirs([photo.float() / 255])
    assert len(mine.scores) == 200
    assert mine.scores[0] - mine.scores[-1] > 0.01, "scores that are all alike would prove nothing"
    assert_same_detections(mine, Detections(yours["boxes"], yours["labels"], yours["scores"]))


def test_other_classes_start_anew_which_is_said(
    run_facade_in_process: Callable, state: dict[str, Tensor], scratch_folder: Path
) -> None:
    halves = {name: tensor.half() for name, tensor in named_as("ssd.pytorch", state).items()}
    save_file(halves, scratch_folder / "weights.safetensors")
    done = run_facade_in_process(
        "model", "import", "weights.safetensors", "--out", "model", "--classes", "window, door"
    )
    note = "The weights know 3 classes, the model 2: other classes get newly initialised heads."
    assert (done.code, done.line["stage"], done.line["changed"]) == (0, "model import", True)
    assert done.line["notes"] == [note]
    assert f"model import: {note}" in done.text
    assert load_bundle(scratch_folder / "model").model.config.classes == ("window", "door")
    again = imported(scratch_folder / "weights.safetensors", scratch_folder / "model", "window,door")
    assert (again["changed"], again["digest"]) == (False, done.line["digest"]), "new heads are initialised with a seed"


def test_other_priors_are_noted(state: dict[str, Tensor]) -> None:
    checkpoint = WeightFile("weights.pth", "0", named_as("torchvision", state))
    bundle, notes = build_bundle(checkpoint, "torchvision", CLASSES, preset("paper_voc"))
    assert bundle.model.config.priors == preset("paper_voc")
    assert notes == ["The weights were trained with the priors paper_coco; with paper_voc train on before you detect."]
    bundle, notes = build_bundle(checkpoint, "torchvision", CLASSES, preset("paper_coco"))
    assert (bundle.model.config.priors, notes) == (clamp_shapes(preset("paper_coco")), [])


def test_a_finer_map_leaves_the_other_heads_where_they_belong(state: dict[str, Tensor]) -> None:
    coarse = preset("paper_coco")
    fine = replace(coarse, name="fine", maps=(PriorMap((75, 75), (4, 4), ((10.0, 10.0),)), *coarse.maps))
    tensors = {**named_as("torchvision", state), "strange": torch.zeros(1)}
    bundle, notes = build_bundle(WeightFile("weights.pth", "0", tensors), "torchvision", CLASSES, fine)
    back = bundle.model.state_dict()
    for number in range(6):
        assert torch.equal(back[f"heads.outputs.{number + 1}.weight"], state[f"heads.outputs.{number}.weight"])
    assert "1 tensors are not used, the first is strange." in notes
    assert "3 tensors are missing and newly initialised, the first is backbone.norm3.weight." in notes


def test_classes_get_the_names_that_are_known() -> None:
    for layout in LAYOUTS:
        names, notes = default_class_names(layout, 21)
        assert (names, len(notes)) == (VOC_CLASSES, 1)
        assert (names[0], names[14], names[19]) == ("aeroplane", "person", "tvmonitor")
    names, notes = default_class_names("torchvision", 91)
    assert (len(names), names[0], names[2], names[11], names[89]) == (90, "person", "car", "class_12", "toothbrush")
    assert "COCO" in notes[0]
    assert default_class_names("ssd.pytorch", 91)[0][:2] == ("class_1", "class_2")
    assert default_class_names("report", 2)[0] == ("class_1",)


@pytest.mark.parametrize("text", ["", "window,,door", "window,window", "background,window"])
def test_classes_that_are_no_list_of_names_are_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="without background"):
        parse_classes(text)


def test_priors_have_a_name_or_a_file(tmp_path: Path) -> None:
    spec = replace(preset("epfl_code"), name="mine")
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_json()))
    calibrated = {"format": 1, "chosen": "mine", "specs": {"mine": spec.to_json(), "other": {}}}
    (tmp_path / "priors.json").write_text(json.dumps(calibrated))
    assert load_prior_spec(None) is None
    assert load_prior_spec("paper_voc") == preset("paper_voc")
    assert load_prior_spec(str(tmp_path / "spec.json")) == load_prior_spec(str(tmp_path / "priors.json")) == spec


@pytest.mark.parametrize("text", ["{", "[]", "[1]", "3", "{}", '{"chosen": "a", "specs": {}}', '{"chosen": []}'])
def test_a_file_without_priors_is_said_to_have_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "priors.json").write_text(text)
    with pytest.raises(FacadeError, match=r"priors.json has no priors .* give the priors.json of `facade priors`"):
        load_prior_spec(str(tmp_path / "priors.json"))


def test_priors_that_are_not_there_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a preset"):
        load_prior_spec("paper")
    with pytest.raises(UsageError, match="cannot read"):
        load_prior_spec(str(tmp_path / "none.json"))


# --- files that are not what they should be


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_is_refused_with_a_way_out(tmp_path: Path, zipped: bool) -> None:
    whole = {"epoch": 3, "model": torch.nn.Linear(2, 2)}
    torch.save(whole, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        FacadeError, match=r"\(torch.nn.modules.linear.Linear\).*save `torch.save\(model.state_dict\(\)"
    ):
        read_weight_file(tmp_path / "whole.pth")


def test_what_is_wrapped_is_unwrapped(tmp_path: Path) -> None:
    tensors = {"module.a": torch.ones(1), "module.b": torch.zeros(2)}
    for value in (tensors, {"model": tensors}, {"model": {"state_dict": tensors}}, {"model_state_dict": tensors}):
        torch.save(value, tmp_path / "w.pth")
        assert list(read_weight_file(tmp_path / "w.pth").tensors) == ["a", "b"]
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pth")
    assert list(read_weight_file(tmp_path / "w.pth").tensors) == ["module.a", "b"]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"optimizer": {}, "epoch": 1}, "holds a dict with the keys optimizer, epoch, expected tensors by name"),
        ({}, "holds a dict with the keys , expected"),
        ([torch.ones(1)], "holds a list, expected tensors by name"),
        ({"model": {"a": 1}}, "holds a dict with the keys model, expected"),
    ],
)
def test_a_file_without_tensors_is_told_by_what_it_holds(tmp_path: Path, value: object, sentence: str) -> None:
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(FacadeError, match=re.escape(sentence)):
        read_weight_file(tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("data", [b"", b"hello\n" * 50, bytes(range(256)), b"PK\x03\x04" + bytes(99)])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FacadeError, match=r"^[^\n]*fetch or save it again\.$"):
        read_weight_file(tmp_path / name)


def test_another_pickle_protocol_is_one_sentence(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pth", pickle_protocol=4)
    with pytest.raises(FacadeError, match=r"not as torch.save writes by itself \(UnpicklingError: Unsupported operand"):
        read_weight_file(tmp_path / "w.pth")


def test_a_torn_file_is_one_sentence(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(999)}, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    for end in range(0, len(whole), 97):
        (tmp_path / "w.pth").write_bytes(whole[:end])
        with pytest.raises(FacadeError, match="fetch or save it again"):
            read_weight_file(tmp_path / "w.pth")


def test_a_file_of_another_name_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"supported: \.pth, \.pt, \.pth\.tar, \.safetensors\.$"):
        read_weight_file(tmp_path / "weights.h5")


def test_weights_that_are_no_ssd300_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(FacadeError, match=r"w.pth: .* named as in torchvision, ssd.pytorch, report; got 1 tensors"):
        imported(tmp_path / "w.pth", tmp_path / "model")
    weights = named_as("ssd.pytorch", state)
    small = {name: weights[name] for name in ("vgg.0.weight", "L2Norm.weight", "loc.0.bias", "conf.0.bias")}
    torch.save(small, tmp_path / "w.pth")
    with pytest.raises(FacadeError, match=r"w.pth: It lacks the tensor 'vgg.0.bias'; it is cut short"):
        imported(tmp_path / "w.pth", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_priors_for_another_input_are_refused(state: dict[str, Tensor]) -> None:
    checkpoint = WeightFile("w.pth", "0", named_as("report", state))
    with pytest.raises(ValueError, match=r"inputs of \(300, 300\); give priors for these, not paper_512_voc"):
        build_bundle(checkpoint, "report", CLASSES, preset("paper_512_voc"))


def test_weights_that_are_no_numbers_are_refused(state: dict[str, Tensor], scratch_folder: Path) -> None:
    weights = named_as("torchvision", state)
    weights["head.regression_head.module_list.0.bias"] = torch.full((16,), torch.nan)
    save_file(weights, scratch_folder / "theirs.safetensors")
    with pytest.raises(FacadeError, match=r"theirs\.safetensors: .* the first is heads\.outputs\.0\.bias"):
        imported(scratch_folder / "theirs.safetensors", scratch_folder / "model")


def test_another_folder_is_not_replaced(state: dict[str, Tensor], scratch_folder: Path) -> None:
    save_file(named_as("report", state), scratch_folder / "w.safetensors")
    (scratch_folder / "letters").mkdir()
    (scratch_folder / "letters" / "dear.txt").write_text("keep me")
    with pytest.raises(FacadeError, match=r"letters exists and is not a model bundle; give another folder\.$"):
        imported(scratch_folder / "w.safetensors", scratch_folder / "letters")
    assert (scratch_folder / "letters" / "dear.txt").read_text() == "keep me"


# --- show


def test_show_tells_what_a_bundle_is(onnx_export: SimpleNamespace) -> None:
    folder = onnx_export.folder / "model"
    found = bundle_info(folder)
    assert found["digest"] == bundle_digest(folder)
    assert found["parameters"] == sum(one.numel() for one in network().parameters())
    assert found["bytes"] > 4 * found["parameters"]
    assert found["priors"] == {"name": "paper_coco", "count": 8732, "counts_per_map": [5776, 2166, 600, 150, 36, 4]}
    assert (found["classes"], found["input_size"]) == (list(CLASSES), [300, 300])
    assert json.loads(json.dumps(found)) == found
    text = format_info(found)
    for part in ("tiny, layout 300", "3: building, window, door", "paper_coco, 8732", "score 0.02", "run.id abc"):
        assert part in text


def test_show_prints_a_card_and_a_line(run_facade_in_process: Callable, onnx_export: SimpleNamespace) -> None:
    done = run_facade_in_process("model", "show", onnx_export.folder / "model")
    found = bundle_info(onnx_export.folder / "model")
    assert (done.code, done.line["stage"], done.line["changed"]) == (0, "model show", False)
    assert {key: done.line[key] for key in found} == found
    assert done.text.rstrip("\n") == format_info(found)


def test_a_damaged_bundle_is_one_sentence(run_facade_in_process: Callable, tmp_path: Path) -> None:
    weights = small_bundle(tmp_path) / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    done = run_facade_in_process("model", "show", "model")
    assert done.code == 1
    assert re.fullmatch(
        r"The bundle model can't be used: its weights have the sha256 .*train it again\.", done.line["error"]
    )


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    for name in ("nowhere", "."):
        with pytest.raises(FacadeError, match=r"is not a model bundle \(model.json is missing\); name a folder"):
            open_bundle(tmp_path / name)


# --- export


def test_export_says_how_near_it_is_and_nothing_else(onnx_export: SimpleNamespace) -> None:
    line, folder = onnx_export.line, onnx_export.folder
    assert (line["stage"], line["changed"]) == ("model export", True)
    assert 0 < line["largest_difference"] < 1e-5
    lines = onnx_export.text.splitlines()
    assert len(lines) == 3, "the exporter's own talk is no one's concern"
    assert all(one.startswith("model export: ") for one in lines)
    assert sorted(path.name for path in (folder / "onnx").iterdir()) == ["detector.json", "model.onnx"]
    assert sorted(path.name for path in folder.iterdir()) == ["model", "onnx"]
    network_file = (folder / "onnx" / "model.onnx").read_bytes()
    assert b"forward" not in network_file, "the exporter's traces name the files of this machine"


def test_the_file_beside_has_all_that_the_bundle_has(onnx_export: SimpleNamespace) -> None:
    detector = json.loads((onnx_export.folder / "onnx" / "detector.json").read_text())
    bundle = load_bundle(onnx_export.folder / "model")
    config = bundle.model.config
    priors = np.array(detector["priors_cxcywh"], np.float32)
    assert np.array_equal(priors, config.priors.priors_cxcywh().numpy())
    assert detector["classes"] == ["background", *CLASSES]
    assert (detector["mean"], detector["std"]) == (list(config.mean), list(config.std))
    assert detector["decode"] == asdict(bundle.decode)
    assert detector["bundle"] == bundle_digest(onnx_export.folder / "model")
    assert detector["network"]["sha256"] == onnx_export.line["digest"]


def test_the_example_in_the_readme_finds_what_the_detector_finds(
    onnx_export: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(onnx_export.folder / "onnx", tmp_path / "ONNX")
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    with open(tmp_path / "photo.jpg", "wb") as file:
        Image.fromarray(pixels).save(file, format="PNG")  # a PNG by another name: no loss, and no resize
    (example,) = re.findall(r"(?m)^    import json.*\n(?:    .*\n|\n)+", README.read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    values: dict = {}
    exec(re.sub("(?m)^    ", "", example), values)
    (found,) = Detector(load_bundle(onnx_export.folder / "model"), bfloat16=False)(
        [torch.from_numpy(pixels).permute(2, 0, 1).contiguous()]
    )
    assert len(found.scores) > 20
    assert values["scores"].shape == (8732, 4)
    for box, label, score in zip(found.boxes.numpy(), found.labels.tolist(), found.scores.numpy(), strict=True):
        there = np.abs(values["boxes"] - box).max(axis=1) < 0.01
        assert np.abs(values["scores"][there, label] - score).min(initial=1) < 1e-4


def test_mobilenet_says_the_same_in_onnx() -> None:
    model = network("mobilenet_v2")
    assert largest_difference(to_onnx(Bundle(model)), model) < 1e-4


def test_another_network_is_noticed_and_nothing_is_written(
    onnx_export: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = (onnx_export.folder / "onnx" / "model.onnx").read_bytes()
    assert largest_difference(onnx, network()) < 1e-5
    assert largest_difference(onnx, network(seed=1)) > 0.1
    monkeypatch.setattr("pipeline.models.onnx_export.to_onnx", lambda _: onnx)
    save_bundle(tmp_path / "model", Bundle(network(seed=1)))
    with pytest.raises(FacadeError, match=r"differ by .* of their scale from PyTorch's, 1e-03 at most; nothing was"):
        export_model(tmp_path / "model", tmp_path / "onnx", lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_export_takes_the_place_of_one_and_of_nothing_else(
    onnx_export: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = (onnx_export.folder / "onnx" / "model.onnx").read_bytes()
    monkeypatch.setattr("pipeline.models.onnx_export.to_onnx", lambda _: onnx)
    monkeypatch.setattr("pipeline.models.onnx_export.largest_difference", lambda *_: 0.0)
    model = onnx_export.folder / "model"
    (tmp_path / "old").mkdir()
    for _ in range(2):
        export_model(model, tmp_path / "old", lambda _: None)
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == ["detector.json", "model.onnx"]
    (tmp_path / "old" / "dear.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    for name in ("old", "file"):
        with pytest.raises(FacadeError, match=r"is there and no earlier export \(.* is in the way\); name another"):
            export_model(model, tmp_path / name, lambda _: None)
    with pytest.raises(FacadeError, match="cannot write"):
        export_model(model, tmp_path / "file" / "onnx", lambda _: None)


def test_without_the_packages_it_is_said_what_to_install(
    onnx_export: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(FacadeError, match="onnxscript must be installed: `pip install onnx onnxruntime onnxscript`"):
        export_model(onnx_export.folder / "model", tmp_path / "onnx", lambda _: None)


# --- usage


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("import", "gone.pth", "--out", "m"), 1, "gone.pth: No such file"),
        (("import", "weights.h5", "--out", "m"), 2, "unsupported weight file extension"),
        (("export", "model"), 2, "Missing option '--out'"),
        (("frobnicate",), 2, "No such command 'frobnicate'"),
    ],
)
def test_wrong_usage_is_one_sentence_and_a_code(
    run_facade_in_process: Callable, arguments: tuple[str, ...], code: int, word: str
) -> None:
    done = run_facade_in_process("model", *arguments)
    assert (done.code, done.line["stage"]) == (code, f"model {arguments[0]}")
    assert word in done.line["error"]
