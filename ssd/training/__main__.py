"""`python -m ssd.training DIR OUT`: train a prepared task where only this library is installed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from ssd.training.loop import TrainingCallbacks, TrainingRun
from ssd.training.task import load_task
from ssd.training.trainer import DivergedError


def main() -> int:
    """Train, and return the exit code; an entry an epoch goes to stderr, what it came to as one line to stdout."""
    parser = argparse.ArgumentParser(prog="python -m ssd.training", description=__doc__)
    parser.add_argument("dir", type=Path, help="what `facade train --prepare DIR` has written")
    parser.add_argument("out", type=Path, help="where checkpoint, history and bundle go; `facade train --adopt OUT`")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--checkpoint-minutes", type=float, default=10.0, help="from one checkpoint to the next")
    given = parser.parse_args()
    try:
        watch = TrainingCallbacks(on_epoch=_log_row, log=_log)
        finished = TrainingRun(
            load_task(given.dir), given.out, given.device, 60 * given.checkpoint_minutes, callbacks=watch
        ).run()
    except (ValueError, OSError, DivergedError) as error:
        _log(f"error: {error}")
        return 1
    print(json.dumps({"bundle": str(given.out / "bundle"), **vars(finished), "rows": len(finished.rows)}))  # noqa: T201
    return 0


def _log_row(row: Mapping[str, float]) -> None:
    _log("  ".join(f"{name} {value:.4g}" for name, value in row.items()))


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - a command of its own


if __name__ == "__main__":
    sys.exit(main())
