"""The page as HTML: text from data is escaped, and columns of numbers are aligned."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from typing import get_args

import pytest

from pipeline.models.score_format import format_ap, format_ap_interval
from pipeline.stages.report.blocks import (
    Block,
    Cell,
    DefinitionList,
    Figure,
    MissingStage,
    NextCommands,
    Note,
    Section,
    SelectedPriors,
    StaleStage,
    Table,
    Tile,
    Tiles,
    format_percent,
    make_table,
)
from pipeline.stages.report.html import TEMPLATES, render_page

EVIL = """<script>alert(1)</script>"onload='x'&"""
EVIL_BLOCKS: tuple[Block, ...] = (
    make_table([EVIL], [[EVIL], [Cell(EVIL, EVIL, EVIL, EVIL)]], EVIL),
    Figure("data:image/png;base64,", EVIL, 1, 1),
    Note(EVIL),
    SelectedPriors(EVIL, EVIL),
    Tiles((Tile(EVIL, EVIL, "", EVIL), Tile(EVIL, "", EVIL, EVIL))),
    DefinitionList(((EVIL, EVIL),)),
    MissingStage(EVIL, (EVIL, EVIL)),
    NextCommands((EVIL,)),
    StaleStage(EVIL, EVIL, EVIL),
)
ATTRIBUTES = {
    "alt",
    "aria-label",
    "charset",
    "class",
    "content",
    "height",
    "href",
    "http-equiv",
    "id",
    "lang",
    "loading",
}
ATTRIBUTES |= {"name", "role", "scope", "src", "style", "tabindex", "width"}


def render(*blocks: Block) -> str:
    return render_page("title", "subtitle", [Section("anchor", "section", blocks)])


class PageParser(HTMLParser):
    """Collects the elements and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_escapes_text_from_data() -> None:
    blocks = (DefinitionList(((EVIL, EVIL),)), make_table([EVIL], [[EVIL]], EVIL), Note(EVIL))
    page = render_page(EVIL, EVIL, [Section("a", EVIL, blocks)])
    assert "<script" not in page
    assert "onload='" not in page
    assert page.count("&lt;script&gt;") == 13


@pytest.mark.parametrize("block", EVIL_BLOCKS, ids=lambda block: block.kind)
def test_every_block_escapes_text_from_data(block: Block) -> None:
    page = render(block)
    parser = PageParser(page)
    assert EVIL not in page
    assert "script" not in parser.elements
    assert parser.attributes <= ATTRIBUTES
    assert EVIL in parser.text


def test_evil_blocks_are_of_every_kind() -> None:
    assert {type(block) for block in EVIL_BLOCKS} == set(get_args(Block))


def test_templates_never_switch_escaping_off() -> None:
    templates = sorted(TEMPLATES.glob("*.j2"))
    assert len(templates) == 2
    for path in templates:
        assert not re.search(r"\bsafe\b|autoescape", path.read_text()), path


def test_markup_in_text_is_only_text() -> None:
    page = render(Note("a<b <i>&</i> &amp;"))
    assert '<p class="note">a&lt;b &lt;i&gt;&amp;&lt;/i&gt; &amp;amp;</p>' in page


def test_numbers_in_percent() -> None:
    numbers = (0.6437, None, math.nan, 1)
    expected = ("64.4", "-", "-", "100.0")
    assert tuple(map(format_percent, numbers)) == expected
    assert tuple(map(format_ap, numbers)) == expected
    intervals = ((0.61, 0.672), (None, 0.5), (math.nan, 0.5))
    assert [format_ap_interval(low, high) for low, high in intervals] == ["61.0 to 67.2", "", ""]


def test_only_columns_of_numbers_are_aligned() -> None:
    page = render(make_table(["name", "count", "word"], [["a", "1,200", "7"], ["b", "-", "x"]], ""))
    assert re.findall(r'<th scope="col"( class="number")?>', page) == ["", ' class="number"', ""]
    assert page.count('<td class="number">') == 2


def test_cells_with_more_than_a_number_are_no_numbers() -> None:
    assert [Cell("64.4", small="61 to 67").is_number, Cell("12 %").is_number] == [True, True]
    assert not any(cell.is_number for cell in (Cell("7", badge="selected"), Cell("7", label="door"), Cell("")))


def test_a_table_with_rows_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a row of the table 'boxes' has 1 cells, not 2"):
        Table("boxes", (Cell("a"), Cell("b")), ((Cell("a"),),))


def test_highlighted_row_is_marked() -> None:
    page = render(make_table(["name"], [["first"], ["second"]], "", 1))
    assert re.findall(r'<tr class="marked">\s*<th scope="row">(.*?)</th>', page) == ["second"]


def test_the_same_sections_give_the_same_page() -> None:
    assert render(*EVIL_BLOCKS) == render(*EVIL_BLOCKS)
