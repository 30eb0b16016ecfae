"""Blocks of an HTML page that needs nothing but itself: text that is always escaped, tables, pictures, sections.

The page carries its styles and pictures, and a policy that forbids a browser to fetch anything else.
"""

from __future__ import annotations

import io
import math
import re
from base64 import b64encode
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

from pipeline.imaging.drawing import class_rgb

__all__ = [
    "Html",
    "ImageLimit",
    "Section",
    "badge",
    "bytes_picture",
    "definition_list",
    "figure_tiles",
    "format_interval",
    "format_points",
    "join_html",
    "note",
    "picture",
    "render_page",
    "short_digest",
    "swatch",
    "table",
    "tag",
]

STYLESHEET: Final = Path(__file__).with_name("report.css")
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
)
JPEG_QUALITY: Final = 82
NUMBER: Final = re.compile(r"[-+]?[\d.,]+( ?%)?|-")
# Shares of a figure's pixels: as wide it is shown, so that all lettering is of one size, and no narrower: it scrolls.
DISPLAY_SCALE, MIN_DISPLAY_SCALE = 0.69, 0.45


class Html(str):
    """Text that is HTML already; any other text is escaped where it is put in."""

    __slots__ = ()


def join_html(*parts: str) -> Html:
    """Return parts one after the other, all that is no HTML yet escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def tag(name: str, *children: str, **attributes: str | int | None) -> Html:
    """Return an element; `class_` is its attribute class, and an attribute that is None is left out."""
    return Html(f"{_opening_tag(name, attributes)}{join_html(*children)}</{name}>")


def _opening_tag(name: str, attributes: Mapping[str, str | int | None]) -> str:
    told = (
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{''.join(told)}>"


# Numbers


def format_points(value: float | None) -> str:
    """Return a share as points of a hundred with one decimal: 64.4."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def format_interval(low: float | None, high: float | None) -> str:
    """Return an interval in points: 61.0-67.2; nothing if there is none, or if it was counted from nothing."""
    told = (format_points(low), format_points(high))
    return "" if "-" in told else "-".join(told)


def short_digest(digest: str) -> str:
    """Return as much of a digest as people compare."""
    return digest[:12]


# Blocks


@dataclass(frozen=True)
class Section:
    """A part of the page, which the table of contents leads to by its anchor."""

    anchor: str
    title: str
    body: Html


def note(*parts: str, kind: str = "note") -> Html:
    """Return a sentence that stands out; `kind` is note, todo or warning."""
    return tag("p", *parts, class_=kind)


def badge(text: str) -> Html:
    """Return a word that marks what it stands beside."""
    return tag("span", text, class_="badge")


def swatch(label: str) -> Html:
    """Return a class's name behind a dot in the colour that it is drawn in; no name is the mean over classes."""
    if not label:
        return Html("mean")
    red, green, blue = class_rgb(label)
    return join_html(tag("span", class_="dot", style=f"background:rgb({red},{green},{blue})"), label)


def definition_list(pairs: Sequence[tuple[str, str]]) -> Html:
    """Return names with what they are, those that are something."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs if value))


def figure_tiles(figures: Sequence[tuple[str, str, str]]) -> Html:
    """Return figures to see from afar: name, figure, and what to know about it."""
    tiles = (
        tag("div", tag("span", name, class_="name"), tag("strong", figure), tag("small", about), class_="tile")
        for name, figure, about in figures
    )
    return tag("div", *tiles, class_="tiles")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str, highlighted: Container[int] = ()) -> Html:
    """Return a table that scrolls in a box of its own where it is too wide; the first cell of a row is its name.

    Cells may be whole `td` elements. Of a column that has nothing but numbers, the digits stand below each other.
    """
    numbers = [all(_is_number(row[place]) for row in rows) for place in range(len(head))]
    kinds = ["number" if number else None for number in numbers]
    top = tag("tr", *(tag("th", name, scope="col", class_=kind) for name, kind in zip(head, kinds, strict=True)))
    body = (
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(_cell(cell, kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)),
            class_="marked" if place in highlighted else None,
        )
        for place, row in enumerate(rows)
    )
    whole = tag("table", tag("thead", top), tag("tbody", *body), aria_label=caption)
    scrolling = tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)
    return tag("figure", tag("figcaption", caption), scrolling, class_="tabular")


def _cell(cell: str, kind: str | None) -> Html:
    return cell if isinstance(cell, Html) and cell.startswith("<td") else tag("td", cell, class_=kind)


def _is_number(cell: str) -> bool:
    """Return whether a cell is a number, beside which something small may stand."""
    plain = re.sub(r"<small>.*?</small>", "", cell) if isinstance(cell, Html) else cell
    return NUMBER.fullmatch(plain.strip()) is not None or cell.startswith("<td")


# Pictures


@dataclass(frozen=True)
class ImageLimit:
    """How large a sheet of photos may be: pixels across, and bytes."""

    width: int
    size: int


def picture(path: Path, caption: str, limit: ImageLimit | None = None) -> Html:
    """Return a picture that the page carries, nothing where there is none that can be read.

    With a limit it is a sheet of photos, which becomes a JPEG within it; without, a figure as it is.
    """
    try:
        data = path.read_bytes()
        return bytes_picture(data, caption) if limit is None else bytes_picture(_shrink(data, limit), caption, "sheet")
    except (OSError, UnidentifiedImageError):
        return Html("")


def bytes_picture(data: bytes, caption: str, kind: str = "chart") -> Html:
    """Return a picture from its file's bytes, a PNG or a JPEG, on a light card: it is drawn on white paper."""
    with Image.open(io.BytesIO(data)) as image:
        (width, height), mime = image.size, f"image/{(image.format or 'png').lower()}"
    least = (
        f"width:{round(DISPLAY_SCALE * width)}px;min-width:{round(MIN_DISPLAY_SCALE * width)}px"
        if kind == "chart"
        else None
    )
    source = f"data:{mime};base64,{b64encode(data).decode()}"
    told: dict[str, str | int | None] = {"alt": caption}
    told |= {"width": width, "height": height, "loading": "lazy", "style": least, "src": source}
    card = tag("div", Html(_opening_tag("img", told)), class_="card", tabindex=0, role="region", aria_label=caption)
    return tag("figure", card, tag("figcaption", caption), class_=kind)


def _shrink(data: bytes, limit: ImageLimit) -> bytes:
    """Return a picture as a JPEG within the limit, no larger than it was."""
    with Image.open(io.BytesIO(data)) as image:
        photo, width = image.convert("RGB"), min(limit.width, image.width)
    while len(small := _jpeg(photo, width)) > limit.size and width > 1:
        # A picture with half the pixels takes more than half the bytes: some steps come near from above.
        width = max(1, int(width * max(0.5, math.sqrt(limit.size / len(small)))))
    return small


def _jpeg(photo: Image.Image, width: int) -> bytes:
    size = (width, max(1, round(photo.height * width / photo.width)))
    buffer = io.BytesIO()
    photo.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


# The page


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the whole page."""
    links = (tag("li", tag("a", section.title, href=f"#{section.anchor}")) for section in sections)
    bodies = (tag("section", tag("h2", part.title), part.body, id=part.anchor) for part in sections)
    head = join_html(
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{escape(CONTENT_SECURITY_POLICY)}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        tag("title", title),
        tag("style", Html(STYLESHEET.read_text(encoding="utf-8"))),
    )
    body = join_html(
        tag("header", tag("h1", title), tag("p", subtitle)),
        tag("nav", tag("ol", *links), aria_label="Contents"),
        tag("main", *bodies),
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}</head>\n<body>{body}</body>\n</html>\n'
