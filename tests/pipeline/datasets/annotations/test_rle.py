"""COCO's run-length masks compared with pycocotools, in both forms."""

from typing import Any

import numpy as np
import pytest

from pipeline.datasets.annotations.rle import rle_bounds, unpack_counts
from pipeline.errors import BadInputError


def runs_of(mask: np.ndarray) -> list[int]:
    """The runs down the columns, written the slow way."""
    runs, value = [0], 0
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            runs, value = [*runs, 0], pixel
        runs[-1] += 1
    return runs


def masks() -> list[np.ndarray]:
    random = np.random.default_rng(7)
    found = [random.random((h, w)) < p for h, w in ((1, 1), (9, 4), (5, 40)) for p in (0.02, 0.5, 0.98)]
    found += [np.zeros((6, 7), bool), np.ones((6, 7), bool), np.eye(8, dtype=bool)]
    for _ in range(30):
        mask = np.zeros((40, 60), bool)
        x0, x1 = sorted(random.integers(0, 61, 2))
        y0, y1 = sorted(random.integers(0, 41, 2))
        mask[y0:y1, x0:x1] = random.random((y1 - y0, x1 - x0)) < 0.7
        found.append(mask)
    large = np.zeros((1500, 2000), bool)  # runs of several characters
    large[1, 3], large[900:1400, 700:1999] = True, True
    return [*found, large]


def test_both_forms_have_the_bounds_of_the_set_pixels() -> None:
    mask_api = pytest.importorskip("pycocotools.mask")
    for mask in masks():
        height, width = mask.shape
        packed = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
        text = packed["counts"].decode()
        runs = unpack_counts(text, "it")
        if mask.size < 10_000:
            assert runs == runs_of(mask)
        x, y, w, h = mask_api.toBbox(packed).tolist()
        rows, columns = np.nonzero(mask)
        inside = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if mask.any() else (0, 0, 0, 0)
        assert (x, y, x + w, y + h) == inside
        for counts in (text, runs):
            assert rle_bounds({"size": [height, width], "counts": counts}, width, height, "it") == inside


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ({"size": [3, 4], "counts": [12]}, r"is a mask of \[height, width\] \[3, 4\] and its photo has \[4, 3\]"),
        ({"counts": [12]}, "is a mask of"),
        ({"size": [4, 3]}, "no list of runs"),
        ({"size": [4, 3], "counts": [13]}, "runs of 13 pixels, expected 12"),
        ({"size": [4, 3], "counts": [5, 5]}, "runs of 10 pixels, expected 12"),
        ({"size": [4, 3], "counts": [13, -1]}, "no list of runs"),
        ({"size": [4, 3], "counts": [12.0]}, "no list of runs"),
        ({"size": [4, 3], "counts": [True, 11]}, "no list of runs"),
        ({"size": [4, 3], "counts": {"0": 12}}, "no list of runs"),
        ({"size": [4, 3], "counts": "P"}, "break off"),
        ({"size": [4, 3], "counts": "oooooooooo0"}, "no packed runs"),
        ({"size": [4, 3], "counts": "<é"}, "no packed runs"),
        ({"size": [4, 3], "counts": "O"}, "no list of runs"),  # minus one
        ({"size": [4, 3], "counts": ""}, "runs of 0 pixels"),
    ],
)
def test_a_broken_mask_is_refused_with_a_reason(segmentation: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInputError, match=reason):
        rle_bounds(segmentation, 3, 4, "it")
