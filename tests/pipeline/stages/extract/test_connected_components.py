"""Regions on runs equal skimage's on pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label, regionprops

from pipeline.imaging.run_length import encode_runs
from pipeline.stages.extract.connected_components import bridge_gaps, find_regions

MASKS = arrays(np.uint8, st.tuples(st.integers(1, 16), st.integers(1, 16)), elements=st.integers(0, 3))


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_regions_are_those_of_skimage(mask: np.ndarray) -> None:
    runs = encode_runs(mask)
    found = find_regions(runs.select(runs.values > 0))
    expected = [
        (mask[tuple(region.coords[0])], (region.bbox[1], region.bbox[0], region.bbox[3], region.bbox[2]), region.area)
        for region in regionprops(label(mask, connectivity=2, background=0))
    ]
    assert [(v, tuple(b), a) for v, b, a in zip(found.values, found.xyxy, found.areas, strict=True)] == expected


@settings(deadline=None)
@given(MASKS)
def test_runs_give_back_the_image(mask: np.ndarray) -> None:
    runs = encode_runs(mask)
    assert (runs.to_array() == mask).all()
    assert runs.lengths.sum() == mask.size


def test_an_image_without_regions_has_none() -> None:
    runs = encode_runs(np.zeros((5, 7), np.uint8))
    found = find_regions(runs.select(runs.values > 0))
    assert found.xyxy.shape == (0, 4)
    assert len(found.values) == len(found.areas) == 0


@pytest.mark.parametrize("codes", [np.uint8, np.uint16, np.uint32, np.int32])
def test_one_pixel_is_one_pixel_wide(codes: type) -> None:
    mask = np.zeros((4, 4), codes)
    mask[2, 1] = 200
    runs = encode_runs(mask)
    assert find_regions(runs.select(runs.values > 0)).xyxy.tolist() == [[1, 2, 2, 3]]


def test_a_short_gap_behind_an_occluder_is_closed_and_a_long_or_free_one_is_not() -> None:
    wall, post, sky = 1, 2, 0
    row = [wall, wall, post, wall, post, post, post, wall, sky, wall, post, sky]
    runs = encode_runs(np.array([row], np.uint8))
    closed = bridge_gaps(runs.values, runs, runs.values == post, max_gap=2)
    negative = runs.values.astype(int) - 9
    assert (bridge_gaps(negative, runs, runs.values == post, max_gap=9) == negative).all()
    filled = np.repeat(closed, runs.lengths).tolist()
    assert filled == [wall, wall, wall, wall, post, post, post, wall, sky, wall, post, sky]


def test_a_gap_is_not_closed_across_rows() -> None:
    runs = encode_runs(np.array([[0, 1, 2], [2, 1, 0]], np.uint8))
    assert (bridge_gaps(runs.values, runs, runs.values == 2, max_gap=9) == runs.values).all()
