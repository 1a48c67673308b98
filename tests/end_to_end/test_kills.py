"""SIGKILL in the middle of a run: what the broker acknowledged is stored exactly once."""

from __future__ import annotations

import json
import random
import threading
from datetime import UTC, datetime

from telemetry.mqtt.topics import device_topic

KILLS = 10
DEVICES = 20


class Publisher(threading.Thread):
    """Publishes numbered pings at QoS 1 until told to stop, and keeps a ledger of what was acknowledged."""

    def __init__(self, client) -> None:
        super().__init__(daemon=True)
        self.acknowledged: set[tuple[str, int]] = set()
        self._client = client
        self._stopping = threading.Event()

    def run(self) -> None:
        seq = 0
        while not self._stopping.is_set():
            seq += 1
            for number in range(DEVICES):
                device_id = f"k{number}"
                ping = {"boot": 1, "seq": seq, "time": datetime.now(UTC).isoformat(), "lat": 1.0, "lon": 2.0}
                self._client.publish(device_topic("ringfence/v1", device_id, "pings"), json.dumps(ping))
                self.acknowledged.add((device_id, seq))

    def stop(self) -> None:
        self._stopping.set()
        self.join(30)


def test_every_acknowledged_ping_is_stored_exactly_once(
    engines, clients, nats_url, database_url, database, circle_rules, eventually
):
    arguments = ("--mqtt-url", nats_url, "--database-url", database_url, "--rules", str(circle_rules))
    engine = engines(*arguments)
    publisher = Publisher(clients(nats_url, "publisher"))
    publisher.start()
    chance = random.Random(17)
    for _ in range(KILLS):
        stored = database.count("pings")
        eventually(lambda: database.count("pings") > stored + 50, 30)  # noqa: B023 - called at once
        threading.Event().wait(chance.uniform(0, 0.2))  # a random moment of the commit cycle
        engine.kill()
        engine = engines(*arguments)
    publisher.stop()
    eventually(lambda: stored_pings(database) >= publisher.acknowledged, 30)
    assert engine.stop() == 0
    rows = database.rows("SELECT device_id, seq, count(*) FROM pings GROUP BY device_id, seq")
    assert {(device_id, seq) for device_id, seq, _ in rows} == publisher.acknowledged
    assert [row for row in rows if row[2] != 1] == []
    print(f"{KILLS} kills, {len(rows)} pings acknowledged, each stored once")


def stored_pings(database) -> set[tuple[str, int]]:
    return set(database.rows("SELECT device_id, seq FROM pings"))
