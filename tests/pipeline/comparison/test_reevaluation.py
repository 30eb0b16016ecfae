"""A champion that was evaluated on other boxes than the candidate is evaluated again on the candidate's."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.datasets.synthetic import write_dataset
from pipeline.stages.evaluate.candidate import CHAMPION
from pipeline.tracking.registry import open_store

from ..run_files import run_toml


@pytest.mark.filterwarnings("ignore")
def test_new_data_and_a_champion_of_the_old(facade: Callable, tmp_path: Path, cards: tuple[str, str]) -> None:
    tracking = ("--tracking", f"sqlite:///{tmp_path}/runs.db")
    everything = ("run", "run.toml", "--to", "evaluate", *tracking, "--workers", 0)
    promotion = ("model", "promote", "--work", "work", *tracking)
    (tmp_path / "card.toml").write_text(cards[1])
    (tmp_path / "run.toml").write_text(run_toml(batch=2))
    write_dataset(tmp_path / "set", 12, seed=5, width=160, height=120)
    assert facade(*everything).code == 0
    first = facade(*promotion)
    assert (first.code, first.line["changed"], first.line["candidate"]) == (0, True, "1")

    shutil.rmtree(tmp_path / "set")
    write_dataset(tmp_path / "set", 24, seed=5, width=160, height=120)
    done = facade(*everything)
    assert (done.code, done.line["work"]) == (0, str(tmp_path / "work"))
    apart = facade("model", "promote", *tracking)
    assert (apart.line["changed"], "on different ground truth" in apart.line["reason"]) == (False, True)
    own = (tmp_path / "work/evaluate/_manifest.json").read_bytes()
    judged = facade(*promotion)
    assert judged.code == 0
    assert "re-evaluating the champion on the current ground truth of" in judged.text
    assert (judged.line["candidate"], judged.line["champion"]) == ("2", "1")
    assert "version 2" in judged.line["reason"]
    assert "ground_truths" not in judged.line["reason"]
    assert (tmp_path / "work/evaluate/_manifest.json").read_bytes() == own
    assert facade("verify", "work").code == 0
    again = facade(*promotion)
    assert ("re-evaluating" in again.text, again.line["reason"]) == (False, judged.line["reason"])
    version = open_store(tracking[1]).version("facade", CHAMPION)
    assert version is not None
    assert version.number == "1"

    shutil.rmtree(tmp_path / "work/evaluate")
    assert facade(*promotion).code == 0  # both are judged on the same truths: there is nothing to do here
