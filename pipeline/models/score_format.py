"""Scores as text: average precision in percent, with its interval."""

from __future__ import annotations

import math

__all__ = ["format_ap", "format_ap_interval"]


def format_ap(
    value: float | None, low: float | None = None, high: float | None = None, interval_decimals: int = 1
) -> str:
    """Format an average precision in percent, with its interval if given: `64.4 (61.0 to 67.2)`; `-` if unknown."""
    if value is None or math.isnan(value):
        return "-"
    interval = format_ap_interval(low, high, interval_decimals)
    return f"{100 * value:.1f} ({interval})" if interval else f"{100 * value:.1f}"


def format_ap_interval(low: float | None, high: float | None, decimals: int = 1) -> str:
    """Format an interval in percent: `61.0 to 67.2`; empty if there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return ""
    return f"{100 * low:.{decimals}f} to {100 * high:.{decimals}f}"
