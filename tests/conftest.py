"""What many tests stand on: drawn datasets, the real photos where they are, and the command line as a process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.card import parse_card, resolve_card
from pipeline.datasets.synthetic import write_dataset
from pipeline.datasets.synthetic.cards import BOX_CARD, mask_card
from pipeline.execution.parallel import WorkerConfig
from pipeline.execution.runner import Context, Outcome
from pipeline.stages.extract import stage as extract
from pipeline.stages.index import stage as index
from pipeline.tracking.run_logger import OFF

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photos with labels."""
    if not SHARED.is_dir():
        pytest.skip(f"no real photos: {SHARED} is not there")
    return SHARED


@pytest.fixture(scope="session")
def make_streets(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes synthetic datasets: `make_streets(count, seed, width, height)`; never written to by a test."""

    def make(count: int, seed: int, width: int, height: int) -> Path:
        folder = tmp_path_factory.mktemp("streets")
        write_dataset(folder, count, seed=seed, width=width, height=height)
        return folder

    return make


@pytest.fixture(scope="session")
def drawn(make_streets: Callable[..., Path]) -> Path:
    """A synthetic dataset of 10 small facades."""
    return make_streets(10, 5, 320, 240)


@pytest.fixture
def drawn_copy(drawn: Path, tmp_path: Path) -> Path:
    """A copy of the drawn dataset that a test may spoil."""
    return Path(shutil.copytree(drawn, tmp_path / "copy"))


@dataclass(frozen=True)
class Workspace:
    """A work folder, and the stages run on it in this process."""

    context: Context
    messages: list[str]

    def index(self, root: Path, card_text: str = "", name: str = "", **settings: Any) -> Outcome:
        card, text = (parse_card(card_text, "test"), card_text) if card_text else resolve_card(name)
        return index.run(self.context, index.IndexConfig(**settings), card, text, str(root))

    def extract(self, **settings: Any) -> Outcome:
        return extract.run(self.context, extract.ExtractConfig(**{"previews": 0, **settings}))

    def rows(self, stage: str, table: str, dataset: str | None = None) -> list[dict[str, Any]]:
        return self.context.folder(stage).read(table, dataset).to_pylist()


@pytest.fixture
def workplace(tmp_path: Path) -> Callable[..., Workspace]:
    """Makes workplaces below the test's folder: `workplace(name, **context)`."""

    def make(name: str = "work", **changes: Any) -> Workspace:
        said: list[str] = []
        settings = {
            "workers": WorkerConfig(count=0),
            "tracking": OFF,
            "disk_retry_seconds": 0.0,
            "log": said.append,
            **changes,
        }
        settings.setdefault("make_progress", lambda *_: SilentProgress())
        return Workspace(Context(tmp_path / name, **settings), said)

    return make


class SilentProgress:
    """A progress bar that says nothing."""

    def advance(self, rows: int, rejected: int = 0) -> None:
        pass

    def advance_in_flight(self, rows: int) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class CommandResult:
    """What a command left: exit code, the line on stdout, and what people read."""

    code: int
    line: dict[str, Any]
    text: str


@pytest.fixture(scope="session")
def command() -> Callable[..., list[str]]:
    """Makes the command line an argument list for a process."""

    def make(*arguments: object) -> list[str]:
        return [sys.executable, "-c", "from pipeline.cli.main import main; main()", *map(str, arguments)]

    return make


@pytest.fixture
def facade(tmp_path: Path, command: Callable[..., list[str]]) -> Callable[..., CommandResult]:
    """Runs a command as a process of its own, in the test's folder, and holds its output to the contract."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> CommandResult:
        done = subprocess.run(
            command(*arguments),
            capture_output=True,
            check=False,
            text=True,
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
        )
        assert "Traceback" not in done.stderr, done.stderr
        lines = done.stdout.splitlines()
        assert len(lines) == 1, f"one line on stdout, got {lines} and {done.stderr}"
        return CommandResult(done.returncode, json.loads(lines[0]), done.stderr)

    return run


@pytest.fixture(scope="session")
def cards() -> Sequence[str]:
    """The demo's two cards: masks, and exact boxes."""
    return mask_card(), BOX_CARD


@pytest.fixture
def even_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans of archives have shards of one size from the first on."""
    monkeypatch.setattr("pipeline.stages.detect.plan.shard_size", lambda _: 512)
