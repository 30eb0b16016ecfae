"""The order of classes."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["class_order"]

USUAL = ("building", "window", "door")


def class_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the classes in the order of their labels: the usual ones first."""
    return tuple(sorted(labels, key=lambda label: (USUAL.index(label) if label in USUAL else len(USUAL), label)))
