"""Runs in a list and side by side, and the model that is the champion: in a store that commands have left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from pipeline.cli.main import main
from pipeline.comparison import promotion
from pipeline.comparison.promotion import promote
from pipeline.comparison.runs import find_related_runs, find_run
from pipeline.errors import FacadeError, UsageError
from pipeline.stages.evaluate.candidate import CANDIDATE, CHAMPION, register_candidate
from pipeline.stages.evaluate.scores import HEADLINE, headline_rows
from pipeline.stages.evaluate.tables import evaluate_images
from pipeline.storage.manifest import Manifest, Shard
from pipeline.storage.stage_folder import StageFolder
from pipeline.tracking.registry import MlflowStore, Version, fetch_bundle, open_store
from pipeline.tracking.run_logger import OFF, RunLogger, open_run
from ssd import SSD, BackboneConfig, Bundle, ModelConfig, bundle_digest, preset, save_bundle

from ..noise_model import Noise, make_noisy_evaluation

pytestmark = pytest.mark.filterwarnings("ignore")
PHOTOS = 40
NOISES = {"good": Noise(), "bad": Noise(recall=0.6, jitter=0.06, poor_boxes=0.2, duplicates=0.1, false_positives=0.25)}
Tables = dict[str, pa.Table]


@dataclass(frozen=True)
class Model:
    """A model as `train`, `detect` and `evaluate` leave it."""

    bundle: Path
    evaluated: StageFolder
    trained: str
    judged: str


@dataclass(frozen=True)
class Kept:
    """A store, and the models in it by name."""

    uri: str
    store: MlflowStore
    models: dict[str, Model]

    def register(self, model: str, name: str) -> Version | None:
        own = self.models[model]
        return register_candidate(self.uri, own.bundle, own.evaluated, lambda _: None, name)


def save(folder: Path, seed: int, run_id: str | None) -> str:
    """Return the digest of a new bundle of a small network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SSD(ModelConfig(preset("paper_coco"), ("window", "door"), BackboneConfig("tiny"))).eval()
    return save_bundle(folder, Bundle(model, trained={"run_id": run_id}))


def commit(folder: StageFolder, tables: Tables) -> Manifest:
    rows = [{"image_id": name} for name in tables["evaluated_images"]["image_id"].to_pylist()]
    digest = f"{hash(folder.path) & 0xFFFFFFFFFFFF:012x}"
    manifest = Manifest("evaluate", (folder.write_shard(Shard("all", 0, digest, rows), tables, len(rows)),))
    folder.commit(manifest)
    return manifest


def log_evaluation(run: RunLogger, manifest: Manifest, folder: StageFolder) -> None:
    """Log what `evaluate` logs, with its run and with the training run."""
    row = headline_rows(folder.read("scores").to_pylist(), "test")[""]
    ends = {"": "value", ".low": "low", ".high": "high"}
    run.log({f"test.{HEADLINE}{end}": row[key] for end, key in ends.items()}, {"evaluated": manifest.digest})
    names = ("evaluated_images", "detection_matches", "ground_truths", "scores")
    run.log_files(folder.path / entry.file for name in names for entry in manifest.files(name))


def trained_and_judged(uri: str, work: Path, seed: int, tables: Tables) -> Model:
    bundle, folder = work / "bundle", StageFolder(work, "evaluate")
    with open_run("train", uri) as train:
        digest = save(bundle, seed, train.run_id)
        train.log_settings({"train": {"preset": "demo", "lr": 0.01 * (1 + seed)}, "priors": {"name": "paper_coco"}})
        train.log_series([{"epoch": epoch, "val.loss": 5 / epoch, "val.map50": 0.1 * epoch} for epoch in (1, 2)])
        train.log({}, {"digest": digest})
        train.log_bundle(bundle)
    manifest = commit(folder, tables)
    with open_run("evaluate", uri) as evaluate:
        evaluate.log_settings({"model": digest, "extract": "e", "detect": f"d{seed}"})
        log_evaluation(evaluate, manifest, folder)
    with open_run("train", uri, resume_id=train.run_id) as again:
        log_evaluation(again, manifest, folder)
    return Model(bundle, folder, str(train.run_id), str(evaluate.run_id))


def fewer(tables: Tables) -> Tables:
    """Return the tables of fewer photos."""
    images = tables["evaluated_images"]["image_id"].slice(0, PHOTOS // 2)
    own = {name: tables[name] for name in ("evaluated_images", "detection_matches", "ground_truths")}
    return {**tables, **{name: table.filter(pc.is_in(table["image_id"], images)) for name, table in own.items()}}


@pytest.fixture(scope="module")
def recorded_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where MLflow leaves what runs have recorded_runs
        uri = f"sqlite:///{folder}/runs.db"
        found = {
            name: evaluate_images(make_noisy_evaluation(PHOTOS, 1, noise, ("test",)).data, "m", 50)
            for name, noise in NOISES.items()
        }
        found["elsewhere"] = fewer(found["good"])
        models = {
            name: trained_and_judged(uri, folder / name, seed, own) for seed, (name, own) in enumerate(found.items())
        }
        with open_run("index", uri):
            pass
        yield Kept(uri, open_store(uri), models)


@pytest.fixture
def run_command(
    recorded_runs: Kept, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Calls a command in this process: exit code, line, and what people read."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--tracking", recorded_runs.uri])
        out, text = capsys.readouterr()
        (line,) = out.splitlines()
        return int(ended.value.code or 0), json.loads(line), text

    return call


def test_evaluated_runs_are_listed_the_newest_first(recorded_runs: Kept, run_command: Callable) -> None:
    code, line, text = run_command("runs", "list")
    ids = [run for model in reversed(recorded_runs.models.values()) for run in (model.judged, model.trained)]
    assert (code, line["stage"], line["changed"]) == (0, "runs list", False)
    assert [row["run_id"] for row in line["runs"]] == ids
    row = line["runs"][-1]
    assert (row["name"], row["what"], row["split"]) == ("train", "demo, paper_coco", "test")
    assert row["low"] < row["map"] < row["high"]
    assert row["digest"] == bundle_digest(recorded_runs.models["good"].bundle)
    assert line["runs"][-2]["what"] == "demo, paper_coco"  # of the run that trained what it judged
    assert f"{100 * row['map']:.1f} ({100 * row['low']:.1f} to {100 * row['high']:.1f})" in text
    assert "nothing to do" not in text


def test_others_are_listed_when_asked_for(run_command: Callable) -> None:
    assert [row["name"] for row in run_command("runs", "list", "--all")[1]["runs"]][:2] == ["index", "evaluate"]
    assert len(run_command("runs", "list", "--limit", 2)[1]["runs"]) == 2


def test_a_store_without_runs_is_told(run_command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tracking.registry.EXPERIMENT", "nobody's")
    code, line, text = run_command("runs", "list")
    assert (code, line["runs"], "no run that was evaluated" in text) == (0, [], True)


def test_runs_are_compared_by_the_beginnings_of_their_ids(
    recorded_runs: Kept, run_command: Callable, tmp_path: Path
) -> None:
    good, bad = recorded_runs.models["good"], recorded_runs.models["bad"]
    code, line, text = run_command("runs", "compare", good.trained[:12], bad.trained[:12])
    assert (code, line["stage"], line["changed"], line["verdict"]) == (0, "runs compare", False, "worse")
    assert line["low"] <= line["difference"] <= line["high"] < 0
    assert set(line["by_class"]) == {"building", "door", "window"}
    assert line["by_class"]["window"]["verdict"] == "worse"
    assert line["settings"] == {"train.lr": ["0.01", "0.02"]}
    assert all(word in text for word in ("train.lr", f"test.{HEADLINE}", "is worse than"))
    figure = tmp_path / line["outputs"]["figure"]
    assert figure.parent == tmp_path / "compare"
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_the_run_that_judged_stands_for_the_one_that_trained(recorded_runs: Kept, run_command: Callable) -> None:
    good, bad = recorded_runs.models["good"], recorded_runs.models["bad"]
    _, line, _ = run_command("runs", "compare", bad.judged, good.trained, "--out", "elsewhere")
    assert line["verdict"] == "better"
    assert line["settings"] == {"train.lr": ["0.02", "0.01"]}
    assert Path(line["outputs"]["figure"]).parent.name == "elsewhere"
    _, line, text = run_command("runs", "compare", good.judged, good.trained)
    assert (line["verdict"], line["difference"], line["settings"]) == ("no difference", 0.0, {})
    assert "no difference beyond noise" in text


def test_what_cannot_be_compared_is_one_sentence(recorded_runs: Kept, run_command: Callable) -> None:
    code, line, _ = run_command(
        "runs", "compare", recorded_runs.models["good"].trained, recorded_runs.models["elsewhere"].trained
    )
    assert (code, "40 photos of test" in line["error"], "20 photos of test" in line["error"]) == (1, True, True)
    _, line, _ = run_command(
        "runs", "compare", "index", recorded_runs.models["good"].trained
    )  # its name, which no other has
    assert "(index) has no evaluation in MLflow" in line["error"]
    for name, message in (("train", "may be any of 3 runs"), ("f" * 32, "no run 'f"), ("", "no run ''")):
        code, line, _ = run_command("runs", "compare", name, "index")
        assert (code, line["stage"]) == (2, "runs compare")
        assert message in line["error"]
    with pytest.raises(UsageError, match="leaves no MLflow to query"):
        open_store(OFF)


def test_a_run_of_several_evaluations_is_judged_by_the_last(recorded_runs: Kept, tmp_path: Path) -> None:
    """The training run keeps the files of all; the run of `evaluate` says which are the last."""
    good = recorded_runs.models["good"]
    folder = StageFolder(tmp_path, "evaluate")
    tables = {
        name: good.evaluated.read(name) for name in ("evaluated_images", "detection_matches", "ground_truths", "scores")
    }
    commit(folder, {**tables, "scores": tables["scores"].slice(1)})
    with open_run("train", recorded_runs.uri, resume_id=good.trained) as run:
        run.log_files(sorted(folder.path.rglob("*.parquet")))
    assert len(recorded_runs.store.files(good.trained)) == 8
    side = find_related_runs(recorded_runs.store, find_run(recorded_runs.store, good.trained))
    assert side.evaluation_run is not None
    assert side.evaluation_run.run_id == good.judged
    assert promotion.load_evaluation_record(recorded_runs.store, side.record.tags["evaluated"], "it").split == "test"


def test_a_bundle_becomes_one_version_and_the_candidate(recorded_runs: Kept) -> None:
    first, again = recorded_runs.register("good", "once"), recorded_runs.register("good", "once")
    assert first is not None
    assert again is not None
    assert (first.number, again.number, first.run_id) == ("1", "1", recorded_runs.models["good"].trained)
    (only,) = recorded_runs.store.versions("once")
    assert only.tags["facade.bundle"] == bundle_digest(recorded_runs.models["good"].bundle)
    assert only.tags["facade.evaluated"] == recorded_runs.models["good"].evaluated.require_manifest().digest
    assert float(only.tags["facade.map.low"]) < float(only.tags["facade.map"]) < float(only.tags["facade.map.high"])
    second = recorded_runs.register("bad", "once")
    assert second is not None
    assert second.tags["facade.test"] == only.tags["facade.test"]
    named = recorded_runs.store.version("once", CANDIDATE)
    assert named is not None
    assert named.number == second.number == "2"
    assert recorded_runs.store.version("once", CHAMPION) is None
    assert recorded_runs.store.versions("nothing") == []


def test_a_bundle_of_no_run_is_no_candidate(recorded_runs: Kept, tmp_path: Path) -> None:
    good, said = recorded_runs.models["good"], []
    for number, run_id in enumerate((None, "f" * 32, good.trained)):  # trained elsewhere, forgotten, not what it logged
        save(tmp_path / str(number), 7, run_id)
        assert (
            register_candidate(recorded_runs.uri, tmp_path / str(number), good.evaluated, said.append, "none") is None
        )
    assert all("no MLflow run found that trained" in line for line in said)
    assert len(said) == 3
    assert register_candidate(OFF, good.bundle, good.evaluated, said.append) is None
    assert recorded_runs.store.versions("none") == []


def test_the_champion_moves_to_what_is_better_beyond_noise(
    recorded_runs: Kept, run_command: Callable, tmp_path: Path
) -> None:
    with pytest.raises(FacadeError, match=r"^better has no candidate; "):
        promote(recorded_runs.store, "better")
    recorded_runs.register("bad", "better")
    code, line, text = run_command("model", "promote", "--name", "better")
    assert (code, line["stage"], line["changed"], line["champion"]) == (0, "model promote", True, None)
    assert "the first champion" in text
    assert promote(recorded_runs.store, "better").reason == "version 1 is the champion already"
    assert recorded_runs.store.versions("better")[0].tags["facade.promotion"] == line["reason"]
    recorded_runs.register("good", "better")
    code, line, text = run_command("model", "promote", "--name", "better")
    assert (code, line["changed"], line["candidate"], line["champion"]) == (0, True, "2", "1")
    assert "version 2 is better than the champion (version 1) beyond noise" in text
    champion = recorded_runs.store.version("better", CHAMPION)
    assert champion is not None
    assert (champion.number, champion.tags["facade.promotion"]) == ("2", line["reason"])
    for address in (f"models:/better@{CHAMPION}", "models:/better/2", f"runs:/{champion.run_id}/model"):
        fetched = fetch_bundle(
            address, recorded_runs.uri, tmp_path / "bundles"
        )  # not the store that is the default here
        assert bundle_digest(fetched) == bundle_digest(recorded_runs.models["good"].bundle)
    (tmp_path / "operating.json").write_text("{}")
    recorded_runs.store.add_to_model(champion.run_id, tmp_path / "operating.json")
    again = fetch_bundle(f"models:/better@{CHAMPION}", recorded_runs.uri, tmp_path / "bundles")
    assert ((again / "operating.json").read_text(), again == fetched) == ("{}", False)


def test_the_champion_stays_before_what_is_not_better(recorded_runs: Kept, run_command: Callable) -> None:
    recorded_runs.register("good", "worse")
    promote(recorded_runs.store, "worse")
    recorded_runs.register("bad", "worse")
    code, line, text = run_command("model", "promote", "--name", "worse")
    assert (code, line["changed"], line["verdict"]) == (0, False, "worse")
    assert "the champion stays: version 2 is worse than" in text
    candidate, champion = (
        recorded_runs.store.version("worse", CANDIDATE),
        recorded_runs.store.version("worse", CHAMPION),
    )
    assert candidate is not None
    assert champion is not None
    assert (candidate.number, champion.number, candidate.tags["facade.promotion"]) == ("2", "1", line["reason"])


def test_the_champion_stays_where_other_boxes_judged(recorded_runs: Kept, run_command: Callable) -> None:
    recorded_runs.register("elsewhere", "other")
    promote(recorded_runs.store, "other")
    recorded_runs.register("good", "other")
    code, line, _ = run_command("model", "promote", "--name", "other")
    assert (code, line["changed"]) == (0, False)
    assert (
        "on different ground truth: evaluate the champion on the same boxes (`facade model promote --work"
        in line["reason"]
    )
    # What that does: the champion gets the figures of those boxes, and the candidate stays one.
    champion = recorded_runs.models["elsewhere"]
    version = register_candidate(
        recorded_runs.uri, champion.bundle, recorded_runs.models["bad"].evaluated, lambda _: None, "other"
    )
    assert version is not None
    assert version.number == "1"
    found = promote(recorded_runs.store, "other")
    assert (found.promoted, found.candidate.number) == (True, "2")
