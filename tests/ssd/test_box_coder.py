"""Encode, then decode, is the identity; the numbers are the paper's and torchvision's."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from ssd import NO_VARIANCES, decode_offsets, encode_xyxy, preset, xyxy_to_cxcywh

from .samples import boxes_inside, random_boxes

VARIANCES = (0.1, 0.1, 0.2, 0.2)


@settings(deadline=None)
@given(boxes_inside(), st.sampled_from([VARIANCES, NO_VARIANCES]), st.integers(0, 2**31))
def test_there_and_back_is_the_identity(boxes: Tensor, variances: tuple[float, ...], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    priors = torch.rand(len(boxes), 4, generator=generator) * 90 + 5
    back = decode_offsets(encode_xyxy(boxes, priors, variances), priors, variances)
    torch.testing.assert_close(back, boxes, rtol=1e-5, atol=1e-3)


def test_equation_2_by_hand() -> None:
    box, prior = torch.tensor([[20.0, 10.0, 60.0, 30.0]]), torch.tensor([[30.0, 30.0, 20.0, 40.0]])
    plain = torch.tensor([[10 / 20, -10 / 40, math.log(2), math.log(0.5)]])
    torch.testing.assert_close(encode_xyxy(box, prior, NO_VARIANCES), plain)
    torch.testing.assert_close(encode_xyxy(box, prior, VARIANCES), plain / torch.tensor([0.1, 0.1, 0.2, 0.2]))


def test_the_same_as_torchvision() -> None:
    priors = preset("paper_coco").priors_xyxy()[::50]
    boxes, coder = random_boxes(len(priors), 300, 300), BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    offsets = encode_xyxy(boxes, xyxy_to_cxcywh(priors), VARIANCES)
    torch.testing.assert_close(offsets, coder.encode_single(boxes, priors), rtol=1e-4, atol=1e-4)
    wild = torch.randn(len(priors), 4) * 20
    theirs = coder.decode_single(wild, priors)
    torch.testing.assert_close(decode_offsets(wild, xyxy_to_cxcywh(priors), VARIANCES), theirs, rtol=1e-4, atol=1e-2)


def test_a_wild_output_stays_a_number() -> None:
    prior = torch.tensor([[50.0, 50.0, 20.0, 20.0]])
    assert decode_offsets(torch.full((1, 4), 1e6), prior, VARIANCES).isfinite().all()


@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4)])
def test_nothing_stays_nothing(shape: tuple[int, ...]) -> None:
    nothing = torch.zeros(shape)
    assert encode_xyxy(nothing, nothing, VARIANCES).shape == shape
    assert decode_offsets(nothing, nothing, VARIANCES).shape == shape
