"""Settings: file, then --set, unknown names refused with a sentence."""

from pathlib import Path

import pytest

from pipeline.config import load_tables, resolve_settings
from pipeline.errors import UsageError
from pipeline.stages import SETTINGS
from pipeline.stages.extract.stage import ExtractConfig
from pipeline.stages.train.config import TrainConfig


def test_set_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[extract]\nrecipe = "epfl"\npreviews = 3\n')
    tables = load_tables(path, ["extract.recipe=components", "extract.bridge=0.1"], SETTINGS)
    assert resolve_settings(ExtractConfig, tables, "extract") == ExtractConfig(
        recipe="components", previews=3, bridge=0.1
    )


def test_nothing_given_is_the_defaults() -> None:
    assert resolve_settings(ExtractConfig, load_tables(None, [], SETTINGS), "extract") == ExtractConfig()


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
        load_tables(None, [assignment], SETTINGS)


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
        load_tables(None, [assignment], SETTINGS)


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("extract.drawings=3", "unknown key 'drawings'; it is called 'previews' since version 0.2"),
        ("train.start=none", "unknown key 'start'; it is called 'init_weights' since version 0.2"),
        ("train.patience=3", "unknown key 'patience'; it is called 'early_stopping_epochs' since version 0.2"),
        ("store.patience=3", "unknown key 'patience'; it is called 'disk_retry_seconds' since version 0.2"),
        ("detect.score=.1", "unknown key 'score'; it is called 'min_score' since version 0.2"),
        ("calibrate.input=300", "unknown stage 'calibrate'; it is called 'priors' since version 0.2"),
        ("extract.start=3", "unknown key 'start'; known are"),
    ],
)
def test_an_old_key_is_refused_with_its_new_name(assignment: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        load_tables(None, [assignment], SETTINGS)


def test_old_keys_of_a_loss_are_refused_with_their_new_names() -> None:
    settings = resolve_settings(TrainConfig, {"train": {"loss": {"negatives": 4}}}, "train")
    with pytest.raises(
        UsageError, match=r"unknown key 'loss.negatives'; it is called 'neg_pos_ratio' since version 0.2"
    ):
        settings.to_ssd_config()


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "trunk.safetensors").write_bytes(b"")
    (tmp_path / "settings.toml").write_text('[train]\ninit_weights = "trunk.safetensors"\npriors = "paper_coco"\n')
    tables = load_tables(tmp_path / "settings.toml", ["train.seed=3"], SETTINGS)
    expected = {"init_weights": str(tmp_path / "trunk.safetensors"), "priors": "paper_coco", "seed": 3}
    assert tables == {"train": expected}


def test_a_typo_in_another_stages_table_is_told_too() -> None:
    with pytest.raises(UsageError, match="unknown key 'nonsense'"):
        load_tables(None, ["index.nonsense=3"], SETTINGS)


def test_a_mark_at_the_start_of_a_file_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("\ufeff[extract]\npreviews = 3\n", encoding="utf-8")
    assert load_tables(tmp_path / "settings.toml", [], SETTINGS) == {"extract": {"previews": 3}}


@pytest.mark.parametrize(("text", "word"), [("[extract", "not valid TOML"), ("extract = 3", "single value")])
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=word):
        load_tables(path, [], SETTINGS)


def test_an_absent_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*check the path"):
        load_tables(tmp_path / "no.toml", [], SETTINGS)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ExtractConfig().recipe = "epfl"  # type: ignore[misc]
