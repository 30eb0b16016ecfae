"""Load prior specs by name: a preset or a JSON file."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.config import read_text
from pipeline.errors import FacadeError, UsageError
from ssd import PRESETS, PriorSpec, preset

__all__ = ["load_prior_spec"]


def load_prior_spec(name: str | None) -> PriorSpec | None:
    """Return the priors of a preset's name, or of a JSON file: a spec, or the chosen one of `priors`."""
    if name is None or name in PRESETS:
        return None if name is None else preset(name)
    if not name.endswith(".json"):
        raise UsageError(f"--priors {name!r} is neither a preset ({', '.join(PRESETS)}) nor a file named *.json.")
    try:
        data = json.loads(read_text(Path(name)))
        return PriorSpec.from_json(data["specs"][data["chosen"]] if "chosen" in data else data)
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FacadeError(
            f"{name} has no priors ({type(error).__name__}: {' '.join(str(error).split())}); give the priors.json of "
            "`facade priors`, or the JSON of one prior spec."
        ) from None
