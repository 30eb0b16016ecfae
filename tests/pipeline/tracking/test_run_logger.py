"""One MLflow run a command, or a sentence, or none when it is off."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import FacadeError
from pipeline.imaging.image_io import decode_photo
from pipeline.tracking.run_logger import OFF, SERVING_COLUMNS, flatten, open_run
from ssd import SSD, BackboneConfig, Bundle, Detector, ModelConfig, load_bundle, preset, save_bundle


def test_off_is_off() -> None:
    with open_run("index", OFF) as run:
        run.log({"a": 1})
        run.log_settings({"a": 1})
        run.log_files([Path("nowhere")])
        run.log_series([{"epoch": 1, "a": 1}])
        run.log_bundle(Path("nowhere"))
        assert run.run_id is None


def test_settings_are_flat() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}
    legend = {"0,0,0": "sky", "*": "other"}
    assert flatten({"card": {"legend": legend}}) == {"card.legend": legend}


def test_a_server_that_is_away_is_one_sentence() -> None:
    told = pytest.raises(FacadeError, match=r"^MLflow does not take this run \(.*127\.0\.0\.1.*--tracking off")
    with told, open_run("index", "http://127.0.0.1:1"):
        pass


@pytest.mark.filterwarnings("ignore")
def test_a_command_leaves_a_run_with_settings_figures_and_pictures(
    workplace: Callable, drawn: Path, cards: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/runs.db"
    work = workplace(tracking=uri)
    indexed = work.index(drawn, cards[0])
    extracted = work.extract(previews=2, recipe="epfl")
    assert work.extract(previews=2, recipe="epfl").run_id == extracted.run_id
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("facade").experiment_id])
    assert {run.info.run_id for run in runs} == {indexed.run_id, extracted.run_id}
    run = client.get_run(extracted.run_id)
    assert (run.info.run_name, run.info.status) == ("extract", "FINISHED")
    assert run.data.params["extract.recipe"] == "epfl"
    assert run.data.params["index"] == indexed.digest
    assert run.data.metrics["rows_in"] == 10
    assert run.data.metrics["rows.boxes"] == extracted.outputs["boxes"]
    assert run.data.tags["digest"] == extracted.digest
    assert "version.pyarrow" in run.data.tags
    assert {entry.path for entry in client.list_artifacts(extracted.run_id)} >= {"drawn.jpg"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_ends_as_its_command_does(
    error: type[BaseException], status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/runs.db"
    with pytest.raises(error), open_run("index", uri) as run:
        raise error
    assert run.run_id is not None
    assert MlflowClient(uri).get_run(run.run_id).info.status == status


def client_of(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a store in the test's folder, which the environment does not name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.mark.filterwarnings("ignore")
def test_a_series_has_a_value_an_epoch_but_where_there_is_none(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking.run_logger.METRIC_BATCH", 2)  # several calls
    rows = [
        {"epoch": 1, "train.loss": 4.0, "lr": 0.1},
        {"epoch": 2, "train.loss": math.nan, "lr": 0.1, "val.ap50.bow window (old)/new": 0.25},
        {"epoch": 3, "train.loss": 2.0, "lr": math.inf},
    ]
    with open_run("train", store) as run:
        run.log_series(rows)
        run.log_series([])
    history = {
        name: [(entry.step, entry.value) for entry in client_of(store).get_metric_history(run.run_id, name)]
        for name in client_of(store).get_run(run.run_id).data.metrics
    }
    assert history == {
        "train.loss": [(1, 4.0), (3, 2.0)],
        "lr": [(1, 0.1), (2, 0.1)],
        "val.ap50.bow window _old__new": [(2, 0.25)],
    }


@pytest.mark.filterwarnings("ignore")
def test_a_run_goes_on_while_the_store_has_it(store: str) -> None:
    client = client_of(store)
    with open_run("train", store) as first:
        first.log_settings({"device": "cpu"})
    client.set_terminated(first.run_id, "KILLED")
    with open_run("train", store, resume_id=first.run_id) as second:
        second.log_settings({"device": "cuda", "batch": 8})
        assert client.get_run(first.run_id).info.status == "RUNNING"
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "FINISHED"
    assert client.get_run(first.run_id).data.params == {"device": "cpu", "batch": "8"}
    client.delete_run(first.run_id)
    for gone in (first.run_id, "0" * 32):
        with open_run("train", store, resume_id=gone) as new:
            assert new.run_id not in {first.run_id, gone}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of a small network, in a folder whose name a URL would have quoted."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SSD(ModelConfig(preset("paper_coco"), ("window", "door"), BackboneConfig("tiny"))).eval()
    save_bundle(tmp_path / "a b#1%20", Bundle(model, trained={"run": "x"}))
    return tmp_path / "a b#1%20"


def predicted(uri: str, model: str, photos: list[str]) -> dict[str, Any]:
    """Return what a process of its own predicts that refuses pickle."""
    program = "import json, sys, mlflow, pandas\nmodel = mlflow.pyfunc.load_model(sys.argv[1])\n"
    program += "tables = [model.predict(pandas.DataFrame({'uri': uris}, dtype=str)) for uris in (sys.argv[2:], [])]\n"
    program += "print(json.dumps([table.to_dict('list') for table in tables]))"
    setting = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_TRACKING_URI": uri}
    arguments = [sys.executable, "-c", program, model, *photos]
    done = subprocess.run(arguments, capture_output=True, check=False, text=True, env={**os.environ, **setting})
    assert done.returncode == 0, done.stderr
    found, nothing = json.loads(done.stdout.splitlines()[-1])
    assert nothing == {name: [] for name in SERVING_COLUMNS}
    return dict(found)


@pytest.mark.filterwarnings("ignore")
def test_a_logged_bundle_is_a_model_that_loads_without_pickle(
    store: str, bundle: Path, drawn: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_run("train", store) as run:
        capfd.readouterr()  # not what making the store says
        run.log_bundle(bundle)
    assert capfd.readouterr() == ("", "")
    client = client_of(store)
    (logged,) = client.search_logged_models([client.get_run(run.run_id).info.experiment_id])
    assert (logged.source_run_id, str(logged.status)) == (run.run_id, "READY")
    client.create_registered_model("facade")
    version = client.create_model_version("facade", logged.artifact_location, run.run_id, model_id=logged.model_id)
    client.set_registered_model_alias("facade", "candidate", version.version)

    photos = [str(path) for path in sorted(drawn.rglob("*.jpg"))[:2]]
    table = predicted(store, "models:/facade@candidate", photos)
    detector = Detector(load_bundle(bundle))
    tensors = [torch.tensor(decode_photo(Path(photo).read_bytes())).permute(2, 0, 1) for photo in photos]
    found = detector(tensors)
    assert table["uri"] == [photo for photo, own in zip(photos, found, strict=True) for _ in range(len(own))]
    assert table["label"] == [("window", "door")[label - 1] for own in found for label in own.labels.tolist()]
    assert table["score"] == pytest.approx([score for own in found for score in own.scores.tolist()], abs=1e-4)
    corners = torch.tensor([table[name] for name in ("xmin", "ymin", "xmax", "ymax")]).T
    assert torch.allclose(corners, torch.cat([own.boxes for own in found]), atol=0.1)


@pytest.mark.filterwarnings("ignore")
def test_the_model_is_found_by_its_run(store: str, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow
    import pandas as pd

    with open_run("train", store) as run:
        run.log_bundle(bundle)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    model = mlflow.pyfunc.load_model(f"runs:/{run.run_id}/model")
    assert model.metadata.signature.outputs.input_names() == list(SERVING_COLUMNS)
    Path("nothing.jpg").touch()
    with pytest.raises(ValueError, match=r"^nothing\.jpg: the file is empty"):
        model.predict(pd.DataFrame({"uri": ["nothing.jpg"]}))
