"""A real ``ringfence up`` in a process of its own, and a device that publishes to its broker."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import paho.mqtt.client as mqtt
import psycopg
import pytest

from telemetry.mqtt.topics import device_topic
from telemetry.services.state import read_state

HOME = (35.2271, -80.8431)  # latitude, longitude

RULES = """
timezone = "America/New_York"

[[rules]]
id = "keep-away"
subjects = ["all"]
require = "outside"
zones = ["victim-home"]
severity = "critical"

[[rules]]
id = "strap"
subjects = ["all"]
require = "strap_closed"
severity = "high"
"""


def write_circle_rules(directory: Path, radius_m: float = 300.0) -> Path:
    """A rules directory of one circle that nobody may enter, and a strap that must be closed."""
    zone = {
        "type": "Feature",
        "properties": {"id": "victim-home", "radius_m": radius_m},
        "geometry": {"type": "Point", "coordinates": [HOME[1], HOME[0]]},
    }
    (directory / "zones").mkdir(parents=True)
    (directory / "zones" / "victim.geojson").write_text(json.dumps(zone))
    (directory / "rules.toml").write_text(RULES)
    return directory


class RunningEngine:
    """``ringfence up`` as a child process. Its output is kept for the message of a failing test."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.data_dir = data_dir
        self.lines: list[str] = []
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RINGFENCE_")}
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "telemetry.cli",
                "up",
                "--data-dir",
                str(data_dir),
                "--http",
                "127.0.0.1:0",
                *arguments,
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_ready(self, timeout_s: float = 120.0) -> RunningEngine:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
            state = read_state(self.data_dir)
            if state is not None and state.pid == self.process.pid:
                self.http_url, self.mqtt_url, self.database_url = (
                    state.http_url,
                    state.mqtt_url,
                    state.database_url,
                )
                try:
                    if httpx.get(f"{self.http_url}/readyz", timeout=2.0).status_code == 200:
                        return self
                except httpx.TransportError:
                    pass
            time.sleep(0.05)
        raise AssertionError(f"not ready after {timeout_s} s:\n{self.output}")

    def kill(self) -> None:
        """SIGKILL, of this process alone."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 15.0) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout_s)
        self._reader.join(2.0)
        return status

    def get(self, path: str, **parameters: object) -> dict:
        response = httpx.get(f"{self.http_url}/api/v1/{path}", params=parameters, timeout=10.0)
        response.raise_for_status()
        return response.json()

    def track(self, device_id: str) -> list[dict]:
        """All pings of a device; none while nobody knows it."""
        response = httpx.get(f"{self.http_url}/api/v1/devices/{device_id}/track", timeout=10.0)
        if response.status_code == 404:
            return []
        response.raise_for_status()
        return response.json()["items"]

    def items(self, path: str, **parameters: object) -> list[dict]:
        """All items of a list, page after page."""
        found: list[dict] = []
        cursor: str | None = None
        while True:
            page = self.get(path, **parameters, **({"cursor": cursor} if cursor else {}))
            found += page["items"]
            cursor = page["next"]
            if cursor is None:
                return found


class Client:
    """An MQTT client: publishes at QoS 1 and waits for the PUBACK; collects what it subscribes to."""

    def __init__(self, url: str, client_id: str = "", *, subscribe: str | None = None) -> None:
        parts = urlsplit(url)
        self.received: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self._subscribed = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id)
        if parts.username:
            self._client.username_pw_set(parts.username, parts.password)
        self._client.on_message = lambda _client, _data, message: self.received.put(message)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.connect(parts.hostname, parts.port or 1883)
        self._client.loop_start()
        if subscribe:
            self._client.subscribe(subscribe, qos=1)
            assert self._subscribed.wait(10)

    def publish(self, topic: str, payload: bytes | str, timeout_s: float = 20.0) -> None:
        info = self._client.publish(topic, payload, qos=1)
        info.wait_for_publish(timeout_s)
        assert info.is_published(), f"no PUBACK on {topic}"

    def ping(self, device_id: str, root: str = "ringfence/v1", **fields: object) -> None:
        """Publish one JSON v1 ping."""
        self.publish(device_topic(root, device_id, "pings"), json.dumps(fields))

    def next(self, timeout_s: float) -> mqtt.MQTTMessage:
        return self.received.get(timeout=timeout_s)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def engines(tmp_path):
    """Start engines; whatever still runs at the end of the test is stopped."""
    started: list[RunningEngine] = []

    def start(*arguments: str, data_dir: Path | None = None, ready: bool = True) -> RunningEngine:
        engine = RunningEngine(data_dir or tmp_path / "data", *arguments)
        started.append(engine)
        return engine.wait_ready() if ready else engine

    yield start
    for engine in started:
        if engine.process.poll() is None:
            engine.process.send_signal(signal.SIGTERM)
            try:
                engine.process.wait(20)
            except subprocess.TimeoutExpired:
                engine.kill()


@pytest.fixture
def clients():
    """Connect MQTT clients; they are closed at the end of the test."""
    opened: list[Client] = []

    def connect(url: str, client_id: str = "", *, subscribe: str | None = None) -> Client:
        client = Client(url, client_id, subscribe=subscribe)
        opened.append(client)
        return client

    yield connect
    for client in opened:
        client.close()


class Database:
    """Reads what the engine stored."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def rows(self, query: str, *parameters: object) -> list[tuple]:
        return self._connection.execute(query, parameters or None).fetchall()

    def execute(self, statement: str) -> None:
        self._connection.execute(statement)

    def count(self, table: str) -> int:
        """Rows of a table; 0 while it does not exist yet."""
        if self.rows("SELECT to_regclass(%s) IS NULL", table)[0][0]:
            return 0
        return self.rows(f"SELECT count(*) FROM {table}")[0][0]

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def database(database_url):
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def circle_rules(tmp_path) -> Path:
    return write_circle_rules(tmp_path / "rules")
