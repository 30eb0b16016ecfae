"""How a task calls the program: its line, its exit codes, and that it ends with its task."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("airflow", reason="Airflow is in an environment of its own; `make test-all` makes it")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "dags"))
    import facade_cli

    return facade_cli


@pytest.fixture
def variables(module: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Airflow's Variables."""
    known: dict[str, str] = {}

    class Variable:
        @staticmethod
        def get(name: str, default: str) -> str:
            return known.get(name, default)

    monkeypatch.setattr(module, "Variable", Variable)
    return known


@pytest.fixture
def program(variables: dict[str, str], tmp_path: Path) -> Callable[[str], None]:
    """Make a program of lines of Python."""

    def make(lines: str) -> None:
        path = tmp_path / "program"
        path.write_text(f"#!{sys.executable}\nimport json, os, signal, sys, time\n{lines}\n")
        path.chmod(0o755)
        variables["facade"] = str(path)

    return make


def test_last_line_is_the_result_and_messages_are_logged(
    module: Any, program: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    lines = "print('for people', file=sys.stderr)\nprint('early')\n"
    program(lines + "print(json.dumps({'of': sys.argv[1:], 'long': 'x' * 99999}))")
    with caplog.at_level(logging.INFO):
        line = module.facade("detect", Path("a b"), "--limit", 3)
    assert line["of"] == ["detect", "a b", "--limit", "3"]
    assert caplog.messages[0].endswith("program detect 'a b' --limit 3")
    assert caplog.messages[1:] == ["for people"]


@pytest.mark.parametrize(
    ("lines", "retried", "message"),
    [
        ("print(json.dumps({'error': 'no such key.'})); sys.exit(2)", False, "no such key."),
        ("print(json.dumps({'error': 'the disk is full.'})); sys.exit(1)", True, "the disk is full."),
        ("os.kill(os.getpid(), signal.SIGKILL)", True, "was ended by signal 9"),
        ("sys.exit(3)", True, "ended with 3"),
    ],
)
def test_only_wrong_usage_is_not_retried(
    module: Any, program: Callable, lines: str, retried: bool, message: str
) -> None:
    program(lines)
    with pytest.raises(module.AirflowException, match=message) as caught:
        module.facade("run")
    assert isinstance(caught.value, module.AirflowFailException) is not retried


def test_absent_program_is_one_sentence(module: Any, variables: dict[str, str]) -> None:
    variables["facade"] = "/nowhere/facade"
    with pytest.raises(module.AirflowFailException, match="/nowhere/facade: No such file or directory; set the Var"):
        module.facade("run")


def test_program_ends_with_its_task(module: Any, program: Callable) -> None:
    program("signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))\nprint('up', file=sys.stderr)\ntime.sleep(60)")
    before = signal.getsignal(signal.SIGTERM)
    Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()  # as Airflow stops a task
    with pytest.raises(module.AirflowException, match="ended with"):
        module.facade("run")
    assert signal.getsignal(signal.SIGTERM) is before

    def too_late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_late)  # as Airflow's timeout of a task
    signal.alarm(1)
    with pytest.raises(TimeoutError):
        module.facade("run")


def test_run_file_is_the_parameter_the_event_or_the_variable(
    module: Any, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context: dict[str, Any] = {"params": {"run": ""}, "triggering_asset_events": {}}
    monkeypatch.setattr(module, "get_current_context", lambda: context)
    with pytest.raises(module.AirflowFailException, match="Set the Variable facade_run"):
        module.run_file()
    variables["facade_run"] = "/a.toml"
    assert module.run_file() == "/a.toml"
    events = [SimpleNamespace(extra={"run": name}) for name in ("/b.toml", "/c.toml")]
    context["triggering_asset_events"] = {module.DATASET: events}
    assert module.run_file() == "/c.toml"
    context["params"]["run"] = "/d.toml"
    assert module.run_file() == "/d.toml"
