"""The stages, one folder each, in the order in which they run.

A stage imports support layers and earlier stages only.
"""

from typing import Final

__all__ = ["STAGES"]

STAGES: Final = ("index", "extract", "describe", "priors", "train", "detect", "evaluate", "report")
