"""Receive and decode: ``python -m benchmarks.ingest``.

decode   payloads in memory to columns, one core: binary v1, JSON v1, OwnTracks
scan     PUBLISH frames in memory to columns, one core: the frame scanner alone, and with decoding
receive  behind one broker, QoS 1, with acknowledgement: our session with the scanner, our session with plain
         paho taking PUBLISH apart, and paho's own loop with an ``on_message`` that only counts (it decodes
         nothing). A publisher in another process fills the session first; each then drains the same messages.

Prints messages and pings per CPU second of the receiving process, and per second of wall time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from geofence import Devices
from telemetry.columns import Messages
from telemetry.formats import decode
from telemetry.mqtt.inbox import Owed
from telemetry.mqtt.plain import PlainReceiver
from telemetry.mqtt.scanner import FrameReader, ScannerReceiver
from telemetry.mqtt.session import Session
from telemetry.mqtt.topics import Topics, device_topic
from telemetry.services.broker import EmbeddedBroker

ROOT = "ringfence/v1"
TIME_MS = 1_795_507_200_000
FILTER = f"{ROOT}/+/+/pings"


def binary(count: int, seq: int = 0) -> bytes:
    fields = (TIME_MS, 352_271_000, -808_431_000, 45, 120, 9050, 229, 8, 87, 11)
    head = struct.pack("<BBBBHH", 0xA7, 1, 0, 0, count, 1)
    return head + b"".join(struct.pack("<IQiiHHHhHBB", seq + i, *fields) for i in range(count))


def text(count: int) -> bytes:
    ping = {"boot": 3, "seq": 17, "time": "2026-11-24T08:00:00.123Z", "lat": 35.2271, "lon": -80.8431}
    ping |= {"accuracy_m": 4.5, "speed_mps": 1.2, "battery_pct": 87, "status": ["charging"], "source": "gnss"}
    return json.dumps(ping if count == 1 else [ping] * count, separators=(",", ":")).encode()


def owntracks() -> bytes:
    return b'{"_type":"location","acc":12,"batt":63,"lat":35.2271,"lon":-80.8431,"tst":1795507200,"vel":36}'


def in_memory(payload: bytes, n: int, topic: Callable[[str], str]) -> Messages:
    topics = Topics(ROOT)
    slots = np.array([topics.slot(topic(f"d{i % 1000}")) for i in range(n)], np.int32)
    start = np.arange(n, dtype=np.int64) * len(payload)
    received_us = np.full(n, TIME_MS * 1000)
    buffer = np.frombuffer(payload * n, np.uint8)
    return Messages(topics, buffer, start, start + len(payload), slots, received_us, lambda: None)


def best_cpu_s(work: Callable[[], Any], rounds: int) -> float:
    work()
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    return min(spent)


def pings_topic(device_id: str) -> str:
    return device_topic(ROOT, device_id, "pings")


def measure_decode(n: int, rounds: int) -> None:
    cases = [
        ("binary v1, 1 ping", binary(1), 1, pings_topic),
        ("binary v1, 10 pings", binary(10), 10, pings_topic),
        ("JSON v1, 1 ping", text(1), 1, pings_topic),
        ("JSON v1, 10 pings", text(10), 10, pings_topic),
        ("OwnTracks", owntracks(), 1, lambda device_id: f"owntracks/u/{device_id}"),
    ]
    for name, payload, count, topic in cases:
        messages = in_memory(payload, n, topic)
        devices = Devices()
        cpu_s = best_cpu_s(lambda m=messages, d=devices: decode(m, d, lambda _: None), rounds)
        report("decode", name, n / cpu_s, n * count / cpu_s)


def measure_scan(n: int, rounds: int) -> None:
    for count in (1, 10):
        frames = bytearray()
        for i in range(n):
            topic = pings_topic(f"d{i % 1000}").encode()
            body = (
                len(topic).to_bytes(2, "big") + topic + (i % 65_535 + 1).to_bytes(2, "big") + binary(count, i)
            )
            length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
            frames += b"\x32" + length + body
        topics, devices = Topics(ROOT), Devices()
        reader = FrameReader(topics)

        def scan(decoding: bool, reader=reader, frames=frames, topics=topics, devices=devices) -> None:
            view, at, taken = memoryview(frames), 0, 0
            while at < len(view):
                room = reader.room()
                size = min(len(room), len(view) - at)
                room[:size] = view[at : at + size]
                reader.received(size)
                at += size
                chunk = reader.take(1, Owed())
                if chunk is None:
                    continue
                taken += len(chunk)
                if decoding:
                    columns = (chunk.buffer, chunk.start, chunk.stop, chunk.topic, chunk.received_time_us)
                    decode(Messages(topics, *columns, lambda: None), devices, lambda _: None)
            assert taken == n

        for decoding in (False, True):
            cpu_s = best_cpu_s(lambda d=decoding, scan=scan: scan(d), rounds)
            name = f"binary v1, {count} ping{'s' * (count > 1)}{' and decode' * decoding}"
            report("scan", name, n / cpu_s, n * count / cpu_s)


# --- behind a broker ------------------------------------------------------------------------------------


class Mosquitto:
    """A mosquitto with a window as large as packet ids allow, in memory."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = directory / "mosquitto.conf"
        limits = (
            "max_queued_messages 0\nmax_queued_bytes 0\nmax_inflight_messages 65535\nset_tcp_nodelay true\n"
        )
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n{limits}")
        program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None
        self._server = subprocess.Popen(
            [program, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.url = f"mqtt://127.0.0.1:{port}"
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.05)

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait()


def publish_all(url: str, count: int, n: int) -> None:
    """n messages at QoS 1, in a process of its own."""
    session = Session(url, "bench-device", [], topics=Topics(ROOT))
    session.start()

    class Message:
        def __init__(self, i: int) -> None:
            self.topic, self.payload, self.retain = pings_topic(f"d{i % 1000}"), binary(count, i), False

    for begin in range(0, n, 1000):
        assert all(session.publish([Message(i) for i in range(begin, min(begin + 1000, n))], 60.0))
    session.close(5.0)


def drain_ours(url: str, n: int, receiver: Any) -> tuple[float, float]:
    devices = Devices()
    session = Session(url, "bench-engine", [FILTER], topics=Topics(ROOT), receiver=receiver)
    wall, cpu, taken = time.perf_counter(), time.process_time(), 0
    session.start()
    while taken < n:
        messages = session.receive(5.0, 50_000)
        assert messages is not None, f"{taken} of {n} came"
        decode(messages, devices, lambda _: None)
        taken += len(messages)
        messages.acknowledge()
    session.close(5.0)
    return time.perf_counter() - wall, time.process_time() - cpu


def drain_paho(url: str, n: int) -> tuple[float, float]:
    taken = 0
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-engine", clean_session=False)

    def count(_client: Any, _data: Any, _message: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == n:
            client.disconnect()

    client.on_message = count
    parts = urlsplit(url)
    if parts.username:
        client.username_pw_set(parts.username, parts.password)
    wall, cpu = time.perf_counter(), time.process_time()
    client.connect(parts.hostname, parts.port)
    client.subscribe(FILTER, 1)
    client.loop_forever()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_receive(name: str, url: str, n: int) -> None:
    spawn = multiprocessing.get_context("spawn")
    for count in (1, 10):
        for way, drain in (
            ("scanner and decode", lambda: drain_ours(url, n, ScannerReceiver)),
            ("plain paho and decode", lambda: drain_ours(url, n, PlainReceiver)),
            ("paho's loop, counting", lambda: drain_paho(url, n)),
        ):
            opened = Session(url, "bench-engine", [FILTER], topics=Topics(ROOT))
            opened.start()
            opened.close(5.0)
            publisher = spawn.Process(target=publish_all, args=(url, count, n))
            publisher.start()
            publisher.join()
            assert publisher.exitcode == 0
            wall_s, cpu_s = drain()
            report("receive", f"{name}, {count} per message: {way}", n / cpu_s, n * count / cpu_s, n / wall_s)


def report(what: str, name: str, messages: float, pings: float, wall: float | None = None) -> None:
    beside = "" if wall is None else f"  {wall:>11,.0f} messages/s wall"
    print(
        f"{what:<8} {name:<55} {messages:>12,.0f} messages {pings:>12,.0f} pings per CPU s{beside}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingest", description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-broker", action="store_true", help="only what needs none")
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    measure_decode(options.messages, options.rounds)
    measure_scan(options.messages, options.rounds)
    if options.no_broker:
        return
    with tempfile.TemporaryDirectory(prefix="rf-bench-", dir="/tmp") as directory:
        if shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin"):
            mosquitto = Mosquitto(Path(directory))
            try:
                measure_receive("mosquitto", mosquitto.url, options.messages)
            finally:
                mosquitto.stop()
        broker = EmbeddedBroker(Path(directory) / "nats")
        try:
            measure_receive("nats-server", broker.start(), options.messages)
        finally:
            broker.stop()


if __name__ == "__main__":
    main()
