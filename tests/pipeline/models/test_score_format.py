"""Scores as text."""

import pytest

from pipeline.models.score_format import format_ap, format_ap_interval


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.6437,), "64.4"),
        ((0.6437, 0.61, 0.672), "64.4 (61.0 to 67.2)"),
        ((0.6437, 0.61, 0.672, 0), "64.4 (61 to 67)"),
        ((1.0, None, None), "100.0"),
        ((None, 0.5, 0.6), "-"),
        ((float("nan"),), "-"),
    ],
)
def test_format_ap(values: tuple[float | None, ...], text: str) -> None:
    assert format_ap(*values) == text  # type: ignore[arg-type]


@pytest.mark.parametrize("interval", [(None, 0.5), (0.5, None), (float("nan"), 0.5)])
def test_format_ap_interval_unknown_is_empty(interval: tuple[float | None, float | None]) -> None:
    assert format_ap_interval(*interval) == ""
