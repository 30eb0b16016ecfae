"""The contract of the command line: one line of JSON, exit codes, one sentence."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

KEYS = ["stage", "changed", "rows_in", "rows_out", "rejected", "seconds", "per_second"]
KEYS += ["outputs", "digest", "added", "removed", "modified", "run_id"]


def test_stage_prints_one_line_of_json_and_messages_on_stderr(
    facade: Callable, drawn: Path, tmp_path: Path, cards
) -> None:
    (tmp_path / "card.toml").write_text(cards[0])
    common = ("--work", "a b/wörk", "--tracking", "off", "--workers", 0)
    first = facade("index", "--card", "card.toml", "--root", drawn, *common)
    assert (first.code, list(first.line), first.line["rows_out"]) == (0, KEYS, 10)
    assert "drawn: 10 photos" in first.text
    extracted = facade("extract", *common, "--set", "extract.previews=0")
    assert (extracted.code, extracted.line["outputs"]["extraction_log"]) == (0, 10)
    again = facade("extract", *common, "--set", "extract.previews=0")
    assert (again.code, again.line["changed"]) == (0, False)
    assert "nothing to do" in again.text
    checked = facade("verify", "a b/wörk")
    assert (checked.code, checked.line["rows_in"]) == (0, 20)


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("extract",), 2, "Missing option '--work'"),
        (("nonsense",), 2, "No such command 'nonsense'"),
        (("calibrate", "--work", "w"), 2, "No such command 'calibrate'; it is called priors since version 0.2"),
        (("train", "--work", "w", "--adopt", "x"), 2, "it is called --import-run since version 0.2"),
        (("detect", "w", "--draw", "3"), 2, "it is called --previews since version 0.2"),
        (("extract", "--work", "w", "--workers", "-1"), 2, "--workers"),
        (("extract", "--work", "w", "--set", "extract.recipe=mine"), 2, "'components' or 'epfl'"),
        (("extract", "--work", "w", "--config", "no.toml"), 2, "cannot read no.toml"),
        (("extract", "--work", "w"), 1, "run `facade index` on it first"),
        (("index", "--card", "none", "--root", ".", "--work", "w"), 2, "no card 'none'"),
        (("index", "--card", "cmp", "--root", "nowhere", "--work", "w"), 1, "nowhere is not a folder"),
        (("index", "--card", "cmp", "--root", ".", "--work", "file/w"), 1, "Not a directory"),
        (("verify", "nowhere"), 1, "holds no finished stage"),
    ],
)
def test_error_is_one_sentence_and_an_exit_code(
    facade: Callable, tmp_path: Path, arguments: tuple[str, ...], code: int, word: str
) -> None:
    (tmp_path / "file").write_text("")
    result = facade(*arguments)
    assert result.code == code
    assert word in result.line["error"]
    assert f"error: {result.line['error']}" in result.text
    assert "\n" not in result.line["error"]


def test_debug_shows_the_traceback(command: Callable, tmp_path: Path) -> None:
    import subprocess

    done = subprocess.run(
        command("extract", "--work", tmp_path, "--debug"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_help_loads_nothing_heavy() -> None:
    """It must answer in under a second; no timing is asserted, but what would make it slow."""
    import subprocess
    import sys

    program = "import sys\nfrom pipeline.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    program += "print(sorted({'numpy', 'pyarrow', 'dask', 'mlflow', 'PIL', 'scipy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "index" in done.stdout


def test_terminated_command_says_how_to_resume(command: Callable, tmp_path: Path) -> None:
    import json
    import signal
    import subprocess

    arguments = command("demo", "--out", "d", "--images", 400, "--tracking", "off", "--workers", 0)
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        while not list(tmp_path.rglob("facade_00002.jpg")):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert process.returncode == 130
    assert "re-run the same command to resume" in json.loads(out)["error"]
    assert "Traceback" not in err


def test_no_command_prints_the_help(command: Callable) -> None:
    import subprocess

    done = subprocess.run(command(), capture_output=True, text=True, check=True)
    assert "Usage: facade" in done.stdout
    assert "error" not in done.stdout


def test_mistyped_work_folder_is_not_created(facade: Callable, tmp_path: Path) -> None:
    assert facade("extract", "--work", "typo").code == 1
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("pause", [0.0, 0.7, 1.5, 2.5])
def test_interrupt_is_one_sentence_at_any_moment(
    command: Callable, drawn: Path, tmp_path: Path, cards, pause: float
) -> None:
    import json
    import signal
    import subprocess

    (tmp_path / "card.toml").write_text(cards[0])
    arguments = command("index", "--card", "card.toml", "--root", drawn, "--work", "w", "--tracking", "off")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, **pipes, text=True, cwd=tmp_path, start_new_session=True) as process:
        while not (tmp_path / "w/index/.lock").exists():  # from here on it is the command's to answer
            time.sleep(0.01)
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode in {0, 130}
    assert "Traceback" not in err, err
    assert ("error" in json.loads(out)) == (process.returncode == 130)
