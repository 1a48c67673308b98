"""Measure how smooth the console stays over a large moving fleet, in headless Chromium with software WebGL.

    .venv/bin/python tools/console_load.py [--devices 50000] [--every-s 10] [--seconds 15]

The server is real HTTP with a made-up fleet: it answers what the page asks and streams the moves, as
``ringfence up`` does, without a database. Each device moves every ``--every-s`` seconds. Measured are the
times between animation frames while nobody touches the page, and while a mouse drags the map to and fro;
first with one device, which is what drawing costs on this machine anyway, then with all.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import socket
import statistics
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import uvicorn
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parent.parent))

from telemetry.api.positions import COLUMNS
from telemetry.console import mount_console
from tools.chromium import Chromium, Page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SEED = 20261124
CENTRE = (-80.84, 35.22)
SPREAD_DEG = 0.15  # a city and its suburbs
STEP_DEG = 0.0005  # about 50 m
DRAG_PX = 160
SETTLE_S = 4.0  # the flight to the fleet and the first clustering

RECORD = """
(() => {
  globalThis.frames = [];
  let before = performance.now();
  globalThis.recording = true;
  const frame = () => {
    const now = performance.now();
    frames.push(now - before);
    before = now;
    if (recording) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
})()
"""


class Fleet:
    """Devices that wander; every second the next part of them has moved."""

    def __init__(self, devices: int, every_s: int) -> None:
        self._rng = np.random.default_rng(SEED)
        self._places = np.array(CENTRE) + self._rng.normal(0, SPREAD_DEG, (devices, 2))
        self._every_s = every_s

    def all(self) -> bytes:
        """Everybody, as ``GET /positions`` has them."""
        return self._columns(range(len(self._places)))

    def moved(self, second: int) -> bytes:
        """Move a part, and give it as the stream's ``positions`` event has it."""
        part = range(second % self._every_s, len(self._places), self._every_s)
        self._places[part] += self._rng.normal(0, STEP_DEG, (len(part), 2))
        return self._columns(part)

    def _columns(self, part: range) -> bytes:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        rows: list[tuple[object, ...]] = [
            (f"d{i:05d}", round(lon, 7), round(lat, 7), 8.5, moment, 81, ["moving"], [])
            for i, (lon, lat) in zip(part, self._places[part].tolist(), strict=True)
        ]
        return msgspec.json.encode({"columns": COLUMNS, "rows": rows})


def app_of(fleet: Fleet) -> FastAPI:
    """What the console asks for, over this fleet."""
    app = FastAPI(openapi_url=None)

    async def stream(_request: object) -> StreamingResponse:
        async def events() -> AsyncIterator[bytes]:
            yield b'id: 0\nevent: hello\ndata: {"newest_id": "0", "resumed": true}\n\n'
            for second in range(10**9):
                moved = await asyncio.to_thread(fleet.moved, second)
                yield b"event: positions\ndata: " + moved + b"\n\n"
                await asyncio.sleep(1)

        return StreamingResponse(events(), media_type="text/event-stream")

    async def positions(_request: object) -> Response:
        return Response(fleet.all(), media_type="application/json")

    def fixed(document: object) -> object:
        async def answer(_request: object) -> JSONResponse:
            return JSONResponse(document)

        return answer

    answers = {
        "/readyz": fixed({}),
        "/api/v1/positions": positions,
        "/api/v1/stream": stream,
        "/api/v1/zones": fixed({"type": "FeatureCollection", "features": []}),
        "/api/v1/alerts": fixed({"items": [], "next": None}),
        "/api/v1/rules": fixed({"version": 1, "newest_version": 1, "read_only": True, "rules": {}}),
    }
    app.router.routes += [Route(path, answer) for path, answer in answers.items()]  # type: ignore[arg-type]
    mount_console(app, version="load", tile_url=None)
    return app


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The app on a free port, in a thread."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def frames_ms(page: Page, seconds: float, *, drag: bool) -> list[float]:
    """The times between frames for so long, still or dragged."""
    box = page.run("document.querySelector('#map').getBoundingClientRect().toJSON()")
    x, y = box["left"] + box["width"] / 2, box["top"] + box["height"] / 2
    page.run(RECORD)
    stop_s = time.monotonic() + seconds
    if drag:
        mouse(page, "mousePressed", x, y)
        while (left_s := stop_s - time.monotonic()) > 0:
            mouse(page, "mouseMoved", x + DRAG_PX * math.sin(2 * left_s), y + DRAG_PX * math.cos(2 * left_s))
        mouse(page, "mouseReleased", x, y)
    else:
        time.sleep(seconds)
    page.run("recording = false")
    return [float(ms) for ms in page.run("frames")[2:]]


def mouse(page: Page, kind: str, x: float, y: float) -> None:
    """One event of the left button."""
    page.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=50_000)
    parser.add_argument("--every-s", type=int, default=10, help="how often each device moves")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--picture", type=Path, help="also write what is seen as PNG")
    arguments = parser.parse_args()
    for devices in (1, arguments.devices):
        fleet = Fleet(devices, arguments.every_s)
        with serving(app_of(fleet)) as url, Chromium() as browser:
            page = browser.page()
            page.open(url)
            page.wait(
                f"document.querySelector('#counts').textContent.replace(/\\D/g, '') === '{devices}'", 120
            )
            time.sleep(SETTLE_S)
            for drag in (False, True):
                ms = sorted(frames_ms(page, arguments.seconds, drag=drag))
                doing = "dragged" if drag else "still"
                print(
                    f"{devices} devices, {doing}: {len(ms)} frames, "
                    f"ms between them: median {statistics.median(ms):.1f}, "
                    f"95th {ms[len(ms) * 95 // 100]:.1f}, most {ms[-1]:.1f}",
                    flush=True,
                )
            if arguments.picture:
                page.screenshot(arguments.picture)
            if page.errors:
                sys.exit(f"the page reports errors: {page.errors}")


if __name__ == "__main__":
    main()
