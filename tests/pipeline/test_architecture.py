"""Each folder imports only from the floors below it, and heavy packages stay in the one folder that knows them."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.stages import STAGES

ROOT = Path(__file__).resolve().parents[2]
FILES = [path for package in ("pipeline", "ssd", "dags") for path in sorted((ROOT / package).rglob("*.py"))]
# A folder or module may import what stands before it in its list, and itself.
FLOORS = {
    "pipeline": (
        *("errors", "assets", "config", "storage", "imaging", "tracking", "execution", "datasets", "models", "stages"),
        *(f"stages/{name}" for name in STAGES),
        *("comparison", "workflow", "demo", "cli"),
    ),
    "ssd": (
        *(
            "device",
            "boxes",
            "containers",
            "box_coder",
            "nms",
            "resize",
            "malloc",
            "priors",
            "backbones",
            "heads",
            "model",
        ),
        *("decoding", "bundle", "weight_conversion", "augmentation", "losses", "metrics", "inference", "training"),
    ),
}
ONLY_IN = {
    "dask": {"pipeline/execution/parallel.py"},
    "distributed": {"pipeline/execution/parallel.py"},
    "mlflow": {
        *("pipeline/tracking/run_logger.py", "pipeline/tracking/registry.py", "pipeline/tracking/pyfunc_model.py"),
    },
    "jinja2": {"pipeline/stages/report/html.py"},
    "onnx": {"pipeline/models/onnx_export.py"},
    "onnxruntime": {"pipeline/models/onnx_export.py"},
    "pickle": set(),
    "xml": set(),
}
SSD_NEEDS = {"numpy", "safetensors", "torch", "torchvision"}
NEVER = {"ssd": {"pipeline", "dags"}, "pipeline": {"dags", "tests"}, "dags": {"pipeline", "ssd", "tests"}}
MAX_MODULES = 14


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def modules(path: Path, top_only: bool = False) -> set[str]:
    """The modules that a file imports; of `from a import b` both a and a.b, which may be a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_only else list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def packages(path: Path, top_only: bool = False) -> set[str]:
    return {name.split(".")[0] for name in modules(path, top_only)}


def room_of(parts: tuple[str, ...]) -> str | None:
    """The folder or module that has a floor, of a module's dotted name; none of the package itself."""
    package, *rest = parts
    for length in (2, 1):
        if (room := "/".join(rest[:length])) in FLOORS[package]:
            return room
    return None


def upward(path: Path) -> Iterator[str]:
    """The imports of a file that go to a floor above its own."""
    package, *_ = path.relative_to(ROOT).parts
    own = room_of(path.relative_to(ROOT).with_suffix("").parts)
    floors = FLOORS[package]
    for module in sorted(modules(path)):
        room = room_of(tuple(module.split("."))) if module.split(".")[0] == package else None
        if room is not None and own is not None and floors.index(room) > floors.index(own):
            yield f"{name_of(path)} imports {module}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_downward(path: Path) -> None:
    name = name_of(path)
    imported = packages(path)
    assert not imported & NEVER[name.split("/")[0]]
    for package, allowed in ONLY_IN.items():
        assert package not in imported or name in allowed, f"{name} imports {package}"
    assert name.startswith("dags/") or not list(upward(path))


@pytest.mark.parametrize("package", FLOORS)
def test_every_module_has_a_floor(package: str) -> None:
    paths = [path for path in FILES if path.relative_to(ROOT).parts[0] == package and path.name != "__init__.py"]
    for path in paths:
        assert room_of(path.relative_to(ROOT).with_suffix("").parts), f"{name_of(path)} has no floor"
    for room in FLOORS[package]:
        assert (ROOT / package / room).is_dir() or (ROOT / package / f"{room}.py").is_file(), f"no {package}/{room}"


def test_stages_are_the_folders_of_stages() -> None:
    folders = {path.parent.name for path in (ROOT / "pipeline/stages").glob("*/stage.py")}
    assert folders == set(STAGES)


def test_folders_stay_small_and_shallow() -> None:
    assert len(list((ROOT / "pipeline").glob("*.py"))) <= 8
    for package in ("pipeline", "ssd"):
        for folder in [path for path in (ROOT / package).rglob("*") if path.is_dir() and path.name != "__pycache__"]:
            assert len(folder.relative_to(ROOT / package).parts) <= 2, folder
            count = len([path for path in folder.glob("*.py") if path.name != "__init__.py"])
            assert count <= MAX_MODULES or folder.match("datasets/synthetic"), f"{folder} has {count} modules"


def test_no_module_imports_itself_by_a_detour() -> None:
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    below = {name: modules(path) & names.keys() - {name} for name, path in names.items()}
    while leaves := {name for name, imported in below.items() if not imported & below.keys()}:
        below = {name: imported for name, imported in below.items() if name not in leaves}
    assert not below, f"a circle among {sorted(below)}"


def test_the_files_were_found() -> None:
    assert len(FILES) > 100


def test_the_command_line_imports_nothing_heavy_at_its_top() -> None:
    light = {"annotations", "__future__", "pipeline", "typer", *sys.stdlib_module_names}
    for path in (ROOT / "pipeline/cli").glob("*.py"):
        assert packages(path, top_only=True) <= light, path


def test_the_detector_needs_four_packages_and_nothing_else() -> None:
    paths = [path for path in FILES if path.relative_to(ROOT).parts[0] == "ssd"]
    assert paths
    for path in paths:
        assert packages(path) <= {"__future__", "ssd", *SSD_NEEDS, *sys.stdlib_module_names}, path


def test_only_command_lines_print() -> None:
    for path in FILES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        prints = [node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
        assert not prints or name_of(path) in {"pipeline/cli/output.py", "ssd/training/__main__.py"}, path
