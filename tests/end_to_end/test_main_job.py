"""The main job: a device publishes, an operator's subscription receives the alert, everything is stored."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.end_to_end.conftest import HOME

ALERTS = "ringfence/v1/alerts/#"


@pytest.fixture(params=["nats_url", pytest.param("mosquitto_url", marks=pytest.mark.mosquitto)])
def broker_url(request) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture
def engine(engines, broker_url, database_url, circle_rules):
    return engines("--mqtt-url", broker_url, "--database-url", database_url, "--rules", str(circle_rules))


def test_a_json_ping_inside_an_exclusion_zone_alerts_within_two_seconds(engine, clients):
    operator = clients(engine.mqtt_url, subscribe=ALERTS)
    device = clients(engine.mqtt_url)
    began_s = time.monotonic()
    device.ping("a17", time=now(), lat=HOME[0], lon=HOME[1], accuracy_m=5)
    message = operator.next(2.0)
    assert time.monotonic() - began_s < 2.0
    event = json.loads(message.payload)
    assert event["specversion"] == "1.0"
    assert event["type"] == "org.ringfence.alert.opened"
    data = event["data"]
    assert (data["device_id"], data["rule_id"], data["zone_id"]) == ("a17", "keep-away", "victim-home")
    assert data["severity"] == "critical"
    assert data["depth_m"] == pytest.approx(300, abs=1)
    assert data["confidence"] > 0.95
    assert "victim-home" in data["sentence"]
    assert message.topic == f"ringfence/v1/alerts/critical/a17/{data['alert_id']}"
    assert [v["violation_id"] for v in engine.items("violations")] == [data["violation_id"]]
    assert [a["alert_id"] for a in engine.items("alerts", state="open")] == [data["alert_id"]]


def test_an_owntracks_location_inside_an_exclusion_zone_alerts(engine, clients):
    operator = clients(engine.mqtt_url, subscribe=ALERTS)
    phone = clients(engine.mqtt_url)
    location = {"_type": "location", "lat": HOME[0], "lon": HOME[1], "acc": 8, "tst": int(time.time())}
    phone.publish("owntracks/ada/phone", json.dumps(location))
    data = json.loads(operator.next(2.0).payload)["data"]
    assert data["device_id"] == "ada-phone"
    assert data["rule_id"] == "keep-away"


def test_a_ping_outside_alerts_nobody_and_is_stored(engine, clients, eventually):
    operator = clients(engine.mqtt_url, subscribe=ALERTS)
    device = clients(engine.mqtt_url)
    device.ping("b2", time=now(), lat=HOME[0] + 0.1, lon=HOME[1], accuracy_m=5, seq=1, boot=1)
    eventually(lambda: len(engine.track("b2")) == 1, 5)
    assert operator.received.empty()
    assert engine.items("violations") == []


def garbage() -> list[tuple[str, bytes]]:
    """Name and payload of what a broken or hostile device sends."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return [
        ("truncated binary", bytes([0xA7, 1, 0, 0, 1, 0, 0, 0, 1, 2, 3])),
        ("deep list", b"[" * 5_000),
        ("nul bytes", bytes(64)),
        ("latitude 900", json.dumps({"time": now(), "lat": 900, "lon": 0}).encode()),
        ("time is a word", b'{"time": "yesterday", "lat": 1, "lon": 2}'),
        ("far future", json.dumps({"time": "2106-02-07T06:28:15Z", "lat": 1, "lon": 2}).encode()),
        ("1970", b'{"time": 0, "lat": 1, "lon": 2}'),
        ("one mebibyte", b"\xff" * (1 << 20)),
        ("empty list", b"[]"),
        ("no time zone", json.dumps({"time": yesterday.replace(tzinfo=None).isoformat()}).encode()),
        ("empty", b""),
    ]


def test_garbage_is_quarantined_and_stops_nothing(engine, clients, database, eventually):
    operator = clients(engine.mqtt_url, subscribe=ALERTS)
    device = clients(engine.mqtt_url)
    for _, payload in garbage():
        device.publish("ringfence/v1/00/junk/pings", payload)
    device.publish("ringfence/v1/zz/junk/pings", b"{}")
    device.ping("a17", time=now(), lat=HOME[0], lon=HOME[1], accuracy_m=5)
    assert json.loads(operator.next(2.0).payload)["data"]["device_id"] == "a17"
    expected = len(garbage()) + 1
    eventually(lambda: database.count("quarantine") == expected, 5)
    for topic, reason, detail in database.rows("SELECT topic, reason, detail FROM quarantine"):
        assert topic.startswith("ringfence/v1/")
        assert reason
        assert detail
    assert database.count("pings") == 1


def test_an_open_strap_alerts_and_its_closing_ends_the_violation(engine, clients, eventually):
    operator = clients(engine.mqtt_url, subscribe=ALERTS)
    device = clients(engine.mqtt_url)
    device.ping("c3", time=now(), seq=1, boot=1, status=["strap_open"])
    opened = json.loads(operator.next(3.0).payload)
    assert opened["data"]["rule_id"] == "strap"
    assert opened["data"]["zone_id"] is None
    device.ping("c3", time=now(), seq=2, boot=1)
    eventually(lambda: engine.items("violations", device_id="c3")[0]["closed_at"] is not None, 5)


def test_a_copy_is_stored_once(engine, clients, eventually, database):
    device = clients(engine.mqtt_url)
    ping = {"time": now(), "lat": 1, "lon": 2, "seq": 5, "boot": 1}
    for _ in range(3):
        device.ping("d4", **ping)
    device.ping("d4", time=now(), lat=1, lon=2, seq=6, boot=1)
    eventually(lambda: {row["seq"] for row in engine.track("d4")} == {5, 6}, 5)
    assert database.count("pings") == 2


def now() -> str:
    return datetime.now(UTC).isoformat()
