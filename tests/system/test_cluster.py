"""`facade run` on a Dask cluster gives the same tables as local workers."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.main import main
from pipeline.datasets.synthetic import write_dataset
from pipeline.execution import parallel

from ..pipeline.dask_cluster import scheduler, worker
from ..pipeline.run_files import run_toml


def test_cluster_gives_the_tables_of_local_workers(facade: Callable, tmp_path: Path, cards: tuple[str, str]) -> None:
    write_dataset(tmp_path / "set", 70, seed=3, width=160, height=120)  # two shards
    (tmp_path / "card.toml").write_text(cards[1])
    for name in ("here", "there"):
        (tmp_path / f"{name}.toml").write_text(run_toml(name))
    here = facade("run", "here.toml", "--tracking", "off", "--workers", 2)
    with scheduler() as address, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(worker(address, tmp_path))
        there = facade("run", "there.toml", "--tracking", "off", "--scheduler", address)
    assert (here.code, there.code) == (0, 0)
    stages = [stage for stage in here.line["stages"] if stage != "report"]
    assert len(stages) == 7
    for stage in stages:
        assert here.line["stages"][stage]["digest"] == there.line["stages"][stage]["digest"], stage


@pytest.mark.parametrize(
    "command", ["run run.toml --to priors --tracking off --workers 1", "demo --out demo --images 60 --workers 1"]
)
def test_a_command_starts_one_cluster(
    tmp_path: Path, drawn: Path, cards: tuple[str, str], monkeypatch: Any, command: str
) -> None:
    started: list[int] = []
    local_client = parallel.local_client

    def counted(count: int, **options: Any) -> Any:
        started.append(count)
        return local_client(count, **options)

    monkeypatch.setattr(parallel, "local_client", counted)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").symlink_to(drawn)
    (tmp_path / "card.toml").write_text(cards[1])
    (tmp_path / "run.toml").write_text(run_toml("work"))
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    assert not ended.value.code
    assert started == [1]
