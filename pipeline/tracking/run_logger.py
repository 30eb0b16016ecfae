"""One MLflow run a command: settings, versions and digests in, figures and pictures out.

Only this module knows MLflow, `registry`, which reads what is kept here, and `served`, which MLflow runs. They use the
client, not the module-level calls, because those keep global state.
"""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipeline.errors import FacadeError

if TYPE_CHECKING:
    from mlflow.models import Model
    from mlflow.tracking import MlflowClient

__all__ = [
    "EXPERIMENT",
    "MODEL_ARTIFACT",
    "OFF",
    "SERVING_COLUMNS",
    "STAGE_TAG",
    "RunLogger",
    "configure_mlflow_env",
    "flatten",
    "mlflow_errors",
    "open_run",
]

EXPERIMENT = "facade"
STAGE_TAG = "facade.stage"
OFF = "off"
PACKAGES = ("facade-ssd", "dask", "mlflow", "numpy", "pillow", "pyarrow", "torch", "torchvision")
# What MLflow takes: longer values are cut, more at once are refused, and so are other characters in a metric's name.
MAX_VALUE_LENGTH, PARAM_BATCH, METRIC_BATCH = 6000, 100, 1000
NAME = re.compile(r"[\w-]+", re.ASCII)
NOT_IN_METRICS = re.compile(r"[^\w .:-]")
MODEL_ARTIFACT = "model"  # as in runs:/ID/model
SERVING_COLUMNS = {
    **dict.fromkeys(("uri", "label"), "string"),
    **dict.fromkeys(("score", "xmin", "ymin", "xmax", "ymax"), "double"),
}
SERVING_PACKAGES = ("facade-ssd", "mlflow", "torch", "torchvision")


@dataclass(frozen=True)
class RunLogger:
    """An open MLflow run, or nothing at all when tracking is off."""

    client: MlflowClient | None = None
    run_id: str | None = None

    def log(self, metrics: Mapping[str, float], tags: Mapping[str, str] | None = None) -> None:
        """Log figures and tags in one call."""
        if self.client is None or self.run_id is None:
            return
        from mlflow.entities import Metric, RunTag

        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
        with mlflow_errors("the work is done, but "):
            self.client.log_batch(self.run_id, entries, [], [RunTag(key, value) for key, value in (tags or {}).items()])

    def log_series(self, rows: Sequence[Mapping[str, float]], key: str = "epoch") -> None:
        """Log figures that change, each row's at the step that its `key` says; what is not finite is left out."""
        if self.client is None or self.run_id is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [
            Metric(NOT_IN_METRICS.sub("_", name), float(value), now, int(row[key]))
            for row in rows
            for name, value in row.items()
            if name != key and math.isfinite(value)
        ]
        with mlflow_errors():
            for start in range(0, len(entries), METRIC_BATCH):
                self.client.log_batch(self.run_id, entries[start : start + METRIC_BATCH], [], [])

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        """Log settings under flat dotted names; MLflow keeps the first value of each, so does a resumed run."""
        if self.client is None or self.run_id is None:
            return
        from mlflow.entities import Param

        with mlflow_errors():
            known = self.client.get_run(self.run_id).data.params
            flat = {key: value for key, value in flatten(settings).items() if key not in known}
            params = [Param(key, str(value)[:MAX_VALUE_LENGTH]) for key, value in flat.items()]
            for start in range(0, len(params), PARAM_BATCH):
                self.client.log_batch(self.run_id, [], params[start : start + PARAM_BATCH], [])

    def log_files(self, paths: Iterable[Path]) -> None:
        """Keep some files with the run."""
        if self.client is not None and self.run_id is not None:
            with mlflow_errors("the work is done, but "):
                for path in paths:
                    self.client.log_artifact(self.run_id, str(path))

    def log_bundle(self, folder: Path) -> None:
        """Keep a bundle with the run, as a model that MLflow loads without pickle from `runs:/ID/model`."""
        if self.client is None or self.run_id is None:
            return
        from mlflow.entities import LoggedModelOutput
        from mlflow.models import Model

        with mlflow_errors("the bundle is written, but "), TemporaryDirectory() as temporary:
            experiment = self.client.get_run(self.run_id).info.experiment_id
            logged = self.client.create_logged_model(experiment, MODEL_ARTIFACT, self.run_id)
            self.client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, step=0)])
            model = Model(logged.artifact_location, self.run_id, model_uuid=logged.model_id, model_id=logged.model_id)
            _save_model(folder, model, Path(temporary) / MODEL_ARTIFACT)
            self.client.log_model_artifacts(logged.model_id, f"{temporary}/{MODEL_ARTIFACT}")
            self.client.finalize_logged_model(logged.model_id, "READY")


@contextmanager
def open_run(
    name: str, uri: str | None, parent: str | None = None, resume_id: str | None = None
) -> Iterator[RunLogger]:
    """Open a run named after its stage, at `uri`, else MLflow's own default; it ends as the block ends.

    With `resume_id`, the run of this id is resumed, if the store still has it.
    """
    if uri == OFF:
        yield RunLogger()
        return
    client, run_id = _start(name, uri, parent, resume_id)
    status = "FAILED"
    try:
        yield RunLogger(client, run_id)
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        with mlflow_errors():
            client.set_terminated(run_id, status)


def _start(name: str, uri: str | None, parent: str | None, resume_id: str | None) -> tuple[MlflowClient, str]:
    configure_mlflow_env()
    from mlflow.tracking import MlflowClient

    with mlflow_errors():
        client = MlflowClient(tracking_uri=uri)
        if resume_id is not None and _try_resume(client, resume_id):
            return client, resume_id
        experiment = client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        return client, client.create_run(experiment_id, run_name=name, tags=_tags(name, parent)).info.run_id


def configure_mlflow_env() -> None:
    """Set what MLflow reads when it is imported."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout has one line, the command's own
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # of files that are fetched in a second
    os.environ.setdefault("MLFLOW_LOG_UV_FILES", "false")  # of whatever project lies where the command runs
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # an unreachable server is reported within seconds
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _try_resume(client: MlflowClient, run_id: str) -> bool:
    """Return whether the store still has a run, which is running again then."""
    from mlflow.exceptions import MlflowException

    try:
        active: bool = client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    if active:
        client.update_run(run_id, "RUNNING")
    return active


def _save_model(bundle: Path, model: Model, folder: Path) -> None:
    """Write a bundle and the code that serves it as a folder that MLflow loads."""
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, Schema

    columns = [ColSpec(kind, name) for name, kind in SERVING_COLUMNS.items()]
    plain = shutil.copytree(bundle, folder.with_name("bundle"))  # MLflow takes a path's # and % for a URL's
    save_model(
        folder,
        python_model=Path(__file__).with_name("pyfunc_model.py"),
        artifacts={"bundle": str(plain)},
        mlflow_model=model,
        signature=ModelSignature(Schema(columns[:1]), Schema(columns)),
        input_example=pd.DataFrame({"uri": ["facade.jpg"]}),  # without one MLflow warns
        pip_requirements=[f"{name}=={found.split('+')[0]}" for name, found in _versions(SERVING_PACKAGES).items()],
    )


@contextmanager
def mlflow_errors(
    prefix: str = "", action: str = "take this run", alternative: str = "give --tracking off"
) -> Iterator[None]:
    """Turn whatever MLflow's client raises into a sentence: what it does not do, and what to do."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        advice = f"look after its server and its address, or {alternative}"
        raise FacadeError(f"{prefix}MLflow does not {action} ({reason}); {advice}.") from None


def _tags(name: str, parent: str | None) -> dict[str, str]:
    tags = {STAGE_TAG: name, "mlflow.user": os.environ.get("USER", "")}
    tags |= {"mlflow.parentRunId": parent} if parent else {}
    tags |= {f"version.{package}": found for package, found in _versions(PACKAGES).items()}
    commit = _commit()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def _versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _commit() -> str | None:
    """Return the commit of the checkout that this program runs from, if it runs from one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level of dotted names; a mapping whose keys are no names stays one value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and all(NAME.fullmatch(inner) for inner in value):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
