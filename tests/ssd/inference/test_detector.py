"""What the detector does around the network: sizes, number formats, copies."""

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ssd import (
    SSD,
    BackboneConfig,
    Bundle,
    Detections,
    Detector,
    ModelConfig,
    Target,
    TargetBatch,
    preset,
    supports_bfloat16,
)


class Copies(TorchFunctionMode):
    """Whether each `Tensor.to` that was called on one of some tensors would have waited."""

    def __init__(self, *watched: Tensor) -> None:
        super().__init__()
        self.watched, self.waited = {id(tensor) for tensor in watched}, list[bool]()

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is Tensor.to and id(args[0]) in self.watched:
            self.waited.append(not (kwargs or {}).get("non_blocking", False))
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def detector() -> Detector:
    model = SSD(ModelConfig(preset("paper_coco"), ("window",), BackboneConfig("tiny")))
    return Detector(Bundle(model.eval()), bfloat16=False)


def test_a_box_that_ends_with_the_input_ends_with_the_photo(detector: Detector) -> None:
    whole = Detections(torch.tensor([[0.0, 0.0, 300.0, 300.0]]), torch.tensor([1]), torch.tensor([0.5]))
    sides = range(1, 5000, 7)
    found = detector.scale_to_photos([whole] * len(sides), [(side, 5000 - side) for side in sides])
    assert [one.boxes[0, 2:].tolist() for one in found] == [[5000 - side, side] for side in sides]
    assert all(one.boxes.dtype == torch.float32 for one in found)


def test_a_copy_to_the_cpu_waits_for_what_it_copies(detector: Detector) -> None:
    """One from a GPU that did not would be read before it is there."""
    block = TargetBatch.from_targets([Target(torch.tensor([[1.0, 2.0, 3.0, 5.0]]), torch.tensor([1]))], 2)
    parts = block.boxes, block.labels, block.ignore, block.labelled
    inputs = torch.zeros(1, 3, 300, 300, dtype=torch.uint8)
    with Copies(inputs, *parts) as copies:
        block.to("cpu")
        detector.outputs(inputs)
    assert copies.waited == [True] * 5
    with Copies(*parts) as copies:
        block.to("meta")
    assert copies.waited == [False] * 4


@pytest.mark.parametrize(
    ("has", "fast"),
    [({}, False), ({"avx512_f": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True)],
)
def test_bfloat16_is_for_processors_that_multiply_it(
    has: dict[str, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert supports_bfloat16("cpu") is fast
