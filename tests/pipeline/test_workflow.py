"""`facade run`: one file, one parent run, and no work twice."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

FILE = 'work = "out"\n\n[[datasets]]\ncard = "card.toml"\nroot = "set"\n\n[extract]\npreviews = 2\n'


@pytest.fixture
def run_folder(tmp_path: Path, drawn: Path, cards: tuple[str, str]) -> Path:
    (tmp_path / "set").symlink_to(drawn)
    (tmp_path / "card.toml").write_text(cards[1])
    (tmp_path / "run.toml").write_text(FILE)
    return tmp_path


@pytest.mark.filterwarnings("ignore")
def test_run_all_stages_has_one_parent_and_no_second_work(run_folder: Path, facade: Callable) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{run_folder}/runs.db"
    first = facade("run", "run.toml", "--to", "priors", "--tracking", uri, "--workers", 0)
    assert first.code == 0
    assert list(first.line["stages"]) == ["index drawn_boxes", "extract", "describe", "priors"]
    assert json.loads((run_folder / "out/priors/priors.json").read_text())["chosen"]
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("facade").experiment_id])
    parents = {run.info.run_name: run.data.tags.get("mlflow.parentRunId") for run in runs}
    (parent,) = [run.info.run_id for run in runs if run.info.run_name == "run"]
    assert parents == {"run": None, **dict.fromkeys(("index", "extract", "describe", "priors"), parent)}
    ids = {run.info.run_name: run.info.run_id for run in runs}
    assert {entry.path for entry in client.list_artifacts(ids["describe"])} >= {"aspect_ratio.png", "area_ratio.png"}
    assert {entry.path for entry in client.list_artifacts(ids["priors"])} == {"coverage.png"}
    second = facade("run", "run.toml", "--to", "priors", "--tracking", uri, "--workers", 0)
    assert (second.code, second.line["changed"]) == (0, False)
    assert len(client.search_runs([client.get_experiment_by_name("facade").experiment_id])) == 5


@pytest.mark.usefixtures("run_folder")
def test_run_from_to_runs_these_stages(facade: Callable) -> None:
    common = ("--tracking", "off", "--workers", 0)
    assert list(facade("run", "run.toml", "--to", "extract", *common).line["stages"]) == [
        "index drawn_boxes",
        "extract",
    ]
    assert list(facade("run", "run.toml", "--from", "describe", "--to", "describe", *common).line["stages"]) == [
        "describe"
    ]


TRAIN = """
[train]
preset = "demo"
priors = "paper_coco"
epochs = 1
batch = 2
device = "cpu"
seed = 0
"""


def test_run_new_model_replaces_detections(run_folder: Path, facade: Callable) -> None:
    common = ("run", "run.toml", "--tracking", "off", "--workers", 0)
    (run_folder / "run.toml").write_text(FILE + TRAIN)
    first = facade(*common)
    assert (first.code, list(first.line["stages"])[-4:]) == (0, ["train", "detect", "evaluate", "report"])
    table = pd.read_parquet(run_folder / "out/detect/photos")
    assert list(table["image_id"]) == [row for row in table["image_id"] if row.startswith("drawn_boxes/")]
    assert list((run_folder / "out/detect/previews").glob("*.jpg"))
    assert facade(*common).line["changed"] is False
    alone = ("detect", "out", "--tracking", "off", "--workers", 0)
    assert facade(*alone).line["changed"] is False
    unknown = facade(*alone, "--out", "other", "--set", 'detect.datasets=["cmp"]')
    assert (unknown.code, "has no cmp; it has drawn_boxes" in unknown.line["error"]) == (2, True)
    (run_folder / "run.toml").write_text(FILE + TRAIN.replace("seed = 0", "seed = 1"))
    second = facade(*common)
    assert (second.code, second.line["stages"]["detect"]["changed"]) == (0, True)
    before, after = (
        json.loads((run_folder / "out" / name).read_text()) for name in ("detect/job.json", "detect/summary.json")
    )
    assert before["model"] == after["model"]
    detections = pd.read_parquet(run_folder / "out/detect/detections")
    assert set(detections["model_digest"]) <= {after["model"]}


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
def test_run_wrong_file_is_one_sentence(run_folder: Path, facade: Callable, text: str, word: str) -> None:
    (run_folder / "run.toml").write_text(text)
    result = facade("run", "run.toml", "--tracking", "off")
    assert result.code == 2
    assert word in result.line["error"]


@pytest.mark.usefixtures("run_folder")
def test_run_unknown_stage_is_one_sentence(facade: Callable) -> None:
    result = facade("run", "run.toml", "--to", "moon", "--tracking", "off")
    assert (result.code, "known are index, extract, describe, priors, train, detect" in result.line["error"]) == (
        2,
        True,
    )
