"""How the DAGs call `facade`, and the policies that they share; the command line makes every decision about data.

Variables of Airflow (or `AIRFLOW_VAR_NAME` in the environment of its workers):

* `facade`: the program, if it is not on the PATH of the workers.
* `facade_run`: the file of `facade run`, an absolute path; used where a DAG run names no other.
* `facade_options`: more options for `facade run` and `facade detect`, such as `--scheduler tcp://...`.
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

DATASET = Asset("facade_dataset")  # its events hold the run file, the tables' digests, and what changed
GPU = "gpu"  # the pool of long computations: one slot a machine, since a command takes all GPUs of its machine
WRONG_USAGE = 2  # the exit code that a retry cannot fix

RUN = Param(
    "",
    type="string",
    title="File of `facade run`",
    description="An absolute path, as the workers see it. Empty: the one in the Variable facade_run.",
)


def log_failure(context: Mapping[str, Any]) -> None:
    """Log in one line which task has finally failed, and why."""
    instance = context["task_instance"]
    details = (instance.dag_id, instance.task_id, instance.try_number, context.get("exception"))
    log.error("%s: task %s failed after %s tries, no retry left: %s", *details)


# The first wait before a retry is Airflow's own setting, 5 minutes; mapped tasks use it only if it is named here.
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
        "on_failure_callback": log_failure,
    },
}


@task
def stage(name: str) -> dict[str, Any]:
    """Run one stage of the run file; it skips what is done with the same inputs and settings."""
    return facade("run", run_file(), "--from", name, "--to", name, *options())


def options() -> list[str]:
    """Return the options of the Variable, for commands that run on Dask."""
    return shlex.split(Variable.get("facade_options", default=""))


def run_file() -> str:
    """Return the file of `facade run`: the DAG run's parameter, else the triggering event's, else the Variable."""
    context: Any = get_current_context()
    events = context["triggering_asset_events"].get(DATASET, ())
    triggered = [event.extra["run"] for event in events if "run" in event.extra][-1:]
    path = context["params"]["run"] or "".join(triggered) or Variable.get("facade_run", default="")
    if not path:
        raise AirflowFailException("Which datasets? Set the Variable facade_run to a file of `facade run`.")
    return str(path)


def facade(*arguments: object) -> dict[str, Any]:
    """Run a command and return its line of JSON; its messages for people go to the task's log as they are printed.

    Raises:
        AirflowFailException: on wrong usage, which a retry cannot fix.
        AirflowException: on any other failure; a retry resumes where the command was.
    """
    command = [str(Variable.get("facade", default="facade")), *map(str, arguments)]
    log.info("%s", shlex.join(command))
    with TemporaryFile("w+", encoding="utf-8") as out:
        code = _run(command, out)
        out.seek(0)
        line = _last_line(out.read())
    if code == 0:
        return line
    ending = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    reason = line.get("error") or f"{shlex.join(command)} {ending}"
    raise AirflowFailException(reason) if code == WRONG_USAGE else AirflowException(reason)


def _run(command: list[str], out: TextIO) -> int:
    """Run a command that ends with its task, be that timed out, cleared or stopped; return its exit code."""
    try:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True, errors="replace")
    except OSError as error:
        raise AirflowFailException(f"{command[0]}: {error.strerror}; set the Variable facade to its path.") from None
    # Airflow's own handler would leave the command running.
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        assert process.stderr is not None
        for message in process.stderr:
            log.info("%s", message.rstrip())
        return process.wait()
    finally:
        process.terminate()
        process.wait()
        signal.signal(signal.SIGTERM, before)


def _last_line(text: str) -> dict[str, Any]:
    """Parse the last line as JSON; a command that was killed prints none."""
    lines = text.splitlines()
    return dict(json.loads(lines[-1])) if lines else {}
