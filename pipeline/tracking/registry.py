"""What MLflow has: runs with their settings, figures and files, and a registered model's versions with their aliases.

`tracking` writes runs, this reads them, and no other module talks to MLflow. What is asked for, and why, is not known
here.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipeline.errors import FacadeError, UsageError
from pipeline.tracking.run_logger import EXPERIMENT, MODEL_ARTIFACT, OFF, STAGE_TAG, configure_mlflow_env, mlflow_errors

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = ["MlflowStore", "RunRecord", "Version", "fetch_bundle", "open_store"]

PAGE_SIZE = 200  # runs that are asked for at a time
RUN_ID = re.compile(r"[0-9a-f]{32}")
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/]+)|/(?P<number>\d+))")
BUNDLE_PATH = "artifacts/bundle"  # in a logged model
RUN_URI = re.compile(rf"runs:/(?P<run>{RUN_ID.pattern})/{MODEL_ARTIFACT}")


@dataclass(frozen=True)
class RunRecord:
    """A run as it is kept; `started` is in milliseconds since 1970."""

    run_id: str
    name: str
    started: int
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def short_id(self) -> str:
        """The first letters of the id, which people read."""
        return self.run_id[:8]

    @property
    def stage(self) -> str:
        """The command that left the run."""
        return self.tags.get(STAGE_TAG, self.name)


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    name: str
    number: str
    run_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class MlflowStore:
    """An MLflow store, in a file or behind a server."""

    client: MlflowClient

    def runs(self, where: str = "") -> Iterator[RunRecord]:
        """Yield the runs that a filter of MLflow's finds, the newest first, a page at a time."""
        token, order = None, ["attributes.start_time DESC"]
        with _mlflow_errors():
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
        while experiment is not None:
            with _mlflow_errors():
                page = self.client.search_runs([experiment.experiment_id], where, 1, PAGE_SIZE, order, token)
            yield from map(_to_record, page)
            token = page.token
            if not token:
                return

    def run(self, run_id: str) -> RunRecord | None:
        """Return the run of an id, if there is one."""
        if not RUN_ID.fullmatch(run_id):
            return None
        with _mlflow_errors():
            found = _get_if_exists(lambda: self.client.get_run(run_id))
        return None if found is None or found.info.lifecycle_stage != "active" else _to_record(found)

    def metric_history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Return the steps and the values of a figure that changes."""
        with _mlflow_errors():
            return sorted((entry.step, entry.value) for entry in self.client.get_metric_history(run_id, metric))

    def files(self, run_id: str) -> list[str]:
        """Return the paths of the files that lie on top of a run."""
        with _mlflow_errors():
            return [entry.path for entry in self.client.list_artifacts(run_id) if not entry.is_dir]

    def fetch(self, run_id: str, path: str, folder: Path) -> Path:
        """Return the copy of a run's file in a folder."""
        with _mlflow_errors(f"{path} of run {run_id} cannot be had: "):
            return Path(self.client.download_artifacts(run_id, path, str(folder)))

    def versions(self, name: str) -> list[Version]:
        """Return the versions of a registered model, the newest first; none of one that is not there."""
        with _mlflow_errors():
            found = self.client.search_model_versions(f"name='{name}'")
        return [_to_version(one) for one in sorted(found, key=lambda one: -int(one.version))]

    def version(self, name: str, alias: str) -> Version | None:
        """Return the version that an alias names, if there is one."""
        with _mlflow_errors():
            model = _get_if_exists(lambda: self.client.get_registered_model(name))
            if model is None or alias not in model.aliases:
                return None
            return _to_version(self.client.get_model_version(name, str(model.aliases[alias])))

    def add_version(self, name: str, run_id: str, tags: Mapping[str, str]) -> Version | None:
        """Return a new version of a registered model, made of the model that a run has logged; None if it has none."""
        with _mlflow_errors():
            if (logged := self._logged_model(run_id)) is None:
                return None
            if _get_if_exists(lambda: self.client.get_registered_model(name)) is None:
                self.client.create_registered_model(name)
            place, model = logged.artifact_location, logged.model_id
            return _to_version(self.client.create_model_version(name, place, run_id, dict(tags), model_id=model))

    def add_to_model(self, run_id: str, file: Path) -> None:
        """Add a file to the bundle in the model that a run has logged, if it has one."""
        with _mlflow_errors(), TemporaryDirectory() as temporary:
            if (logged := self._logged_model(run_id)) is not None:
                place = Path(temporary) / BUNDLE_PATH
                place.mkdir(parents=True)
                shutil.copy(file, place)
                self.client.log_model_artifacts(logged.model_id, temporary)

    def tag_version(self, version: Version, tags: Mapping[str, str]) -> None:
        """Tag a version; a tag that it has already gets the new value."""
        with _mlflow_errors():
            for key, value in tags.items():
                self.client.set_model_version_tag(version.name, version.number, key, value)

    def set_alias(self, version: Version, alias: str) -> None:
        """Let an alias name a version, and no other any more."""
        with _mlflow_errors():
            self.client.set_registered_model_alias(version.name, alias, version.number)

    def resolve_uri(self, address: str) -> str:
        """Return where a logged model lies; MLflow would look for it in its default store, whatever store this is."""
        named, logged = MODEL_URI.fullmatch(address), RUN_URI.fullmatch(address)
        with _mlflow_errors(f"{address} cannot be had: "):
            if named:
                number = (
                    named["number"] or self.client.get_model_version_by_alias(named["name"], named["alias"]).version
                )
                return str(self.client.get_model_version_download_uri(named["name"], str(number)))
            if logged and (model := self._logged_model(logged["run"])) is not None:
                return str(model.artifact_location)
        return address

    def _logged_model(self, run_id: str) -> Any:
        """Return the model that a run has logged last and as a whole; a command that was killed leaves others."""
        run = _get_if_exists(lambda: self.client.get_run(run_id))
        outputs = run.outputs.model_outputs if run is not None and run.outputs else []
        models = [self.client.get_logged_model(one.model_id) for one in outputs]
        ready = [model for model in models if str(model.status) == "READY"]
        return max(ready, key=lambda model: model.creation_timestamp, default=None)


def fetch_bundle(address: str, uri: str | None, folder: Path) -> Path:
    """Return the bundle of a logged model (`models:/NAME@ALIAS`, `runs:/ID/model`), brought into a folder of bundles.

    Its place there is named by what is in it: commands that fetch the same one, or the next, do not disturb others.
    """
    place = open_store(None if uri == OFF else uri).resolve_uri(address)
    from mlflow.artifacts import download_artifacts

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".") as elsewhere:
        with _mlflow_errors(f"{address} cannot be had: "):
            source = f"{place}/{BUNDLE_PATH}"
            found = download_artifacts(
                artifact_uri=source, dst_path=elsewhere, tracking_uri=None if uri == OFF else uri
            )
        contents = sorted(path.read_bytes() for path in Path(found).iterdir() if path.suffix == ".json")
        own = folder / hashlib.sha256(b"".join(contents)).hexdigest()[:16]
        with suppress(OSError):  # another command was first with the same bundle
            Path(found).rename(own)
    return own


def open_store(uri: str | None) -> MlflowStore:
    """Return the store at an address, else MLflow's own default."""
    if uri == OFF:
        raise UsageError("--tracking off leaves no MLflow to query; give its address, or leave the option out.")
    configure_mlflow_env()
    from mlflow.tracking import MlflowClient

    with _mlflow_errors():
        return MlflowStore(MlflowClient(tracking_uri=uri))


def _mlflow_errors(prefix: str = "") -> AbstractContextManager[None]:
    return mlflow_errors(prefix, "do what it is asked", "name another with --tracking")


def _get_if_exists(request: Any) -> Any:
    """Ask MLflow; return None if it has no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return request()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _to_record(run: Any) -> RunRecord:
    info, data = run.info, run.data
    return RunRecord(info.run_id, info.run_name or "", info.start_time, data.params, data.metrics, data.tags)


def _to_version(entry: Any) -> Version:
    if entry.status != "READY":
        raise FacadeError(f"version {entry.version} of {entry.name} is {entry.status} in MLflow; delete it there.")
    return Version(entry.name, str(entry.version), entry.run_id or "", dict(entry.tags))
