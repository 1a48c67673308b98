"""A publisher that keeps its own ledger: what it made, what the broker acknowledged, what must follow of it.

It speaks MQTT itself, over a plain socket, so that nothing between the ledger and the wire forgets or repeats
a message unseen: after each lost connection it sends again what has no PUBACK, in order, as MQTT 3.1.1 asks.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from geofence import Devices, Engine, Pings, Ruleset
from telemetry.mqtt.topics import device_topic

ROOT = "ringfence/v1"
CENTRE_E7 = (352_271_000, -808_431_000)  # of the one circle of the tests' rules
OUTSIDE_E7 = 36_000  # 400 m north of it, and 100 m beyond its radius
STEP_MS = 8_000  # between two pings of a device: 400 m in it are 180 km/h, which is still believed
START_MS = 6 * 86_400_000  # before now: within the 7 days in which late pings change decisions
WINDOW = 40  # messages without PUBACK
SAID_S = 2.0  # the longest wait for the broker's next word


@dataclass(frozen=True, slots=True)
class Sent:
    """One ping: device k{device} is at a place given by its own number and ``seq`` alone."""

    device: int
    seq: int
    time_ms: int

    @property
    def device_id(self) -> str:
        return f"k{self.device}"

    @property
    def lat_e7(self) -> int:
        """In the circle for 4 pings of 12, each device at its own times."""
        return CENTRE_E7[0] + (0 if (self.seq + 5 * self.device) % 12 < 4 else OUTSIDE_E7)

    @property
    def payload(self) -> bytes:
        ping = {"boot": 1, "seq": self.seq, "time": self.time_ms, "accuracy_m": 5}
        return json.dumps(ping | {"lat": self.lat_e7 / 1e7, "lon": CENTRE_E7[1] / 1e7}).encode()


class Ledger(threading.Thread):
    """Publishes pings of some devices at QoS 1 until ``finish``, through every loss of the broker.

    made         : every ping so far, in order
    acknowledged : how many of them, from the first one on, the broker has acknowledged
    broken       : how often a connection that stood was lost
    """

    def __init__(self, url: str, *, devices: int = 20, pings_per_s: float = 200.0) -> None:
        super().__init__(daemon=True, name="ledger")
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._login = (parts.username, parts.password)
        self._devices, self._every_s = devices, 1 / pings_per_s
        self._finishing, self._pause = threading.Event(), threading.Event()  # the second is never set
        self._start_ms = time.time_ns() // 1_000_000 - START_MS
        self._waiting: deque[tuple[int, Sent]] = deque()  # packet id and ping, without a PUBACK
        self.made: list[Sent] = []
        self.acknowledged = 0
        self.broken = 0

    def finish(self, timeout_s: float) -> None:
        """Make no more pings, and end once the last one is acknowledged."""
        self._finishing.set()
        self.join(timeout_s)
        assert not self.is_alive(), f"{len(self._waiting)} messages without PUBACK after {timeout_s} s"

    def run(self) -> None:
        while not (self._finishing.is_set() and not self._waiting):
            with suppress(OSError):
                with socket.create_connection(self._address, SAID_S) as connection:
                    self.broken += 1
                    self._serve(connection)
                    self.broken -= 1
                return
            self._pause.wait(0.05)  # the broker is being started again

    def _serve(self, connection: socket.socket) -> None:
        """Publish until finished; OSError when the connection is lost."""
        connection.sendall(self._connect())
        if _packet(connection)[0] >> 4 != 2:
            raise OSError("no CONNACK")
        for packet_id, ping in self._waiting:
            connection.sendall(_publish(ping, packet_id, again=True))
        next_s = time.monotonic()
        while True:
            while not self._finishing.is_set() and len(self._waiting) < WINDOW and time.monotonic() >= next_s:
                next_s += self._every_s
                connection.sendall(_publish(*self._make(), again=False))
            if self._waiting:
                self._take(_packet(connection))
            elif self._finishing.wait(max(0.0, next_s - time.monotonic())):
                return

    def _make(self) -> tuple[Sent, int]:
        n = len(self.made)
        seq = n // self._devices
        ping = Sent(n % self._devices, seq, self._start_ms + seq * STEP_MS)
        packet_id = n % 65_535 + 1
        self._waiting.append((packet_id, ping))
        self.made.append(ping)
        return ping, packet_id

    def _take(self, packet: tuple[int, bytes]) -> None:
        kind, body = packet
        if kind >> 4 != 4:
            return
        packet_id = int.from_bytes(body[:2], "big")
        for at, (waiting, _) in enumerate(self._waiting):  # brokers may acknowledge out of order
            if waiting == packet_id:
                del self._waiting[at]
                self.acknowledged += 1
                return

    def _connect(self) -> bytes:
        texts, flags = [b"ledger"], 0
        for flag, text in zip((0x80, 0x40), self._login, strict=True):
            if text is not None:
                texts.append(text.encode())
                flags |= flag
        body = struct.pack(">H4sBBH", 4, b"MQTT", 4, flags, 0)  # a persistent session
        return _frame(0x10, body + b"".join(struct.pack(">H", len(text)) + text for text in texts))


def expected_violations(rules: Path, made: list[Sent]) -> set[tuple[object, ...]]:
    """What an engine that nothing disturbs decides about these pings: rule, device, and when."""
    devices = Devices()
    ruleset = Ruleset.load(rules)
    ordered = sorted(made, key=lambda ping: (ping.device, ping.seq))
    pings = Pings.of(
        devices,
        device=devices.slots([ping.device_id for ping in ordered]),
        fix_time_us=[ping.time_ms * 1000 for ping in ordered],
        boot=[1] * len(ordered),
        seq=[ping.seq for ping in ordered],
        lat_e7=[ping.lat_e7 for ping in ordered],
        lon_e7=[CENTRE_E7[1]] * len(ordered),
        accuracy_mm=[5000] * len(ordered),
    )
    decided = Engine(ruleset, devices).check(pings)
    current = {int(row["violation_id"]): row for row in decided.violations}  # the last revision stays
    names = ("opened_us", "confirmed_us", "closed_us", "depth_mm", "fixes")
    return {
        (devices.ids[row["device"]], ruleset.rule_ids[row["rule"]], *(int(row[name]) for name in names))
        for row in current.values()
    }


def _publish(ping: Sent, packet_id: int, *, again: bool) -> bytes:
    topic = device_topic(ROOT, ping.device_id, "pings").encode()
    body = struct.pack(">H", len(topic)) + topic + packet_id.to_bytes(2, "big") + ping.payload
    return _frame(0x3A if again else 0x32, body)


def _frame(first: int, body: bytes) -> bytes:
    assert len(body) < 16_384
    length = bytes((len(body),)) if len(body) < 128 else bytes((len(body) & 127 | 128, len(body) >> 7))
    return bytes((first,)) + length + body


def _packet(connection: socket.socket) -> tuple[int, bytes]:
    """The broker's next packet: its first byte and its body."""
    first, length = _exactly(connection, 2)
    assert length < 128, "a broker sends this client short packets only"
    return first, _exactly(connection, length)


def _exactly(connection: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        part = connection.recv(n - len(data))
        if not part:
            raise OSError("the broker has closed the connection")
        data += part
    return data
