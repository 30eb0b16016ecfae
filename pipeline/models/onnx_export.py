"""Export a bundle as ONNX, checked against PyTorch, with a JSON file of all else that detection needs.

`model.onnx` is the raw network: normalised images in, offsets and logits of every prior out. `detector.json` has the
rest, priors written out, so that a few lines in any language make detections of them; README.md has these lines.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.errors import FacadeError
from pipeline.models.bundle import open_bundle, preprocessing_of
from pipeline.storage.files import write_error
from ssd import SSD, Bundle, Detector, bundle_digest
from ssd.box_coder import MAX_SCALE
from ssd.bundle import write_folder

if TYPE_CHECKING:
    import onnx

__all__ = ["DETECTOR_FILE", "NETWORK_FILE", "detector_json", "export_model", "largest_difference", "to_onnx"]

FORMAT = 2
NETWORK_FILE, DETECTOR_FILE = "model.onnx", "detector.json"
REQUIRED_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
INPUT_NAME, OUTPUT_NAMES = "images", ("offsets", "logits")
# Batches to test with: the one that is a special case everywhere, and one that nothing was traced with.
CHECK_BATCHES, TRACE_BATCH = (1, 3), 2
MAX_DIFFERENCE = 1e-3
# Torch's own, from torch's own code; what it says is no concern of who exports.
KNOWN_WARNINGS = r"`isinstance\(treespec, LeafSpec\)` is deprecated"
ERRORS_ONLY = 3  # of onnxruntime's levels: it warns of what machines have not, such as GPUs


def export_model(folder: Path, out: Path, log: Callable[[str], None]) -> dict[str, Any]:
    """Write a bundle as ONNX with what belongs to it, at one stroke; return how far it is from PyTorch."""
    _check_packages()
    _check_out(out)
    bundle = open_bundle(folder)
    log(f"model export: translating {folder}; this takes a while")
    network = to_onnx(bundle)
    difference = largest_difference(network, bundle.model)
    if not difference <= MAX_DIFFERENCE:
        raise FacadeError(
            f"the ONNX network is not {folder}: its outputs differ by {difference:.1e} of their scale from PyTorch's, "
            f"{MAX_DIFFERENCE:.0e} at most; nothing was written, try other versions of {', '.join(REQUIRED_PACKAGES)}."
        )
    detector = detector_json(bundle, bundle_digest(folder), preprocessing_of(folder))
    detector["network"] = {
        "file": NETWORK_FILE,
        "sha256": _sha256(network),
        "input": INPUT_NAME,
        "outputs": list(OUTPUT_NAMES),
    }
    try:
        write_folder(out, {NETWORK_FILE: network, DETECTOR_FILE: (json.dumps(detector) + "\n").encode()})
    except OSError as error:
        raise write_error(out, error) from error
    log(f"model export: {out / NETWORK_FILE} ({len(network) / 1e6:.1f} MB) and {out / DETECTOR_FILE}")
    log(f"model export: differs from PyTorch by at most {difference:.1e} of the outputs' scale, batches of 1 and 3")
    outputs = {"network": str(out / NETWORK_FILE), "detector": str(out / DETECTOR_FILE), "bytes": len(network)}
    return {"changed": True, "outputs": outputs, "digest": _sha256(network), "largest_difference": difference}


def to_onnx(bundle: Bundle) -> bytes:
    """Return the network as ONNX, for batches of any size, without a trace of where it was made."""
    model = _exportable_model(bundle)
    images = torch.zeros(TRACE_BATCH, 3, *model.config.priors.input_size)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=KNOWN_WARNINGS, category=FutureWarning)
            program = torch.onnx.export(
                model,
                (images,),
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=list(OUTPUT_NAMES),
                dynamic_shapes={INPUT_NAME: {0: torch.export.Dim("batch")}},
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise FacadeError(
            f"torch cannot translate the network ({reason}); try other versions of onnxscript."
        ) from error
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    _strip_metadata(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def largest_difference(network: bytes, model: SSD) -> float:
    """Measure the largest difference between ONNX and PyTorch, relative to the largest value of the same output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    worst = []
    for batch in CHECK_BATCHES:
        size = (batch, 3, *model.config.priors.input_size)
        images = model.normalise(torch.randint(0, 256, size, generator=generator).float())
        with torch.inference_mode():
            expected = [output.numpy() for output in model(images)]
        for mine, theirs in zip(session.run(list(OUTPUT_NAMES), {INPUT_NAME: images.numpy()}), expected, strict=True):
            worst.append(float(np.abs(mine - theirs).max() / np.abs(theirs).max()))
    return float(np.max(worst))  # nan stays nan, and is no agreement


def detector_json(bundle: Bundle, digest: str, photos: dict[str, str]) -> dict[str, Any]:
    """Describe how a photo becomes the network's input, and its outputs detections."""
    config = bundle.model.config
    return {
        "format": FORMAT,
        "bundle": digest,
        "input_size": list(config.priors.input_size),
        "photos": photos,
        "mean": list(config.mean),
        "std": list(config.std),
        "classes": ["background", *config.classes],
        "variances": list(config.priors.variances),
        "max_scale": MAX_SCALE,
        "decode": asdict(bundle.decode),
        "priors": config.priors.to_json(),
        "priors_cxcywh": _shortest_floats(config.priors.priors_cxcywh().numpy()),
    }


def _shortest_floats(numbers: np.ndarray[Any, np.dtype[np.float32]]) -> list[list[float]]:
    """Return rows of float32 as the shortest numbers that become the same float32 again."""
    return [[float(str(number)) for number in row] for row in numbers]


def _exportable_model(bundle: Bundle) -> SSD:
    """Return the network as the detector runs it, batch norms folded, and with nothing done in place.

    Batch norms as such, and ReLU6 in place, are what the translator of torch is slowest at.
    """
    model: SSD = Detector(bundle, bfloat16=False).model
    model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for module in model.modules():
        if isinstance(module, torch.nn.ReLU6):
            module.inplace = False
    return model


def _strip_metadata(proto: onnx.ModelProto) -> None:
    """Take out the notes of the exporter: lines and paths of this machine's Python files."""
    del proto.metadata_props[:]
    graph = proto.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")


def _check_packages() -> None:
    missing = [name for name in REQUIRED_PACKAGES if find_spec(name) is None]
    if missing:
        raise FacadeError(
            f"to export, {', '.join(missing)} must be installed: `pip install {' '.join(REQUIRED_PACKAGES)}`."
        )


def _check_out(out: Path) -> None:
    """Refuse to take the place of anything but an earlier export."""
    if not out.exists() and not out.is_symlink():
        return
    others = (
        sorted({file.name for file in out.iterdir()} - {NETWORK_FILE, DETECTOR_FILE}) if out.is_dir() else [out.name]
    )
    if others:
        raise FacadeError(f"{out} is there and no earlier export ({others[0]} is in the way); name another folder.")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
