"""Decoding keeps the best, one by one as in a batch; torchvision is the oracle in test_parity.py."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssd import DECODE_PRESETS, DecodeConfig, Decoder, Detections, decoding, encode_xyxy, iou_xyxy

from .samples import small_spec

SPEC = small_spec()
SURE = 12.0


def outputs(images: int, background: float = 2.0) -> tuple[Tensor, Tensor]:
    logits = torch.randn(images, SPEC.count, 4) * 2
    logits[..., 0] += background
    return torch.randn(images, SPEC.count, 4), logits


def showing(boxes: Tensor, priors: list[int], labels: list[int], scores: list[float]) -> tuple[Tensor, Tensor]:
    """What a network says that shows these boxes at those priors."""
    offsets, logits = torch.zeros(1, SPEC.count, 4), torch.zeros(1, SPEC.count, 4)
    logits[..., 0] = SURE
    offsets[0, priors] = encode_xyxy(boxes, SPEC.priors_cxcywh()[priors], SPEC.variances)
    for prior, label, score in zip(priors, labels, scores, strict=True):
        rest = torch.tensor((1 - score) / 3)
        logits[0, prior] = rest.log()
        logits[0, prior, label] = torch.tensor(score).log()
    return offsets, logits


def same(first: Detections, second: Detections) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("boxes", "labels", "scores"))


def decode(offsets: Tensor, logits: Tensor, **config: float) -> list[Detections]:
    found: list[Detections] = Decoder(SPEC, DecodeConfig(**config))(offsets, logits)
    return found


TWO = torch.tensor([[20.0, 20.0, 40.0, 44.0], [21.0, 20.0, 41.0, 44.0]])


def test_what_is_shown_is_found() -> None:
    found = decode(*showing(TWO[:1], [100], [2], [0.7]), min_score=0.1)[0]
    torch.testing.assert_close(found.boxes, TWO[:1], rtol=0, atol=1e-3)
    assert found.labels.tolist() == [2]
    assert found.scores.tolist() == pytest.approx([0.7])


def test_one_object_is_found_once() -> None:
    found = decode(*showing(TWO, [100, 101], [2, 2], [0.6, 0.8]), min_score=0.2)[0]
    assert found.scores.tolist() == pytest.approx([0.8])


def test_classes_may_overlap_unless_they_may_not() -> None:
    shown = showing(TWO, [100, 101], [1, 2], [0.6, 0.8])
    assert decode(*shown, min_score=0.2)[0].labels.tolist() == [2, 1]
    assert decode(*shown, min_score=0.2, class_agnostic_iou=0.5)[0].labels.tolist() == [2]


def test_less_than_the_score_is_not_found() -> None:
    shown = showing(TWO, [100, 101], [1, 2], [0.6, 0.8])
    assert len(decode(*shown, min_score=0.7)[0]) == 1
    assert len(decode(*shown, min_score=0.9)[0]) == 0
    nothing = decode(*shown, min_score=0.9)[0]
    assert nothing.boxes.shape == (0, 4)


def test_a_box_outside_the_input_is_none() -> None:
    outside = torch.tensor([[-30.0, 10.0, -5.0, 30.0], [100.0, 20.0, 160.0, 60.0]])
    found = decode(*showing(outside, [0, 100], [1, 1], [0.9, 0.8]), min_score=0.1)[0]
    torch.testing.assert_close(found.boxes, torch.tensor([[100.0, 20.0, 128.0, 60.0]]), rtol=0, atol=1e-3)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 4), st.floats(-2, 6), st.integers(0, 2**31), st.sampled_from([None, 0.3]))
def test_a_batch_is_its_images_one_by_one(images: int, background: float, seed: int, across: float | None) -> None:
    torch.manual_seed(seed)
    offsets, logits = outputs(images, background)
    decoder = Decoder(SPEC, DecodeConfig(class_agnostic_iou=across))
    together = decoder(offsets, logits)
    assert len(together) == images
    for row, found in enumerate(together):
        alone = decoder(offsets[row : row + 1], logits[row : row + 1])[0]
        # A softmax of another length rounds its last numbers otherwise.
        torch.testing.assert_close(found.scores, alone.scores, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.boxes, alone.boxes, rtol=0, atol=1e-3)
        assert torch.equal(found.labels, alone.labels)
        check(found, decoder.config)


def check(found: Detections, config: DecodeConfig) -> None:
    """What holds for any detections."""
    height, width = SPEC.input_size
    assert len(found) <= config.max_detections
    assert bool((found.scores > config.min_score).all())
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)
    assert bool(((found.boxes >= 0) & (found.boxes <= torch.tensor([width, height] * 2))).all())
    assert bool((found.boxes[:, 2:] > found.boxes[:, :2]).all())
    overlap = iou_xyxy(found.boxes, found.boxes).fill_diagonal_(0)
    if config.class_agnostic_iou is None:
        overlap = overlap * (found.labels[:, None] == found.labels)
    assert (
        not len(found)
        or overlap.max() <= (config.nms_iou if config.class_agnostic_iou is None else config.class_agnostic_iou) + 1e-6
    )


def test_only_so_many_candidates_and_detections() -> None:
    offsets, logits = outputs(2, background=-3)
    everything = decode(offsets, logits, top_k_per_class=SPEC.count, max_detections=10_000)
    assert all(len(found) > 40 for found in everything)
    for few, all_of_it in zip(
        decode(offsets, logits, top_k_per_class=SPEC.count, max_detections=7), everything, strict=True
    ):
        assert torch.equal(few.scores, all_of_it.scores[:7])
    assert all(len(found) <= 3 for found in decode(offsets, logits, top_k_per_class=1))


@pytest.mark.parametrize("background", [-3.0, 2.0, 6.0, 100.0])
@pytest.mark.parametrize(
    "settings", [{}, {"class_agnostic_iou": 0.3}, {"max_detections": 5}, {"top_k_per_class": 30, "nms_iou": 0.1}]
)
@pytest.mark.parametrize(("images", "sharpness"), [(0, 1.0), (5, 1.0), (5, 12.0)])
def test_at_once_as_on_a_gpu_is_the_same_as_in_loops(
    background: float, settings: dict[str, float], images: int, sharpness: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets, logits = outputs(images, background)
    logits = (logits * sharpness).round() / sharpness if sharpness > 1 else logits  # many of the same score
    looped = decode(offsets, logits, **settings)
    monkeypatch.setattr(decoding, "prefer_loops", lambda _: False)
    at_once = decode(offsets, logits, **settings)
    assert len(at_once) == images
    for one, other in zip(looped, at_once, strict=True):
        assert same(one, other)


@pytest.mark.parametrize("keep", [1, 5, 20, 60, 300])
@pytest.mark.parametrize("across", [None, 0.2])
def test_the_first_few_give_what_all_would_give(keep: int, across: float | None) -> None:
    """Also where so much is suppressed that the first few do not suffice."""
    offsets, logits = outputs(3, background=-2)
    for overlap in (0.01, 0.3, 0.9):
        some = decode(offsets, logits, max_detections=keep, class_agnostic_iou=across, nms_iou=overlap)
        everything = decode(offsets, logits, max_detections=SPEC.count * 3, class_agnostic_iou=across, nms_iou=overlap)
        for few, whole in zip(some, everything, strict=True):
            assert same(few, Detections(whole.boxes[:keep], whole.labels[:keep], whole.scores[:keep]))


def test_a_network_that_finds_everything_alike_does_not_take_forever() -> None:
    offsets, logits = torch.zeros(2, SPEC.count, 4), torch.zeros(2, SPEC.count, 4)
    for found in decode(offsets, logits, top_k_per_class=10, nms_iou=1.0):
        assert len(found) == 30


def test_background_everywhere_is_nothing_found() -> None:
    offsets, logits = outputs(3, background=100.0)
    assert [len(found) for found in decode(offsets, logits)] == [0, 0, 0]


def test_half_precision_is_decoded_in_single() -> None:
    offsets, logits = (part.bfloat16() for part in outputs(1))
    assert same(decode(offsets, logits)[0], decode(offsets.float(), logits.float())[0])


def test_the_presets_are_those_of_the_paper_and_the_report() -> None:
    paper, report = DECODE_PRESETS["paper"], DECODE_PRESETS["epfl"]
    assert (paper.min_score, paper.nms_iou, paper.max_detections) == (0.01, 0.45, 200)
    assert (report.min_score, report.nms_iou, report.max_detections) == (0.01, 0.6, 200)


@pytest.mark.parametrize(
    "wrong",
    [{"min_score": 1.5}, {"nms_iou": -0.1}, {"max_detections": 0}, {"top_k_per_class": 0}, {"class_agnostic_iou": 2.0}],
)
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Decoding has"):
        DecodeConfig(**wrong)
