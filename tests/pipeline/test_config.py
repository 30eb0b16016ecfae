"""Settings: file, then --set, unknown names refused with a sentence."""

from pathlib import Path

import pytest

from pipeline.config import load_tables, resolve_settings
from pipeline.errors import UsageError
from pipeline.stages.extract.stage import ExtractConfig


def test_set_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[extract]\nrecipe = "epfl"\npreviews = 3\n')
    tables = load_tables(path, ["extract.recipe=components", "extract.bridge=0.1"])
    assert resolve_settings(ExtractConfig, tables, "extract") == ExtractConfig(
        recipe="components", previews=3, bridge=0.1
    )


def test_nothing_given_is_the_defaults() -> None:
    assert resolve_settings(ExtractConfig, load_tables(None, []), "extract") == ExtractConfig()


@pytest.mark.parametrize(
    ("assignment", "word"),
    [
        ("extract.recipe", "stage.key=value"),
        ("recipe=epfl", "stage.key=value"),
        ("extrakt.recipe=epfl", "unknown stage 'extrakt'"),
    ],
)
def test_a_wrong_assignment_is_one_sentence(assignment: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        load_tables(None, [assignment])


@pytest.mark.parametrize(
    ("assignment", "word"),
    [
        ("extract.recip=epfl", "unknown key 'recip'; known are bridge, previews, recipe"),
        ("extract.recipe=mine", "recipe: .*'components' or 'epfl'.*got 'mine'"),
        ("extract.bridge=2", "bridge: .*less than or equal to 1"),
    ],
)
def test_a_wrong_value_is_one_sentence(assignment: str, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        load_tables(None, [assignment])


def test_a_typo_in_another_stages_table_is_told_too() -> None:
    with pytest.raises(UsageError, match="unknown key 'nonsense'"):
        load_tables(None, ["index.nonsense=3"])


def test_a_mark_at_the_start_of_a_file_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("\ufeff[extract]\npreviews = 3\n", encoding="utf-8")
    assert load_tables(tmp_path / "settings.toml", []) == {"extract": {"previews": 3}}


@pytest.mark.parametrize(("text", "word"), [("[extract", "not valid TOML"), ("extract = 3", "single value")])
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=word):
        load_tables(path, [])


def test_an_absent_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*check the path"):
        load_tables(tmp_path / "no.toml", [])


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ExtractConfig().recipe = "epfl"  # type: ignore[misc]
