"""Packaged assets: dataset cards by name, and the bundled default model."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["DEFAULT_MODEL", "assets_folder", "is_packaged", "packaged_cards", "resolve_bundle"]

DEFAULT_MODEL: Final = "default"


def assets_folder() -> Path:
    """Return the folder of the packaged assets: in the checkout, or in the installed package."""
    here = Path(__file__).parent
    return here / "cards" if (here / "cards").is_dir() else here.parent / "data"


def packaged_cards() -> dict[str, Path]:
    """Return the dataset cards that come along, by name."""
    return {path.stem: path for path in sorted(assets_folder().glob("*.toml"))}


def resolve_bundle(name: str | Path) -> Path:
    """Return the folder of a bundle that a user named: a path, or `default` for the bundled default model."""
    return assets_folder() / "models" / DEFAULT_MODEL if str(name) == DEFAULT_MODEL else Path(name)


def is_packaged(folder: Path) -> bool:
    """Return whether a bundle is installed with the package, and so is not to be written to."""
    return folder.resolve() == resolve_bundle(DEFAULT_MODEL).resolve()
