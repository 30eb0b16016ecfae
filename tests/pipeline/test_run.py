"""`facade run`: one file, one parent run, and no work twice."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

FILE = 'work = "out"\n\n[[datasets]]\ncard = "card.toml"\nroot = "set"\n\n[extract]\ndrawings = 2\n'


@pytest.fixture
def place(tmp_path: Path, drawn: Path, cards: tuple[str, str]) -> Path:
    (tmp_path / "set").symlink_to(drawn)
    (tmp_path / "card.toml").write_text(cards[1])
    (tmp_path / "run.toml").write_text(FILE)
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_all_stages_run_once_under_one_parent(place: Path, facade: Callable) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{place}/runs.db"
    first = facade("run", "run.toml", "--tracking", uri, "--workers", 0)
    assert first.code == 0
    assert list(first.line["stages"]) == ["index drawn_boxes", "extract", "describe", "calibrate"]
    assert json.loads((place / "out/calibrate/priors.json").read_text())["chosen"]
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("facade").experiment_id])
    parents = {run.info.run_name: run.data.tags.get("mlflow.parentRunId") for run in runs}
    (parent,) = [run.info.run_id for run in runs if run.info.run_name == "run"]
    assert parents == {"run": None, **dict.fromkeys(("index", "extract", "describe", "calibrate"), parent)}
    ids = {run.info.run_name: run.info.run_id for run in runs}
    assert {entry.path for entry in client.list_artifacts(ids["describe"])} >= {"aspect_ratio.png", "area_ratio.png"}
    assert {entry.path for entry in client.list_artifacts(ids["calibrate"])} == {"coverage.png"}
    second = facade("run", "run.toml", "--tracking", uri, "--workers", 0)
    assert (second.code, second.line["changed"]) == (0, False)
    assert len(client.search_runs([client.get_experiment_by_name("facade").experiment_id])) == 5


@pytest.mark.usefixtures("place")
def test_a_part_of_the_stages(facade: Callable) -> None:
    common = ("--tracking", "off", "--workers", 0)
    assert list(facade("run", "run.toml", "--to", "extract", *common).line["stages"]) == [
        "index drawn_boxes",
        "extract",
    ]
    assert list(facade("run", "run.toml", "--from", "describe", "--to", "describe", *common).line["stages"]) == [
        "describe"
    ]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "the key 'work' is missing"),
        ('work = "w"\ndatasets = []\n', "datasets: List should have at least 1 item"),
        ('work = "w"\n[[datasets]]\ncard = "cmp"\n', "the key 'datasets.0.root' is missing"),
        (FILE + "recip = 3\n", "unknown key 'recip'"),
        (FILE + "[trian]\n", "unknown stage 'trian'"),
    ],
)
def test_a_wrong_file_is_one_sentence(place: Path, facade: Callable, text: str, word: str) -> None:
    (place / "run.toml").write_text(text)
    result = facade("run", "run.toml", "--tracking", "off")
    assert result.code == 2
    assert word in result.line["error"]


@pytest.mark.usefixtures("place")
def test_an_unknown_stage_is_one_sentence(facade: Callable) -> None:
    result = facade("run", "run.toml", "--to", "moon", "--tracking", "off")
    assert (result.code, "known are index, extract, describe, calibrate" in result.line["error"]) == (2, True)
