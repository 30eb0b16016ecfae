"""Progress for people, on stderr: one line that moves on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

__all__ = ["Progress"]

PLAIN_SECONDS, TERMINAL_SECONDS = 10.0, 0.2


@dataclass
class Progress:
    """Counts done and rejected rows, and says so often enough."""

    stage: str
    total: int
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    done: int = 0
    rejected: int = 0
    started: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)

    def advance(self, rows: int, rejected: int = 0) -> None:
        """Count some rows more, and show it if the last line is old enough or this is the end."""
        self.done, self.rejected = self.done + rows, self.rejected + rejected
        now, pause = time.monotonic(), TERMINAL_SECONDS if self.stream.isatty() else PLAIN_SECONDS
        if now - self._said >= pause or self.done >= self.total:
            self._said = now
            self._show(now)

    def _show(self, now: float) -> None:
        seconds = max(now - self.started, 1e-6)
        rate = self.done / seconds
        left = f", {_clock((self.total - self.done) / rate)} left" if 0 < self.done < self.total else ""
        bad = f", {self.rejected:,} rejected" if self.rejected else ""
        line = f"{self.stage} {_bar(self.done / max(self.total, 1))} {self.done:,} of {self.total:,}"
        text = f"{line}, {rate:,.0f} per second{left}{bad}"
        if self.stream.isatty():
            self.stream.write(f"\r\x1b[2K{text}" + ("\n" if self.done >= self.total else ""))
        else:
            self.stream.write(text + "\n")
        self.stream.flush()


def _bar(share: float, width: int = 20) -> str:
    filled = round(share * width)
    return "[" + "#" * filled + "." * (width - filled) + "]"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
