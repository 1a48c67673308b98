"""The document of the MQTT topics: valid, that of the code, and true of what is published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from geofence import NO_TIME, VIOLATION
from telemetry.alerts.events import CHANGES, alert_event
from telemetry.asyncapi import document
from telemetry.columns import AlertChange
from telemetry.heartbeat import Heartbeat
from telemetry.mqtt.topics import _LEAVES, Topics, alert_topic, device_topic

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    return dict(json.loads((REPOSITORY / "docs" / "asyncapi.json").read_text()))


def schema_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


def test_it_is_the_document_of_this_code(written):
    assert written == document(), "make it anew: python -m telemetry.asyncapi > docs/asyncapi.json"


def test_it_is_valid_asyncapi_3(written):
    schema = json.loads((REPOSITORY / "tests" / "vendor" / "asyncapi-3.0.0.schema.json").read_text())
    jsonschema.Draft7Validator(schema).validate(written)
    broken = written | {"channels": {"x": {"adress": "misspelt"}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate(broken)


def test_every_topic_is_in_it(written):
    addresses = {channel["address"] for channel in written["channels"].values()}
    root = Topics().root
    values = {"lane": "8d", "device_id": "a17", "severity": "high", "alert_id": "7", "share": "0"}
    topics = {device_topic(root, "a17", leaf) for leaf in (*_LEAVES, "commands")}
    topics |= {alert_topic(root, "high", "a17", "7"), json_topic(), "owntracks/u/d"}
    topics |= {"owntracks/ringfence/a17/event", "ringfence/v1/home_assistant/a17/state"}
    assert {address.format(user="u", device="d", **values) for address in addresses} == topics


def json_topic() -> str:
    return Heartbeat("ringfence/v1", 0).message("running").topic


def test_every_reference_leads_somewhere(written):
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                at: Any = written
                for part in value["$ref"].removeprefix("#/").split("/"):
                    at = at[part]
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(written)


def event(change: str = "opened") -> dict[str, Any]:
    row = np.zeros(1, VIOLATION)[0]
    row["opened_us"] = row["confirmed_us"] = 1_790_000_000_000_000
    row["closed_us"] = NO_TIME
    step = AlertChange(7, change, 7, "a17", "strap", None, "high", 1_790_000_000_000_000, "strap open")
    message = alert_event("ringfence/v1", 0, step, row, emitted_us=1_790_000_000_000_000, rules_version=1)
    return dict(json.loads(message.payload))


def test_an_alert_is_what_it_says(written):
    schema = schema_of(written, "AlertEvent")
    jsonschema.validate(event(), schema)
    allowed = set(written["components"]["schemas"]["AlertData"]["properties"])
    assert set(event()["data"]) <= allowed
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(event("invented"), schema)
    assert {f"org.ringfence.alert.{change}" for change in CHANGES} == set(
        written["components"]["schemas"]["AlertEvent"]["properties"]["type"]["enum"]
    )


def test_a_heartbeat_is_what_it_says(written):
    payload = json.loads(
        Heartbeat("ringfence/v1", 0)
        .message("running", time="t", watermark=None, lag_s=None, pings_per_s=0.0, problem=None)
        .payload
    )
    jsonschema.validate(payload, schema_of(written, "Heartbeat"))
    assert set(payload) == set(written["components"]["schemas"]["Heartbeat"]["properties"])


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "Pings",
            {"time": 1_790_000_000_000, "lat": 35.0, "lon": -80.0, "status": ["moving"]},
            {"lat": 35.0},
        ),
        ("Pings", [{"time": "2026-11-24T08:00:00Z"}], [{"time": 1, "lat": 91}]),
        ("DeviceStatus", {"state": "online"}, {"state": "asleep"}),
        ("Result", {"id": 7, "result": "done", "time": 1_790_000_000_000}, {"id": 7, "result": "maybe"}),
        (
            "CheckIn",
            {"time": 1_790_000_000_000, "outcome": "verified", "method": "voice"},
            {"time": 1_790_000_000_000, "outcome": "verified", "method": "smell"},
        ),
        ("Command", {"id": "7", "command": "locate"}, {"id": "7", "command": "dance"}),
    ],
)
def test_what_devices_write_is_what_it_says(written, name, good, bad):
    jsonschema.validate(good, schema_of(written, name))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(bad, schema_of(written, name))
