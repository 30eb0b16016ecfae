"""Arrows point one way, and heavy packages stay behind the one module that knows them."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [path for package in ("pipeline", "ssd", "dags") for path in sorted((ROOT / package).rglob("*.py"))]
ONLY_IN = {
    "dask": {"pipeline/parallel.py"},
    "distributed": {"pipeline/parallel.py"},
    "mlflow": {"pipeline/tracking.py", "pipeline/registry.py", "pipeline/served.py"},
    "onnx": {"pipeline/onnx_export.py"},
    "onnxruntime": {"pipeline/onnx_export.py"},
    "pickle": set(),
    "xml": set(),
}
SSD_NEEDS = {"numpy", "safetensors", "torch", "torchvision"}
NEVER = {"ssd": {"pipeline", "dags"}, "pipeline": {"dags", "tests"}, "dags": {"pipeline", "ssd", "tests"}}


def imports(path: Path, top_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_arrows_point_one_way(path: Path) -> None:
    found, name = imports(path), path.relative_to(ROOT).as_posix()
    assert not found & NEVER[name.split("/")[0]]
    for package, modules in ONLY_IN.items():
        assert package not in found or name in modules, f"{name} imports {package}"


def test_the_files_were_found() -> None:
    assert len(FILES) > 30


def test_the_command_line_imports_nothing_heavy_at_its_top() -> None:
    light = {"annotations", "__future__", "pipeline", "typer", *sys.stdlib_module_names}
    assert imports(ROOT / "pipeline/cli.py", top_only=True) <= light


def test_the_detector_needs_four_packages_and_nothing_else() -> None:
    paths = [path for path in FILES if path.relative_to(ROOT).parts[0] == "ssd"]
    assert paths
    for path in paths:
        assert imports(path) <= {"__future__", "ssd", *SSD_NEEDS, *sys.stdlib_module_names}, path


def test_only_command_lines_print() -> None:
    for path in FILES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        prints = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
        assert not prints or path.name in {"console.py", "__main__.py"}, path
