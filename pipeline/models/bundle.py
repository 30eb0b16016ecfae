"""Open a bundle that a user named, or refuse it in one sentence; describe it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pipeline.config import read_text
from pipeline.errors import FacadeError, UsageError
from ssd import Bundle, bundle_digest, load_bundle
from ssd.bundle import MODEL_FILE

__all__ = [
    "CARD_FILE",
    "LATEST_LINK",
    "bundle_info",
    "format_info",
    "latest_bundle",
    "open_bundle",
    "preprocessing_of",
    "trained_on_all_splits",
    "translate_errors",
]

CARD_FILE: Final = "card.md"
LATEST_LINK: Final = "latest"  # in WORK/train, to the run that was trained last


def open_bundle(folder: Path) -> Bundle:
    """Return a bundle that a user named, or say in one sentence why it cannot be used."""
    if not (folder / MODEL_FILE).is_file():
        advice = "name a folder as `facade model import` writes them"
        raise FacadeError(f"{folder} is not a model bundle ({MODEL_FILE} is missing); {advice}.")
    with translate_errors():
        return load_bundle(folder)


def latest_bundle(work: Path) -> Path:
    """Return where the bundle of a work folder's last training is, if there is one."""
    return work / "train" / LATEST_LINK / "bundle"


@contextmanager
def translate_errors(where: str = "") -> Iterator[None]:
    """Turn what the detector refuses into a sentence for the user."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise FacadeError(f"{where}: {_one_line(error)}" if where else _one_line(error)) from error


def bundle_info(folder: Path) -> dict[str, Any]:
    """Describe a bundle, its weights checked, as JSON values."""
    bundle = open_bundle(folder)
    config, model = bundle.model.config, bundle.model
    priors = config.priors
    return {
        "bundle": str(folder),
        "backbone": {**config.to_json()["backbone"], "maps": list(model.backbone.names)},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        "input_size": list(priors.input_size),
        "photos": preprocessing_of(folder),
        "classes": list(config.classes),
        "priors": {"name": priors.name, "count": priors.count, "counts_per_map": list(priors.counts_per_map)},
        "mean": list(config.mean),
        "std": list(config.std),
        "decode": asdict(bundle.decode),
        "trained": dict(bundle.trained),
        "digest": bundle_digest(folder),
    }


def trained_on_all_splits(training_info: Mapping[str, Any]) -> bool:
    """Return whether nothing was kept back from a training, so that no photo can tell how good it is."""
    return set(training_info.get("data", {}).get("photos", {})) == {"train"}


def preprocessing_of(folder: Path) -> dict[str, str]:
    """Return the preprocessing of photos of a bundle that could be opened."""
    rule: dict[str, str] = json.loads(read_text(folder / MODEL_FILE))["photos"]
    return rule


def format_info(info: Mapping[str, Any]) -> str:
    """Return facts as people read them, a line each."""
    backbone, priors, (height, width) = info["backbone"], info["priors"], info["input_size"]
    fusion = f", fusion {backbone['fusion']}" if backbone["fusion"] else ""
    trained = list(_flatten(info["trained"])) or ["nothing is known"]
    lines = {
        "backbone": f"{backbone['name']}, layout {backbone['layout']}{fusion}, maps {' '.join(backbone['maps'])}",
        "parameters": f"{info['parameters']:,}, {info['bytes'] / 1e6:.1f} MB on disk",
        "input": f"{height} high, {width} wide, {info['photos']['channels']}, {info['photos']['resize']}",
        "classes": f"{len(info['classes'])}: {', '.join(info['classes'])}",
        "priors": f"{priors['name']}, {priors['count']}: {' + '.join(map(str, priors['counts_per_map']))}",
        "normalised": f"mean {_format_numbers(info['mean'])}, std {_format_numbers(info['std'])}, of 0 to 1",
        "decoded": ", ".join(f"{key} {'none' if value is None else value}" for key, value in info["decode"].items()),
        "trained": f"\n{'':14s}".join(trained),
        "digest": info["digest"],
    }
    return "\n".join([info["bundle"], *(f"  {key:11s} {value}" for key, value in lines.items())])


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif value not in ([], None, ""):
            yield f"{prefix}{key} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def _format_numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
