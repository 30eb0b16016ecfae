"""The blocks of the report page as plain data, without markup: `blocks.html.j2` has a macro for each kind."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Final, Literal, TypeAlias

__all__ = [
    "Block",
    "Cell",
    "CellOrText",
    "DefinitionList",
    "Figure",
    "MissingStage",
    "NextCommands",
    "Note",
    "Section",
    "SelectedPriors",
    "StaleStage",
    "Table",
    "Tile",
    "Tiles",
    "class_cell",
    "format_count",
    "format_percent",
    "make_section",
    "make_table",
    "short_digest",
]

NUMBER: Final = re.compile(r"[-+]?[\d.,]+( ?%)?|-")
# CSS pixels per pixel of a chart: the size that it is shown in, so that all charts have lettering of one size, and the
# smallest size, below which it scrolls.
DISPLAY_SCALE: Final = 0.69
MIN_DISPLAY_SCALE: Final = 0.45


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: the text.
        label: a class, after the text, with a dot in the colour that the class is drawn in.
        small: a second line in small letters.
        badge: a word in a badge after the text.
        tint: "right" or "wrong" colours the cell, the more the larger its `share` (0 to 1).
    """

    text: str = ""
    label: str = ""
    small: str = ""
    badge: str = ""
    tint: Literal["right", "wrong"] | None = None
    share: float = 0.0

    @property
    def is_number(self) -> bool:
        """Whether the cell holds a number, apart from the small line."""
        is_plain = not self.label and not self.badge
        return self.tint is not None or (is_plain and NUMBER.fullmatch(self.text.strip()) is not None)


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its header. It scrolls in a box of its own where it is too wide.

    Attributes:
        highlighted: index of the row that stands out.
    """

    kind: ClassVar[str] = "table"
    caption: str
    headers: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]
    highlighted: int | None = None

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headers):
                raise ValueError(f"a row of the table {self.caption!r} has {len(row)} cells, not {len(self.headers)}")

    @cached_property
    def numeric_columns(self) -> tuple[bool, ...]:
        """Whether a column holds nothing but numbers, whose digits are then aligned."""
        return tuple(all(row[column].is_number for row in self.rows) for column in range(len(self.headers)))


@dataclass(frozen=True)
class Figure:
    """An image that the page embeds.

    Attributes:
        source: its bytes as a data URI.
        caption: also the alternative text.
        width: in pixels of the file, as `height`.
        layout: a "chart" is shown in a fixed size, a "sheet" of photos as wide as the page.
    """

    kind: ClassVar[str] = "figure"
    source: str
    caption: str
    width: int
    height: int
    layout: Literal["chart", "sheet"] = "chart"

    @property
    def display_width(self) -> int:
        """The width of a chart on the page, in CSS pixels."""
        return round(DISPLAY_SCALE * self.width)

    @property
    def min_display_width(self) -> int:
        """The smallest width of a chart on the page, in CSS pixels."""
        return round(MIN_DISPLAY_SCALE * self.width)


@dataclass(frozen=True)
class Note:
    """A sentence."""

    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class SelectedPriors:
    """The set of priors that was selected, and why."""

    kind: ClassVar[str] = "selected_priors"
    name: str
    reason: str


@dataclass(frozen=True)
class Tile:
    """A number in large type, under its name or the class that it is of.

    Attributes:
        detail: what to know about the number, in small type.
    """

    value: str
    name: str = ""
    label: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Tiles:
    """A row of tiles."""

    kind: ClassVar[str] = "tiles"
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class DefinitionList:
    """Names with their values; those without a value are left out."""

    kind: ClassVar[str] = "definition_list"
    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class MissingStage:
    """What to run before there is something to show.

    Attributes:
        command: the command of the stage.
        stages_before: stages to run before it.
    """

    kind: ClassVar[str] = "missing_stage"
    command: str
    stages_before: tuple[str, ...] = ()


@dataclass(frozen=True)
class NextCommands:
    """The commands that are still to run, in order."""

    kind: ClassVar[str] = "next_commands"
    commands: tuple[str, ...]


@dataclass(frozen=True)
class StaleStage:
    """A stage whose tables are older than those of a stage that it reads, and the command that renews them."""

    kind: ClassVar[str] = "stale_stage"
    stage: str
    source: str
    command: str


CellOrText: TypeAlias = Cell | str

Block: TypeAlias = (
    Table | Figure | Note | SelectedPriors | Tiles | DefinitionList | MissingStage | NextCommands | StaleStage
)


@dataclass(frozen=True)
class Section:
    """A section of the page; the table of contents links to its anchor."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


def make_section(anchor: str, title: str, *blocks: Block | None) -> Section:
    """Make a section of the blocks that there are."""
    return Section(anchor, title, tuple(block for block in blocks if block is not None))


def make_table(
    headers: Iterable[CellOrText], rows: Iterable[Sequence[CellOrText]], caption: str, highlighted: int | None = None
) -> Table:
    """Make a table of cells and texts."""
    return Table(caption, _cells(headers), tuple(_cells(row) for row in rows), highlighted)


def _cells(values: Iterable[CellOrText]) -> tuple[Cell, ...]:
    return tuple(value if isinstance(value, Cell) else Cell(value) for value in values)


def class_cell(label: str) -> Cell:
    """Make the cell that names a class; the empty label is the mean over classes."""
    return Cell(label=label) if label else Cell("mean")


def format_count(number: int) -> str:
    """Format a count: `1,200`."""
    return f"{number:,}"


def format_percent(share: float | None) -> str:
    """Format a share in percent, without the sign: `64.4`, `-` if unknown."""
    return "-" if share is None or math.isnan(share) else f"{100 * share:.1f}"


def short_digest(digest: str) -> str:
    """Shorten a digest to the characters that people compare."""
    return digest[:12]
