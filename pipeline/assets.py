"""What comes along with facade-ssd: dataset cards by name, and a model that works without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["DEFAULT", "bundle_named", "is_shipped", "known_cards", "shipped_folder"]

DEFAULT: Final = "default"


def shipped_folder() -> Path:
    """Return the folder of what comes along: in the checkout, or in the installed package."""
    here = Path(__file__).parent
    return here / "cards" if (here / "cards").is_dir() else here.parent / "data"


def known_cards() -> dict[str, Path]:
    """Return the dataset cards that come along, by name."""
    return {path.stem: path for path in sorted(shipped_folder().glob("*.toml"))}


def bundle_named(name: str | Path) -> Path:
    """Return the folder of a bundle that a user named: a path, or the word for the model that comes along."""
    return shipped_folder() / "models" / DEFAULT if str(name) == DEFAULT else Path(name)


def is_shipped(folder: Path) -> bool:
    """Return whether a bundle came along, and so is not to be written to."""
    return folder.resolve() == bundle_named(DEFAULT).resolve()
