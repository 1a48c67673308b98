"""A headless Chromium driven over the DevTools protocol: what the browser tests and the screenshots need.

Software WebGL, so that the map draws on a machine without a graphics card.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import websocket

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Chromium", "Page", "PageError", "find_chromium"]

START_TIMEOUT_S = 60.0  # a cold start on a busy two-core machine took 20 s
KEY_CODES = {"Tab": 9, "Escape": 27}  # without its code a key moves no focus and closes no dialog
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


class PageError(AssertionError):
    """A script in the page failed, or what was waited for did not come."""


def find_chromium() -> str | None:
    """The browser's program; None: there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Chromium:
    """A browser of its own with an empty profile; a context manager that ends it and removes the profile."""

    def __init__(self, program: str | None = None, *, webgl: bool = True) -> None:
        found = program or find_chromium()
        if found is None:
            raise FileNotFoundError("no chromium is installed; install the distribution's chromium package")
        self._program = found
        self._flags = [*FLAGS] if webgl else [*FLAGS, "--disable-webgl", "--disable-3d-apis"]
        if os.geteuid() == 0:
            self._flags.append("--no-sandbox")  # Chromium refuses to start as root without it

    def __enter__(self) -> Self:
        self._profile = Path(tempfile.mkdtemp(prefix="rf-chromium-"))
        self._process = subprocess.Popen(
            [self._program, *self._flags, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._port = self._wait_for_port()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def page(self, *, width: int = 1280, height: int = 800, dark: bool = False, phone: bool = False) -> Page:
        """An empty tab of this size."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            target = json.load(answer)
        page = Page(target["webSocketDebuggerUrl"])
        page.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.command("Emulation.setEmulatedMedia", features=[scheme])
        return page

    def _wait_for_port(self) -> int:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        file = self._profile / "DevToolsActivePort"
        while time.monotonic() < deadline_s:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._program} ended with status {self._process.returncode}")
            with contextlib.suppress(OSError, ValueError, IndexError):
                return int(file.read_text().splitlines()[0])
            time.sleep(0.05)
        raise TimeoutError(f"{self._program} did not open its port within {START_TIMEOUT_S:g} s")


class Page:
    """A tab. What it logs as error, and what its scripts throw, gathers in ``errors``."""

    def __init__(self, url: str) -> None:
        self._socket = websocket.create_connection(url, timeout=60)
        self._number = 0
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and give its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                if "error" in message:
                    raise PageError(f"{method}: {message['error']['message']}")
                return dict(message["result"])
            self._note(message)

    def open(self, url: str) -> None:
        """Go to an address."""
        self.command("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        result = self.command("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise PageError(f"{script}: {details.get('exception', {}).get('description', details['text'])}")
        return result["result"].get("value")

    def until(self, gesture: Callable[[], None], script: str, tries: int = 6, each_s: float = 5.0) -> None:
        """Make the gesture again until the expression is true: a busy map may not have heard it."""
        for left in range(tries - 1, -1, -1):
            gesture()
            try:
                self.wait(script, each_s)
            except PageError:
                if not left:
                    raise
            else:
                return

    def wait(self, script: str, timeout_s: float = 30.0) -> Any:
        """Ask until the expression is true; give its value."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                value = self.run(script)
            except PageError as error:  # the page is between two documents
                value = None
                if time.monotonic() > deadline_s:
                    raise PageError(f"{script} failed for {timeout_s:g} s") from error
            if value:
                return value
            if time.monotonic() > deadline_s:
                raise PageError(f"not true within {timeout_s:g} s: {script}; errors: {self.errors}")
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """Press the mouse where the first element of a selector is, as a person does."""
        place = self.wait(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            " e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect();"
            " return r.width ? [r.x + r.width / 2, r.y + r.height / 2] : null; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.command(
                "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1
            )

    def key(self, key: str) -> None:
        """Press and release a key."""
        text = key if len(key) == 1 else ""
        code = {"windowsVirtualKeyCode": KEY_CODES[key], "code": key} if key in KEY_CODES else {}
        self.command("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, **code)
        self.command("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    def type(self, text: str) -> None:
        """Put text where the focus is."""
        self.command("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""
        data = self.command("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """Close the tab."""
        with contextlib.suppress(PageError, OSError, websocket.WebSocketException):
            self.command("Page.close")
        self._socket.close()

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            entry = parameters["entry"]
            self.errors.append(f"{entry['text']} {entry.get('url', '')}".strip())
