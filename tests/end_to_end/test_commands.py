"""What an operator asks of a device reaches it, and its answer is read back."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import httpx

from telemetry.mqtt.topics import device_topic

ROOT = "ringfence/v1"


def test_a_command_goes_out_and_its_answer_is_listed(engines, clients, circle_rules):
    engine = engines("--rules", str(circle_rules))
    topic = device_topic(ROOT, "a17", "commands")
    device = clients(engine.mqtt_url, "a17", subscribe=topic)
    now = datetime.now(UTC).isoformat()
    device.ping("a17", seq=1, time=now, lat=10.0, lon=10.0)
    deadline = time.monotonic() + 30
    while not engine.get("devices")["items"]:
        assert time.monotonic() < deadline
    asked = httpx.post(
        f"{engine.http_url}/api/v1/devices/a17/commands", json={"command": "set_interval", "seconds": 60}
    ).json()
    message = device.next(20)
    assert (message.topic, message.retain) == (topic, False)
    assert json.loads(message.payload) == {
        "id": asked["command_id"],
        "command": "set_interval",
        "seconds": 60,
    }
    result = {"id": asked["command_id"], "result": "done", "time": now}
    device.publish(device_topic(ROOT, "a17", "results"), json.dumps(result))
    while (command := engine.get("devices/a17/commands")["items"][0])["outcome"] is None:
        assert time.monotonic() < deadline
    assert command["outcome"] == "done"
    assert command["asked_at"] <= command["sent_at"] <= command["answered_at"]
