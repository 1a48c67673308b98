"""A whole Ringfence on one machine, to be measured: broker, database, engine, and a publisher."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from firmware_sim.load import Load
from telemetry.services.broker import EmbeddedBroker
from telemetry.services.postgres import EmbeddedPostgres
from telemetry.services.state import read_state

HERTZ = os.sysconf("SC_CLK_TCK")
MOSQUITTO = (
    "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n"
)
RULES = """
timezone = "UTC"
[[rules]]
id = "keep-away"
subjects = ["all"]
require = "outside"
layer = "schools"
severity = "high"
[[rules]]
id = "strap"
subjects = ["all"]
require = "strap_closed"
severity = "high"
"""


@dataclass(frozen=True)
class Whole:
    """A running engine with its broker and database, all of them ours alone."""

    mqtt_url: str
    database_url: str
    broker_pid: int
    database_pid: int
    engine: subprocess.Popen[bytes]

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds, user and system, of each part since it started."""
        return {
            "broker": cpu_s(self.broker_pid),
            "engine": cpu_s(self.engine.pid),
            "database": family_cpu_s(self.database_pid),
        }

    def ask(self, query: str) -> int:
        """A number from the database."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            row = connection.execute(query).fetchone()
            assert row is not None
            return int(row[0])


@contextmanager
def whole(broker: str) -> Iterator[Whole]:
    """Start all of it on fresh data, with mosquitto or nats-server; and end it."""
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-", dir="/tmp") as folder:
        home = Path(folder)
        home.chmod(0o711)
        with broker_of(broker, home) as (mqtt_url, broker_pid):
            postgres = EmbeddedPostgres(home / "database")
            database_url = postgres.start()
            assert postgres.pid is not None
            command = [sys.executable, "-m", "telemetry.cli", "up", "--http", "127.0.0.1:0"]
            command += ["--data-dir", str(home / "engine"), "--rules", str(rules(home))]
            command += ["--mqtt-url", mqtt_url, "--database-url", database_url]
            engine = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            try:
                while read_state(home / "engine") is None:
                    assert engine.poll() is None, "the engine ended"
                    time.sleep(0.1)
                yield Whole(mqtt_url, database_url, broker_pid, postgres.pid, engine)
            finally:
                engine.terminate()
                engine.wait()
                postgres.stop()


@contextmanager
def broker_of(name: str, home: Path) -> Iterator[tuple[str, int]]:
    """The URL and the pid of a broker of this kind."""
    if name == "nats-server":
        nats = EmbeddedBroker(home / "nats")
        url = nats.start()
        assert nats.pid is not None
        try:
            yield url, nats.pid
        finally:
            nats.stop()
        return
    program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
    if program is None:
        sys.exit("mosquitto is needed, or give --brokers nats-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (home / "mosquitto.conf").write_text(MOSQUITTO.format(port=port))
    server = subprocess.Popen([program, "-c", home / "mosquitto.conf"], stderr=subprocess.DEVNULL)
    try:
        yield f"mqtt://127.0.0.1:{port}", server.pid
    finally:
        server.terminate()
        server.wait()


def rules(home: Path) -> Path:
    """400 circles that nobody may enter, and a strap that must be closed."""
    directory = home / "rules"
    (directory / "zones").mkdir(parents=True)
    circles = [
        {
            "type": "Feature",
            "properties": {"id": f"school-{i}", "layer": "schools", "radius_m": 200},
            "geometry": {"type": "Point", "coordinates": [-80.9 + 0.01 * (i % 20), 35.1 + 0.01 * (i // 20)]},
        }
        for i in range(400)
    ]
    collection = {"type": "FeatureCollection", "features": circles}
    (directory / "zones" / "schools.geojson").write_text(json.dumps(collection))
    (directory / "rules.toml").write_text(RULES)
    return directory


@dataclass(frozen=True)
class Plan:
    """What a publisher sends.

    pings_per_s : None: as fast as the broker takes them
    behind_s    : how long before now the pings' times begin
    """

    devices: int
    pings: int
    per_message: int = 1
    qos: int = 1
    pings_per_s: float | None = None
    behind_s: int = 86_400


class Publisher:
    """A process that has its packets ready, sends them when told, and stays, so that its CPU can be read."""

    def __init__(self, mqtt_url: str, plan: Plan) -> None:
        ready, told = multiprocessing.Pipe(duplex=False)
        self._go = multiprocessing.Event()
        self._process = multiprocessing.Process(target=_publish, args=(mqtt_url, plan, told, self._go))
        self._process.start()
        self.messages, self.pings = ready.recv()

    def go(self) -> None:
        self._go.set()

    def cpu_s(self) -> float:
        return cpu_s(self._process.pid or 0)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _publish(mqtt_url: str, plan: Plan, told, go) -> None:
    load = Load(plan.devices, 1, per_message=plan.per_message, start_s=int(time.time()) - plan.behind_s)
    for _ in range(plan.per_message if plan.per_message > 1 else 0):
        load.step()  # the first messages of a fleet are not full yet
    packets: list[bytes] = []
    made = pings = 0
    while pings < plan.pings:
        burst = load.step()
        made += len(burst.device)
        pings += int((burst.stop - burst.start).sum())
        frames = load.frames(burst).tobytes()
        packets.append(frames if plan.qos else without_packet_ids(frames))
    connection = connect(mqtt_url, b"bench-publisher")
    threading.Thread(target=drain, args=(connection,), daemon=True).start()
    told.send((made, pings))
    go.wait()
    if plan.pings_per_s is None:
        for packet in packets:
            connection.sendall(packet)
    else:
        _send_evenly(connection, b"".join(packets), pings / plan.pings_per_s)
    threading.Event().wait()


def _send_evenly(connection: socket.socket, data: bytes, seconds: float) -> None:
    """Send all of it at an even rate, in slices of 5 ms; a packet may be cut between two of them."""
    began_s, slices = time.perf_counter(), max(1, round(seconds / 0.005))
    for k in range(slices):
        time.sleep(max(0.0, began_s + k * seconds / slices - time.perf_counter()))
        connection.sendall(data[len(data) * k // slices : len(data) * (k + 1) // slices])


def without_packet_ids(frames: bytes) -> bytes:
    """QoS 1 PUBLISH packets as QoS 0."""
    out, at = [], 0
    while at < len(frames):
        length, shift, at = 0, 0, at + 1
        while True:
            byte = frames[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        topic = 2 + int.from_bytes(frames[at : at + 2], "big")
        body = frames[at : at + topic] + frames[at + topic + 2 : at + length]
        out.append(frame(0x30, body))
        at += length
    return b"".join(out)


def frame(first: int, body: bytes) -> bytes:
    """An MQTT packet."""
    length, rest = bytearray(), len(body)
    while True:
        length.append(rest & 127 | (128 if rest > 127 else 0))
        rest >>= 7
        if not rest:
            return bytes((first,)) + bytes(length) + body


def connect(mqtt_url: str, client_id: bytes) -> socket.socket:
    """A session on a broker, through a plain socket."""
    parts = urlsplit(mqtt_url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 1883))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    texts, flags = [client_id], 2
    for flag, text in ((0x80, parts.username), (0x40, parts.password)):
        if text is not None:
            texts.append(text.encode())
            flags |= flag
    body = struct.pack(">H4sBBH", 4, b"MQTT", 4, flags, 0)
    connection.sendall(frame(0x10, body + b"".join(struct.pack(">H", len(t)) + t for t in texts)))
    answer = connection.recv(4)
    assert answer[3:] == b"\0", f"the broker refused the connection: {answer!r}"
    return connection


def drain(connection: socket.socket) -> None:
    """Read the broker's PUBACKs away."""
    while connection.recv(1 << 16):
        pass


def cpu_s(pid: int) -> float:
    """CPU seconds of a process that runs, user and system."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / HERTZ
    return 0.0


def family_cpu_s(pid: int) -> float:
    """CPU seconds of a process, its children, and those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(int, fields[11:15])) / HERTZ + sum(cpu_s(int(child)) for child in children)


def machine() -> str:
    """The processor, the cores, the load and the commit, in a line."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return (
        f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, "
        f"commit {commit}"
    )
