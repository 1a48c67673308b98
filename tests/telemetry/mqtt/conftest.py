"""Brokers with the settings that these tests are about, and a wire to them that can be cut."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sysconfig
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from telemetry.mqtt.plain import PlainReceiver
from telemetry.mqtt.scanner import ScannerReceiver
from telemetry.mqtt.session import Session
from telemetry.mqtt.topics import Topics

ACK_WAIT = "1s"  # nats-server delivers again only after this, also to a session that comes back


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Wire:
    """A TCP proxy on loopback; ``cut`` ends every connection through it at once, as a dying network would."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                return
            self.connections += 1
            self._ends += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # else the accept that is under way takes one more
        self._listener.close()
        self.cut()


@pytest.fixture
def nats(short_tmp, eventually) -> Iterator[Callable[..., str]]:
    """``nats(mqtt="…", top="…")``: the URL of a nats-server with these lines in its configuration."""
    started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start(mqtt: str = "max_ack_pending: 20000", top: str = "") -> str:
        directory = short_tmp / f"nats-{uuid.uuid4().hex[:8]}"
        directory.mkdir()
        port = free_port()
        config = directory / "nats.conf"
        config.write_text(
            f'server_name: test\nlisten: "127.0.0.1:-1"\nlog_file: "{directory}/log"\n{top}\n'
            f'jetstream {{ store_dir: "{directory}/store" }}\n'
            f'mqtt {{ listen: "127.0.0.1:{port}"\n ack_wait: "{ACK_WAIT}"\n {mqtt} }}\n'
        )
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        server = subprocess.Popen([program, "-c", config])
        started.append((server, directory))
        eventually(lambda: listens(port), 20)
        return f"mqtt://127.0.0.1:{port}"

    yield start
    for server, directory in started:
        server.terminate()
        server.wait()
        shutil.rmtree(directory)


@pytest.fixture(
    params=[
        "nats-scanner",
        "nats-plain",
        pytest.param("mosquitto-scanner", marks=pytest.mark.mosquitto),
        pytest.param("mosquitto-scanner-5", marks=pytest.mark.mosquitto),
    ]
)
def broker_url(request) -> str:
    """The URL of a broker. A test runs against both, with both ways of receiving and both versions of MQTT
    (see ``sessions``).
    """
    if request.param.startswith("nats"):
        return request.getfixturevalue("nats")()
    return request.getfixturevalue("mosquitto_url")


@pytest.fixture
def wires() -> Iterator[Callable[[str], Wire]]:
    """``wires(url)``: a Wire to that broker."""
    opened: list[Wire] = []

    def connect(url: str) -> Wire:
        wire = Wire(int(url.rsplit(":", 1)[1]))
        opened.append(wire)
        return wire

    yield connect
    for wire in opened:
        wire.close()


@pytest.fixture
def sessions(request) -> Iterator[Callable[..., Session]]:
    """``sessions(url, client_id, filters)``: a started session, closed at the end of the test."""
    opened: list[Session] = []
    callspec = getattr(request.node, "callspec", None)
    kind = "" if callspec is None else callspec.params.get("broker_url", "")

    def start(url: str, client_id: str, filters: list[str] | None = None, **options) -> Session:
        receiver = PlainReceiver if "plain" in kind else ScannerReceiver
        protocol = "5" if kind.endswith("-5") else "3.1.1"
        options = {"topics": Topics(), "receiver": receiver, "protocol": protocol} | options
        session = Session(url, client_id, filters or [], **options)
        opened.append(session)
        session.start()
        return session

    yield start
    for session in opened:
        session.close(5.0)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True
