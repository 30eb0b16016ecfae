"""Priors are those of the paper as it was released, of torchvision and of the report; a wrong spec is a sentence."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from ssd import (
    PRESETS,
    PriorMap,
    PriorSpec,
    area_xyxy,
    clamp_shapes,
    clip_xyxy,
    cxcywh_to_xyxy,
    paper_formula,
    preset,
    shapes_at,
    with_inverses,
)

RATIOS = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]
SCALES = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
MAPS_300 = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]


def torchvision_xyxy(spec: PriorSpec, **settings: Any) -> torch.Tensor:
    """The boxes that torchvision's generator makes on the maps of a spec."""
    generator = DefaultBoxGenerator(RATIOS, **settings)
    maps = [torch.zeros((1, 1, *level.size)) for level in spec.maps]
    (boxes,) = generator(ImageList(torch.zeros((1, 3, *spec.input_size)), [spec.input_size]), maps)
    return boxes


@pytest.mark.parametrize(
    ("name", "per_map"),
    [
        ("paper_voc", (5776, 2166, 600, 150, 36, 4)),
        ("paper_coco", (5776, 2166, 600, 150, 36, 4)),
        ("paper_512_voc", (16384, 6144, 1536, 384, 96, 16, 4)),
        ("paper_512_coco", (16384, 6144, 1536, 384, 96, 16, 4)),
        ("epfl_code", (5776, 2166, 600, 150, 36, 4)),
        ("epfl_table", (5776, 2166, 600, 150, 54, 6)),
    ],
)
def test_every_preset_has_its_count(name: str, per_map: tuple[int, ...]) -> None:
    spec = preset(name)
    assert spec.name == name
    assert spec.counts_per_map == per_map
    assert spec.count == sum(per_map) == len(spec.priors_cxcywh()) == len(spec.priors_xyxy())
    assert spec.count == {"paper_512_voc": 24564, "paper_512_coco": 24564, "epfl_table": 8752}.get(name, 8732)


def test_the_presets_are_all_tested_and_the_table_owns_its_contradiction() -> None:
    assert PRESETS == ("paper_voc", "paper_coco", "paper_512_voc", "paper_512_coco", "epfl_table", "epfl_code")
    assert [name for name in PRESETS if preset(name).note] == ["epfl_table"]
    assert "8752 priors by this table, 8732 by the report's Table II" in preset("epfl_table").note
    with pytest.raises(ValueError, match=r"presets of priors are paper_voc, .*; got 'voc'"):
        preset("voc")


@pytest.mark.parametrize(
    ("name", "sizes", "steps"),
    [
        ("paper_voc", (30, 60, 111, 162, 213, 264, 315), (8, 16, 32, 64, 100, 300)),
        ("paper_coco", (21, 45, 99, 153, 207, 261, 315), (8, 16, 32, 64, 100, 300)),
        ("paper_512_voc", (35.84, 76.8, 153.6, 230.4, 307.2, 384, 460.8, 537.6), (8, 16, 32, 64, 128, 256, 512)),
        (
            "paper_512_coco",
            (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
            (8, 16, 32, 64, 128, 256, 512),
        ),
    ],
)
def test_the_released_numbers(name: str, sizes: tuple[float, ...], steps: tuple[int, ...]) -> None:
    maps = preset(name).maps
    assert [level.step for level in maps] == [(step, step) for step in steps]
    for level, least, most in zip(maps, sizes[:-1], sizes[1:], strict=True):
        ratios = (2, 0.5, 3, 1 / 3)[: len(level.shapes) - 2]
        squares = [(least, least), (sqrt(least * most), sqrt(least * most))]
        expected = squares + [(least * sqrt(ratio), least / sqrt(ratio)) for ratio in ratios]
        np.testing.assert_allclose(level.shapes, expected)


def test_paper_coco_is_what_ssd300_vgg16_of_torchvision_looks_at() -> None:
    spec, steps = preset("paper_coco"), [8, 16, 32, 64, 100, 300]
    expected = torchvision_xyxy(spec, scales=SCALES, steps=steps, clip=False)
    torch.testing.assert_close(spec.priors_xyxy(), expected, rtol=0, atol=1e-3)
    limited = torchvision_xyxy(spec, scales=SCALES, steps=steps, clip=True)
    torch.testing.assert_close(clamp_shapes(spec).priors_xyxy(), limited, rtol=0, atol=1e-3)
    assert not torch.allclose(expected, limited)


def test_the_formula_is_that_of_torchvision_where_height_is_not_width() -> None:
    ratios = [with_inverses(*row) for row in RATIOS]
    spec = paper_formula((200, 320), [(25, 40), (13, 20), (7, 10), (4, 5), (2, 3), (1, 1)], ratios)
    scales = [0.2 + 0.14 * k for k in range(7)]
    expected = torchvision_xyxy(spec, scales=scales, clip=False)
    torch.testing.assert_close(spec.priors_xyxy(), expected, rtol=0, atol=1e-3)


def test_released_steps_where_height_is_not_width() -> None:
    height, width = 200, 320
    grids = [(25, 40), (13, 20), (7, 10), (4, 5), (2, 4), (1, 2)]
    steps = [8, 16, 32, 64, 100, 160]
    levels = []
    for k, (grid, step) in enumerate(zip(grids, steps, strict=True)):
        between = sqrt(SCALES[k] * SCALES[k + 1])
        scale, square = (SCALES[k] * width, SCALES[k] * height), (between * width, between * height)
        levels.append(PriorMap(grid, (step, step), shapes_at(scale, square, with_inverses(*RATIOS[k]))))
    spec = PriorSpec("wide", (height, width), tuple(levels))
    expected = torchvision_xyxy(spec, scales=SCALES, steps=steps, clip=False)
    torch.testing.assert_close(spec.priors_xyxy(), expected, rtol=0, atol=1e-3)


def test_the_formula_has_the_scales_and_centres_of_the_paper() -> None:
    spec = paper_formula((300, 300), MAPS_300, [with_inverses(2)] * 6)
    np.testing.assert_allclose([level.shapes[0][0] / 300 for level in spec.maps], [0.2, 0.34, 0.48, 0.62, 0.76, 0.9])
    np.testing.assert_allclose(spec.maps[5].shapes[1], [300 * sqrt(0.9 * 1.04)] * 2)
    np.testing.assert_allclose(spec.maps[1].cxcywh_array()[0, :2], [0.5 / 19 * 300] * 2)
    with pytest.raises(ValueError, match="two maps or more, each with ratios; got 1, 1"):
        paper_formula((300, 300), [(38, 38)], [[1]])


def test_the_code_of_the_report() -> None:
    maps = preset("epfl_code").maps
    side = 300 * 0.02
    between = 300 * sqrt(0.02 * 0.03)
    narrow = [(side * sqrt(ratio), side / sqrt(ratio)) for ratio in (0.4, 0.333)]
    np.testing.assert_allclose(maps[0].shapes, [(side, side), (between, between), *narrow])
    assert [len(level.shapes) for level in maps] == [4, 6, 6, 6, 4, 4]
    # The square after the last scale is the whole input, and 240 x sqrt(2) = 339 pixels are limited to it.
    np.testing.assert_allclose(maps[5].shapes[1:], [(300, 300), (300, 240 / sqrt(2)), (240 / sqrt(2), 300)])
    np.testing.assert_allclose(maps[0].cxcywh_array()[-1, :2], [37.5 / 38 * 300] * 2)


def test_the_order_is_map_row_column_shape() -> None:
    spec = PriorSpec(
        "tiny", (20, 60), (PriorMap((2, 3), (10, 20), ((4, 8), (6, 2))), PriorMap((1, 1), (20, 60), ((5, 7),)))
    )
    assert spec.priors_cxcywh()[[0, 1, 2, 6, 11, 12]].tolist() == [
        [10, 5, 4, 8],
        [10, 5, 6, 2],
        [30, 5, 4, 8],
        [10, 15, 4, 8],
        [50, 15, 6, 2],
        [30, 10, 5, 7],
    ]
    assert spec.priors_xyxy()[0].tolist() == [8, 1, 12, 9]


def test_a_stride_of_four_pixels_goes_first() -> None:
    base = preset("paper_coco")
    fine = PriorMap((75, 75), (4, 4), ((8, 8), (8, 14), (11, 11), (11, 19)))
    spec = replace(base, name="fine", maps=(fine, *base.maps))
    assert spec.count == 75 * 75 * 4 + 8732
    assert spec.priors_cxcywh()[0].tolist() == [2, 2, 8, 8]
    assert torch.equal(spec.priors_cxcywh()[75 * 75 * 4 :], base.priors_cxcywh())
    assert spec.cxcywh_array()[: 75 * 75 * 4, :2].max() == 298


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("clip", [False, True])
def test_both_formats_are_the_same_boxes(name: str, clip: bool) -> None:
    spec = replace(preset(name), clip=clip)
    assert spec.priors_cxcywh().dtype == spec.priors_xyxy().dtype == torch.float32
    assert spec.cxcywh_array().dtype == spec.xyxy_array().dtype == np.float64
    torch.testing.assert_close(cxcywh_to_xyxy(spec.priors_cxcywh()), spec.priors_xyxy(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", PRESETS)
def test_clipping_cuts_at_the_border_and_leaves_no_prior_without_area(name: str) -> None:
    free = preset(name)
    cut = replace(free, clip=True)
    height, width = free.input_size
    torch.testing.assert_close(cut.priors_xyxy(), clip_xyxy(free.priors_xyxy(), height, width), rtol=0, atol=1e-4)
    assert bool((free.priors_xyxy() < 0).any())
    assert area_xyxy(cut.priors_xyxy()).min() > 0
    assert cut.priors_cxcywh()[:, 2:].min() > 0


@pytest.mark.parametrize("name", PRESETS)
def test_json_gives_back_an_equal_spec(name: str) -> None:
    spec = preset(name)
    again = PriorSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert hash(again) == hash(spec)
    assert np.array_equal(again.cxcywh_array(), spec.cxcywh_array())


SIDES = st.floats(0.5, 400)
LEVELS = st.builds(
    lambda rows, columns, shapes: PriorMap((rows, columns), (200 / rows, 320 / columns), tuple(shapes)),
    st.integers(1, 6),
    st.integers(1, 6),
    st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=3),
)
SPECS = st.builds(
    lambda levels, clip: PriorSpec("drawn", (200, 320), tuple(levels), clip=clip),
    st.lists(LEVELS, min_size=1, max_size=3),
    st.booleans(),
)


@settings(deadline=None)
@given(SPECS)
def test_any_spec_goes_through_json_and_has_its_count(spec: PriorSpec) -> None:
    assert PriorSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert spec.priors_cxcywh().shape == (spec.count, 4)
    assert area_xyxy(spec.priors_xyxy()).min() > 0
    boxes = spec.xyxy_array()
    if spec.clip:
        assert boxes.min() >= 0
        assert (boxes.max(axis=0) <= [320, 200, 320, 200]).all()


def test_lists_and_numpy_numbers_are_taken_for_what_they_are() -> None:
    level = PriorMap([np.int64(2), 3], [10, np.float32(20)], [[4, 8]])  # type: ignore[arg-type]
    assert level == PriorMap((2, 3), (10.0, 20.0), ((4.0, 8.0),))
    assert json.dumps(PriorSpec("a", (20, 60), (level,)).to_json())


GOOD = PriorMap((2, 3), (10, 20), ((4, 8),))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: replace(GOOD, size=(2, 0)),
            r"size of a prior map, \(rows, columns\), is two whole numbers .*\(2, 0\)",
        ),
        (lambda: replace(GOOD, size=(2.5, 3)), "whole numbers above zero; got"),
        (lambda: replace(GOOD, size=(True, 3)), "whole numbers above zero; got"),
        (lambda: replace(GOOD, step=8), r"step of a prior map, \(down, across\), is 2 finite numbers .*; got 8"),
        (lambda: replace(GOOD, step=(8, float("inf"))), "finite numbers above zero; got"),
        (lambda: replace(GOOD, shapes=()), r"at least one shape, \(width, height\) in pixels; got \(\)"),
        (lambda: replace(GOOD, shapes=((4, -8),)), r"shape of a prior map, \(width, height\), is 2 .*\(4, -8\)"),
        (lambda: replace(GOOD, shapes=((4, float("nan")),)), "finite numbers above zero; got"),
        (lambda: replace(GOOD, shapes=("48",)), "finite numbers above zero; got '48'"),
        (lambda: PriorSpec("", (20, 60), (GOOD,)), "name of a prior spec is a text that is not empty; got ''"),
        (lambda: PriorSpec("a", (20, 60, 3), (GOOD,)), r"input size of a prior spec, \(height, width\), is two"),
        (lambda: PriorSpec("a", (20, 60), ()), r"maps of prior spec a are one PriorMap or more; got \(\)"),
        (lambda: PriorSpec("a", (20, 60), ("b",)), "maps of prior spec a are one PriorMap or more"),
        (lambda: PriorSpec("a", (20, 60), (GOOD,), clip=1), "clip of prior spec a is true or false; got 1"),
        (lambda: PriorSpec("a", (20, 60), (GOOD,), note=None), "note of prior spec a is a text; got None"),
        (lambda: PriorSpec("a", (20, 60), (GOOD,), variances=(0.1, 0.2)), "variances of a prior spec, .* is 4 finite"),
        (lambda: PriorSpec("a", (60, 20), (GOOD,)), "3 columns of a prior map at step 20 begin inside the 20 pixels"),
        (lambda: PriorSpec("a", (10, 60), (GOOD,)), "2 rows of a prior map at step 10 begin inside the 10 .* at 10"),
        (
            lambda: PriorSpec("a", (11, 60), (GOOD,), clip=True),
            "keeps some area; got one 8 pixels large around 15 of 11",
        ),
    ],
)
def test_a_wrong_spec_is_a_sentence(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": 1}, r"prior spec has the keys clip, .*; got \['clip', 'colour'"),
        ({"version": 2}, "has version 1; got 2: another release wrote it"),
        ({"maps": "many"}, "maps of a prior spec are a list; got 'many'"),
        ({"maps": [{"size": [1, 1]}]}, r"prior map has the keys shapes, size, step; got \['size'\]"),
        ({"maps": [7]}, "prior map has the keys shapes, size, step; got 7"),
        ({"clip": "no"}, "clip of prior spec paper_voc is true or false; got 'no'"),
        ({"input_size": {"height": 300}}, "is two whole numbers above zero; got {'height': 300}"),
    ],
)
def test_wrong_json_is_a_sentence(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PriorSpec.from_json({**preset("paper_voc").to_json(), **change})


def test_json_that_is_no_object_or_lacks_a_key_is_a_sentence() -> None:
    data = preset("paper_voc").to_json()
    del data["note"]
    for wrong in (data, [data], None):
        with pytest.raises(ValueError, match="A prior spec has the keys"):
            PriorSpec.from_json(wrong)  # type: ignore[arg-type]
