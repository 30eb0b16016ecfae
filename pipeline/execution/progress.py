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
    """Counts done and rejected rows, of a total if it is known, and says so often enough."""

    stage: str
    total: int | None
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    done: int = 0
    rejected: int = 0
    started: float = field(default_factory=time.monotonic)
    _last_shown: float = field(default_factory=time.monotonic)
    _in_flight: int = 0

    def advance(self, rows: int, rejected: int = 0) -> None:
        """Count some rows more, and show it if the last line is old enough or this is the end."""
        self.done, self.rejected = self.done + rows, self.rejected + rejected
        self._show_if_due()

    def advance_in_flight(self, rows: int) -> None:
        """Show that some rows more are done but not yet kept; rows that are done again may come again."""
        self._in_flight += rows
        self._show_if_due()

    def close(self) -> None:
        """End the line of work whose total was not known."""
        if self.total is None and self.stream.isatty():
            self._show(time.monotonic())
            self.stream.write("\n")

    def _show_if_due(self) -> None:
        now, pause = time.monotonic(), TERMINAL_SECONDS if self.stream.isatty() else PLAIN_SECONDS
        if now - self._last_shown >= pause or (self.total is not None and self.done >= self.total):
            self._last_shown = now
            self._show(now)

    def _show(self, now: float) -> None:
        text, end = self._format_line(max(now - self.started, 1e-6))
        if self.stream.isatty():
            self.stream.write(f"\r\x1b[2K{text}" + ("\n" if end else ""))
        else:
            self.stream.write(text + "\n")
        self.stream.flush()

    def _format_line(self, seconds: float) -> tuple[str, bool]:
        """Return the line, and whether it is the last one."""
        if self.total is None:
            return f"{self.stage} {self.done:,}, {self.done / seconds:,.0f} per second", False
        done = max(self.done, min(self._in_flight, self.total - 1))
        rate = done / seconds
        left = f", {_clock((self.total - done) / rate)} left" if 0 < done < self.total else ""
        bad = f", {self.rejected:,} rejected" if self.rejected else ""
        line = f"{self.stage} {_bar(done / max(self.total, 1))} {done:,} of {self.total:,}"
        return f"{line}, {rate:,.0f} per second{left}{bad}", self.done >= self.total


def _bar(share: float, width: int = 20) -> str:
    filled = round(share * width)
    return "[" + "#" * filled + "." * (width - filled) + "]"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
