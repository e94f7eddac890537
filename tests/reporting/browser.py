"""A real Chromium, driven over its debugging pipe: no package beyond the standard library."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PATIENCE = 60  # seconds


class Tab:
    """One tab; everything it logged and asked the network for is kept."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._buffer, self._count = write, read, b"", 0
        self._session: str | None = None
        self.logged: list[str] = []
        self.requested: list[str] = []
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol and its result."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        number = self._count
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, page: Path, width: int) -> None:
        """Load a file at this width and wait until it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        self._loaded = False
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not self._loaded:
            self._next()
        self.evaluate("new Promise(done => setTimeout(done, 300))")  # for anything a script might still start

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], PATIENCE)[0], "chromium does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "chromium is gone"
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(line)
        method, given = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Log.entryAdded":
            self.logged.append(given["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.logged.append(str(given["args"]))
        elif method == "Runtime.exceptionThrown":
            self.logged.append(str(given["exceptionDetails"]))
        elif method == "Network.requestWillBeSent":
            self.requested.append(given["request"]["url"])
        return message


@contextmanager
def tab() -> Iterator[Tab]:
    """A tab in a fresh browser with a profile of its own."""
    assert CHROMIUM is not None
    profile = tempfile.mkdtemp(prefix="mata-interp-chromium-")
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    # --remote-debugging-pipe reads from descriptor 3 and writes to 4
    shell = f'exec "$0" "$@" 3<&{to_read} 4>&{from_write}'
    browser = subprocess.Popen(
        ["bash", "-c", shell, CHROMIUM, *flags],
        pass_fds=(to_read, from_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(from_write)
    try:
        yield Tab(to_write, from_read)
    finally:
        browser.terminate()
        browser.wait(timeout=20)
        os.close(to_write)
        os.close(from_read)
        time.sleep(0.1)  # its children write a last time
        shutil.rmtree(profile, ignore_errors=True)
