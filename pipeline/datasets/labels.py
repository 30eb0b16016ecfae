"""The order of classes."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["class_order"]

DEFAULT_CLASS_ORDER = ("building", "window", "door")


def class_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the classes in the order of their labels: the usual ones first."""
    return tuple(
        sorted(
            labels,
            key=lambda label: (
                DEFAULT_CLASS_ORDER.index(label) if label in DEFAULT_CLASS_ORDER else len(DEFAULT_CLASS_ORDER),
                label,
            ),
        )
    )
