"""One MLflow run a command, or a sentence, or none when it is off."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import FacadeError
from pipeline.tracking import OFF, flatten, open_run


def test_off_is_off() -> None:
    with open_run("index", OFF) as run:
        run.log({"a": 1})
        run.log_settings({"a": 1})
        run.log_files([Path("nowhere")])
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
    extracted = work.extract(drawings=2, recipe="epfl")
    assert work.extract(drawings=2, recipe="epfl").run_id == extracted.run_id
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
