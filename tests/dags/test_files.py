"""What can be seen of the DAGs without Airflow."""

import ast
import re
import sys
from pathlib import Path

import pytest

DAGS = Path(__file__).resolve().parents[2] / "dags"
FILES = sorted(DAGS.glob("*.py"))
OURS = {path.stem for path in FILES}


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert not [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_dag_imports_airflow_and_the_standard_library(path: Path) -> None:
    assert imported(path) <= {"airflow", *OURS, *sys.stdlib_module_names}


def test_dags_exist() -> None:
    assert {"detect_archive", "regenerate_dataset", "train_and_compare"} == OURS - {"facade_cli"}


def test_other_files_are_not_read_as_dags() -> None:
    assert (DAGS / ".airflowignore").read_text().split() == ["facade_cli.py"]


def test_lock_has_names_and_versions_only() -> None:
    lines = (DAGS / "requirements.lock").read_text().splitlines()
    assert len(lines) > 100
    assert not [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+( ; .+)?", line)]
