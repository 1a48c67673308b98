"""A town whose alerts are told, receivers by HTTP that do as they are bid, and a clock that tests turn."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from telemetry.channels.channel import Channel, Courier
from telemetry.channels.settings import WebhookSettings
from telemetry.channels.webhook import Webhook
from telemetry.metrics import Metrics
from telemetry.store.desk import Desk
from tests.telemetry.api.town import START_US, Town, fresh_database

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture(scope="package")
def migrated(postgres_url: str) -> Iterator[str]:
    """The name of an empty database with the tables."""
    with fresh_database(postgres_url) as url:
        Town(url).close()
        yield urlsplit(url).path[1:]


@pytest.fixture
def town(postgres_url: str, migrated: str) -> Iterator[Town]:
    """An empty town of the test's own."""
    with fresh_database(postgres_url, migrated) as url, closing(Town(url)) as town:
        yield town


@pytest.fixture
def query(town: Town) -> Iterator[Callable[..., list[Any]]]:
    """Asks the town's database past the store."""
    with psycopg.connect(town.url, autocommit=True) as connection:

        def ask(sql: str, *values: Any) -> list[Any]:
            cursor = connection.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

        yield ask


@dataclass
class Clock:
    """What the desk takes for now."""

    us: int = START_US

    def __call__(self) -> int:
        return self.us

    def pass_s(self, seconds: float) -> None:
        self.us += round(seconds * 1e6)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(town: Town, clock: Clock) -> Iterator[Desk]:
    with closing(Desk.open(town.url, now_us=clock)) as desk:
        yield desk


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass
class Receiver:
    """An HTTP server that keeps what it gets, and answers what it is told.

    answers : status, headers and body of the next answers; after them always 204
    hangs   : while it is set to an event, requests wait for that before they are answered
    """

    requests: list[Request] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    hangs: threading.Event | None = None
    reached: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append(Request(self.path, dict(self.headers), body))
                receiver.reached.set()
                if receiver.hangs is not None:
                    receiver.hangs.wait(60)
                status, headers, answer = receiver.answers.pop(0) if receiver.answers else (204, {}, b"")
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign] - clients hang up on purpose
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/hook?key=k"

    def close(self) -> None:
        if self.hangs is not None:
            self.hangs.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receivers() -> Iterator[Callable[[], Receiver]]:
    made: list[Receiver] = []

    def make() -> Receiver:
        made.append(Receiver())
        return made[-1]

    yield make
    for receiver in made:
        receiver.close()


@pytest.fixture
def receiver(receivers: Callable[[], Receiver]) -> Receiver:
    return receivers()


def webhook(url: str, name: str = "pager", **more: Any) -> Webhook:
    """A webhook that may go to loopback."""
    settings = {"name": name, "url": url, "secrets": [SECRET], "allow_networks": ["127.0.0.0/8"]} | more
    return Webhook(WebhookSettings.model_validate(settings))


@pytest.fixture
def courier(desk: Desk) -> Iterator[Callable[[Channel], Courier]]:
    """Makes couriers that take a turn when they are told, without a thread."""
    made: list[Channel] = []

    def make(channel: Channel) -> Courier:
        made.append(channel)
        courier = Courier(channel, desk, Metrics())
        courier.turn()  # it begins with what comes next
        return courier

    yield make
    for channel in made:
        channel.close()
