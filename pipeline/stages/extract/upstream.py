"""Checks that a stage's inputs are there and up to date."""

from __future__ import annotations

from pipeline.datasets.card import Card, parse_card
from pipeline.errors import FacadeError
from pipeline.storage.manifest import Manifest
from pipeline.storage.stage_folder import StageFolder

__all__ = ["require_up_to_date"]


def require_up_to_date(index: StageFolder, extract: StageFolder) -> Manifest:
    """Return the manifest of `extract`, or say that it is older than the `index` it was made from."""
    before, manifest = index.manifest(), extract.manifest()
    if before is None or manifest is None:
        missing = "index" if before is None else "extract"
        raise FacadeError(f"{index.work} has no finished {missing}; run `facade {missing}` on it first.")
    if manifest.settings.get("index") != before.digest:
        raise FacadeError(f"{extract.path} is older than {index.path}; run `facade extract --work {index.work}` first.")
    return manifest


def read_cards(index: StageFolder) -> dict[str, Card]:
    """Return the cards as `index` used them, by dataset."""
    rows = index.read("cards").to_pylist()
    return {row["dataset"]: parse_card(row["text"], f"of {row['dataset']} in {index.path}") for row in rows}


def index_digest(index: StageFolder) -> str:
    """Return the digest of the images that go in, or say that there are none."""
    return index.require_manifest().digest
