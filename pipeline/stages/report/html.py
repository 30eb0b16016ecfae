"""Render the page from its sections: Jinja2 templates with autoescape, so that text from data never becomes markup.

The page embeds its styles and images, and its Content-Security-Policy forbids a browser to load anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.imaging.drawing import class_rgb
from pipeline.stages.report.blocks import Section

__all__ = ["render_page"]

TEMPLATES: Final = Path(__file__).parent
STYLESHEET: Final = TEMPLATES / "report.css"


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Render the page; the same sections give the same text."""
    stylesheet = Markup(STYLESHEET.read_text(encoding="utf-8"))  # the only markup that is not from a template
    template = _environment().get_template("page.html.j2")
    return template.render(title=title, subtitle=subtitle, sections=sections, stylesheet=stylesheet)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["class_colour"] = _class_colour
    return environment


def _class_colour(label: str) -> str:
    """Return the colour that a class is drawn in, in CSS."""
    red, green, blue = class_rgb(label)
    return f"rgb({red},{green},{blue})"
