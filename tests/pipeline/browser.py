"""A headless Chromium, spoken to by its DevTools protocol through two pipes: no driver, no port, no package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe"),
]
# Chromium reads what it is told from descriptor 3 and answers on 4.
LAUNCHER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
)


def find_chromium() -> str | None:
    """Return the browser that is installed, if one is."""
    return next((path for name in BROWSER_NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page in a browser of its own; `requests` are the addresses it asked for, `messages` what it complained of."""

    def __init__(self, program: str, profile: Path) -> None:
        heard, self._write = (_move_descriptor(end) for end in os.pipe())
        self._read, said = (_move_descriptor(end) for end in os.pipe())
        start = [sys.executable, "-c", LAUNCHER, str(heard), str(said), program, *OPTIONS, f"--user-data-dir={profile}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(start, pass_fds=(heard, said), **quiet)
        os.close(heard)
        os.close(said)
        self._buffer, self._last_id, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []
        page = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def open(self, page: Path, width: int, height: int = 900, scheme: str = "light") -> None:
        """Show a file in a window of this size, for people who like it light or dark."""
        self._events.clear()
        self.resize(width, height)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=page.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._read_message()

    def resize(self, width: int, height: int) -> None:
        """Make the window so large."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    @property
    def requests(self) -> list[str]:
        """The addresses that the page asked for, without what it carries itself."""
        sent = [event["params"] for event in self._events if event["method"] == "Network.requestWillBeSent"]
        return [one["request"]["url"] for one in sent if not one["request"]["url"].startswith("data:")]

    @property
    def messages(self) -> list[Any]:
        """What stands in the browser's console."""
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [event["params"] for event in self._events if event["method"] in kinds]

    def evaluate(self, expression: str) -> Any:
        """Return what an expression of JavaScript is on the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)[
            "result"
        ].get("value")

    def screenshot(self) -> bytes:
        """Return what the window shows as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def pdf(self) -> bytes:
        """Return the page as it is printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"])

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self.call("Browser.close")
        self._process.wait(10)
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, **parameters: Any) -> Any:
        """Return what a command of the protocol answers."""
        self._last_id += 1
        command = {"id": self._last_id, "method": method, "params": parameters}
        command |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(command).encode() + b"\0")
        while (answer := self._read_message()).get("id") != self._last_id:
            pass
        assert "result" in answer, answer
        return answer["result"]

    def _read_message(self) -> dict[str, Any]:
        """Return the next thing that the browser says; events are kept."""
        while b"\0" not in self._buffer:
            more = os.read(self._read, 1 << 20)
            assert more, "the browser is gone"
            self._buffer += more
        text, _, self._buffer = self._buffer.partition(b"\0")
        heard: dict[str, Any] = json.loads(text)
        if "method" in heard:
            self._events.append(heard)
        return heard


def _move_descriptor(end: int) -> int:
    """Return a descriptor out of the way of 3 and 4."""
    high = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(end)
    return high
