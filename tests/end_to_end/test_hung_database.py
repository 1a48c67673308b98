"""A database that hangs: SIGSTOP of the embedded postmaster and of every process below it."""

from __future__ import annotations

import contextlib
import json
import os
import signal

import httpx
import pytest

from telemetry.mqtt.topics import device_topic
from tests.end_to_end.test_embedded import alive, descendants, now, server_of, state_root

__all__ = ["state_root"]  # a fixture

ROOT = "ringfence/v1"


@pytest.fixture
def hang():
    """Stops the database of an engine; it goes on at the end of the test, where it still is there."""
    stopped: set[int] = set()

    def stop(engine) -> set[int]:
        postmaster = server_of(engine.process.pid, "postgres")
        for pid in (postmaster, *descendants(postmaster)):
            os.kill(pid, signal.SIGSTOP)
            stopped.add(pid)
        return stopped

    yield stop
    go_on(stopped)


def go_on(pids: set[int]) -> None:
    for pid in alive(pids):
        os.kill(pid, signal.SIGCONT)


def send(client, seq: int) -> None:
    payload = json.dumps({"time": now(), "boot": 1, "seq": seq, "lat": 1, "lon": 2})
    client.publish(device_topic(ROOT, "a17", "pings"), payload)


def test_a_hung_database_is_told_and_all_goes_on_when_it_answers_again(
    engines, state_root, circle_rules, clients, eventually, hang
):
    engine = engines("--rules", str(circle_rules), data_dir=state_root)
    device = clients(engine.mqtt_url)
    heartbeats = clients(engine.mqtt_url, subscribe=f"{ROOT}/engine/0/status")
    send(device, 0)
    eventually(lambda: [row["seq"] for row in engine.track("a17")] == [0], 20)
    stopped = hang(engine)
    for seq in range(1, 20):
        send(device, seq)  # the broker takes them

    def told() -> bool:
        with contextlib.suppress(httpx.TransportError):  # one that came first itself waits for the database
            answer = httpx.get(f"{engine.http_url}/readyz", timeout=2)
            return answer.status_code == 503 and "hangs" in answer.text
        return False

    eventually(told, 40)
    eventually(lambda: "hangs" in (json.loads(heartbeats.next(20).payload)["problem"] or ""), 40)
    eventually(lambda: "not at work" in engine.output, 10)
    go_on(stopped)
    eventually(lambda: [row["seq"] for row in engine.track("a17")] == list(range(20)), 40)
    eventually(lambda: "at work again" in engine.output, 20)
    assert engine.stop(15) == 0


def test_it_stops_in_time_though_the_database_hangs(
    engines, state_root, circle_rules, clients, eventually, hang
):
    """Nothing is lost by it: the broker gives the next start what was not committed."""
    engine = engines("--rules", str(circle_rules), data_dir=state_root)
    device = clients(engine.mqtt_url)
    send(device, 0)
    eventually(lambda: [row["seq"] for row in engine.track("a17")] == [0], 20)
    hang(engine)
    send(device, 1)
    family = descendants(engine.process.pid)
    device.close()
    assert engine.stop(15) == 0
    eventually(lambda: not alive(family), 5)
    again = engines("--rules", str(circle_rules), data_dir=state_root)
    eventually(lambda: [row["seq"] for row in again.track("a17")] == [0, 1], 40)
    assert again.stop() == 0
