"""How the DAGs call `facade`, and what holds for all of them; every decision about data is the command line's own.

Variables of Airflow (or `AIRFLOW_VAR_NAME` in the environment of its workers):

* `facade`: the program, if it is not on the PATH of the workers.
* `facade_run`: the file of `facade run`, an absolute path, where a DAG run names no other.
* `facade_options`: more words for `facade run` and `facade detect`, as `--scheduler tcp://...`.
"""

from __future__ import annotations

import json
import logging
import shlex
import signal
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryFile
from typing import Any, TextIO

from airflow.sdk import Asset, Param, Variable, conf, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

__all__ = ["DATASET", "GPU", "POLICY", "RUN", "facade", "options", "run_file", "stage"]

log = logging.getLogger(__name__)

DATASET = Asset("facade_dataset")  # its events say which run's file it is of, the tables' digests, and what changed
GPU = "gpu"  # the pool of whatever computes long: a slot a machine, for a command takes all GPUs of its machine
WRONG_USAGE = 2  # the exit code that no second try mends

RUN = Param(
    "",
    type="string",
    title="File of `facade run`",
    description="An absolute path, as the workers see it. Empty: the one in the Variable facade_run.",
)


def tell_failure(context: Mapping[str, Any]) -> None:
    """Say in one line of the log which task has failed for good, and why."""
    instance = context["task_instance"]
    told = (instance.dag_id, instance.task_id, instance.try_number, context.get("exception"))
    log.error("%s: the task %s has failed, and after %s tries there is no other: %s", *told)


# The first wait before a retry is Airflow's own setting, 5 minutes; mapped tasks heed it only if they are told.
POLICY: dict[str, Any] = {
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "max_active_runs": 1,
    "default_args": {
        "owner": "facade",
        "retries": 3,
        "retry_delay": timedelta(seconds=conf.getint("core", "default_task_retry_delay", fallback=300)),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(hours=1),
        "execution_timeout": timedelta(hours=12),
        "on_failure_callback": tell_failure,
    },
}


@task
def stage(name: str) -> dict[str, Any]:
    """Run one stage of the run's file; done with the same inputs and settings, it is not done again."""
    return facade("run", run_file(), "--from", name, "--to", name, *options())


def options() -> list[str]:
    """Return the words that the Variable has for whatever Dask can spread."""
    return shlex.split(Variable.get("facade_options", default=""))


def run_file() -> str:
    """Return the file of `facade run`: of the DAG run's parameters, of the data that triggered it, or the Variable."""
    context: Any = get_current_context()
    events = context["triggering_asset_events"].get(DATASET, ())
    triggered = [event.extra["run"] for event in events if "run" in event.extra][-1:]
    named = context["params"]["run"] or "".join(triggered) or Variable.get("facade_run", default="")
    if not named:
        raise AirflowFailException("Which datasets? Set the Variable facade_run to a file of `facade run`.")
    return str(named)


def facade(*arguments: object) -> dict[str, Any]:
    """Return the line of JSON that a command prints; what it tells people is in the task's log as it happens.

    Wrong usage fails for good, anything else is tried again: every command goes on where it was.
    """
    command = [str(Variable.get("facade", default="facade")), *map(str, arguments)]
    log.info("%s", shlex.join(command))
    with TemporaryFile("w+", encoding="utf-8") as out:
        code = _run(command, out)
        out.seek(0)
        line = _last_line(out.read())
    if code == 0:
        return line
    how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    reason = line.get("error") or f"{shlex.join(command)} {how}"
    raise AirflowFailException(reason) if code == WRONG_USAGE else AirflowException(reason)


def _run(command: list[str], out: TextIO) -> int:
    """Return the exit code of a command that ends with its task, whether that is timed out, cleared or stopped."""
    try:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True, errors="replace")
    except OSError as error:
        raise AirflowFailException(f"{command[0]}: {error.strerror}; set the Variable facade to its path.") from None
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())  # Airflow's own leaves the command behind
    try:
        assert process.stderr is not None
        for told in process.stderr:
            log.info("%s", told.rstrip())
        return process.wait()
    finally:
        process.terminate()
        process.wait()
        signal.signal(signal.SIGTERM, before)


def _last_line(text: str) -> dict[str, Any]:
    """Return the last line as what it is in JSON; a command that was killed prints none."""
    lines = text.splitlines()
    return dict(json.loads(lines[-1])) if lines else {}
