"""The MQTT topics as an AsyncAPI 3 document, made from the structs that the code reads and writes.

``python -m telemetry.asyncapi`` prints it; ``docs/asyncapi.json`` is that, and a test keeps the two equal.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final, Literal

import msgspec

from telemetry.alerts.events import CHANGES, EVENT_TYPE, AlertEvent
from telemetry.channels.home_assistant import DeviceState
from telemetry.channels.owntracks import Transition
from telemetry.formats import json_v1, notices

__all__ = ["Command", "Heartbeat", "document"]

ROOT: Final = "ringfence/v1"
CLOUD_EVENT: Final = "application/cloudevents+json"


class Heartbeat(msgspec.Struct, forbid_unknown_fields=True):
    """What a share says of itself every ten seconds; as its last will with ``state`` and ``share`` alone."""

    state: Literal["running", "stopped", "lost"]
    share: int
    time: str | msgspec.UnsetType = msgspec.UNSET
    watermark: str | msgspec.UnsetType | None = msgspec.UNSET
    lag_s: float | msgspec.UnsetType | None = msgspec.UNSET
    pings_per_s: float | msgspec.UnsetType = msgspec.UNSET
    problem: str | msgspec.UnsetType | None = msgspec.UNSET


class Command(msgspec.Struct):
    """What is asked of a device; its result names the ``id``."""

    id: str
    command: Literal["locate", "vibrate", "message", "set_interval"]
    text: str | msgspec.UnsetType = msgspec.UNSET
    seconds: int | msgspec.UnsetType = msgspec.UNSET
    mode: Literal["moving", "resting"] | msgspec.UnsetType = msgspec.UNSET


_LANE: Final = {"description": "two hex digits, a hash of the device's id; any is accepted"}
_DEVICE: Final = {"description": "1 to 64 letters, digits, _ and -"}
# By channel: its address below the root, its parameters, who writes, QoS, retained, and its messages.
_DEVICE_LEAVES: Final = {
    "pings": ("device", False, ("pingsBinary", "pingsJson")),
    "status": ("device", True, ("deviceStatus",)),
    "commands": ("engine", False, ("command",)),
    "results": ("device", False, ("result",)),
    "checkins": ("gateway", False, ("checkIn",)),
}
_TEXTS: Final = {
    "pings": "Pings of one device, one to 1,024 in a message",
    "status": "A device is online, or, by its last will, offline",
    "commands": "What is asked of a device",
    "results": "What a device did with a command",
    "checkins": "The result of a telephone, app or button check-in",
    "alerts": "Each step of an alert. Retained while it is open or acknowledged; an empty message clears it",
    "engine": "Heartbeat of a share",
    "owntracksEvents": "With `owntracks_transitions`: entering and leaving",
    "homeAssistant": "With `home_assistant`: what the sensor shows; discovery is below the setting's prefix",
    "owntracks": "The phone app OwnTracks; the device's id is user-device",
}


def document() -> dict[str, Any]:
    """The AsyncAPI document as plain values."""
    schemas = _schemas()
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}

    def add(name: str, address: str, parameters: dict[str, Any], writer: str, names: tuple[str, ...]) -> None:
        channels[name] = {
            "address": address,
            "description": _TEXTS[name],
            "servers": [{"$ref": "#/servers/broker"}],
            "parameters": parameters,
            "messages": {m: {"$ref": f"#/components/messages/{m}"} for m in names},
        }
        operations[f"{'send' if writer == 'engine' else 'receive'}_{name}"] = {
            "action": "send" if writer == "engine" else "receive",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": f"written by the {writer}",
            "messages": [{"$ref": f"#/channels/{name}/messages/{m}"} for m in names],
            "bindings": {
                "mqtt": {"qos": 1, "retain": name in {"status", "alerts", "engine", "homeAssistant"}}
            },
        }

    for leaf, (writer, _retain, names) in _DEVICE_LEAVES.items():
        address = f"{ROOT}/{{lane}}/{{device_id}}/{leaf}"
        add(leaf, address, {"lane": _LANE, "device_id": _DEVICE}, writer, names)
    add(
        "alerts",
        f"{ROOT}/alerts/{{severity}}/{{device_id}}/{{alert_id}}",
        {
            "severity": {"enum": ["info", "low", "high", "critical"]},
            "device_id": _DEVICE,
            "alert_id": {"description": "a number; as text, since it can exceed 2^53"},
        },
        "engine",
        ("alert", "cleared"),
    )
    add(
        "engine",
        f"{ROOT}/engine/{{share}}/status",
        {"share": {"description": "number of the share"}},
        "engine",
        ("heartbeat",),
    )
    add(
        "owntracks",
        "owntracks/{user}/{device}",
        {"user": {"description": "of the broker"}, "device": {"description": "one of the phones"}},
        "device",
        ("owntracksLocation",),
    )
    add(
        "owntracksEvents",
        "owntracks/ringfence/{device_id}/event",
        {"device_id": _DEVICE},
        "engine",
        ("owntracksTransition",),
    )
    add(
        "homeAssistant",
        f"{ROOT}/home_assistant/{{device_id}}/state",
        {"device_id": _DEVICE},
        "engine",
        ("deviceState",),
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Ringfence",
            "version": "1",
            "description": "The MQTT topics. Their root `ringfence/v1` is the setting `mqtt_root`.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "broker": {
                "host": "localhost:1883",
                "protocol": "mqtt",
                "protocolVersion": "3.1.1",
                "description": "the embedded broker, or one that `mqtt_url` names",
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": _messages(), "schemas": schemas},
    }


def _messages() -> dict[str, Any]:
    def of(schema: str, summary: str, content_type: str = "application/json") -> dict[str, Any]:
        return {
            "summary": summary,
            "contentType": content_type,
            "payload": {"$ref": f"#/components/schemas/{schema}"},
        }

    return {
        "pingsBinary": {
            "summary": "Binary v1, told from JSON by its first byte, 0xA7; laid out in docs/wire-format.md",
            "contentType": "application/octet-stream",
            "payload": {"type": "string", "format": "binary"},
        },
        "pingsJson": of("Pings", "JSON v1: one ping, or a list of them"),
        "deviceStatus": of("DeviceStatus", "online or offline"),
        "command": of("Command", "a command"),
        "result": of("Result", "done or refused"),
        "checkIn": of("CheckIn", "verified, failed or no_answer"),
        "alert": of("AlertEvent", "CloudEvents 1.0: one step of an alert", CLOUD_EVENT),
        "cleared": {
            "summary": "Empty: the alert has ended, and nothing is retained any more",
            "payload": {"type": "null"},
        },
        "heartbeat": of("Heartbeat", "watermark, lag and rate"),
        "owntracksTransition": of("Transition", "a device entered or left a zone"),
        "deviceState": of("DeviceState", "whether a device has an alert that is to be dealt with"),
        "owntracksLocation": {
            "summary": "OwnTracks location; other types are passed over",
            "payload": {"type": "object", "required": ["_type"], "properties": {"_type": {"type": "string"}}},
        },
    }


def _schemas() -> dict[str, Any]:
    """One schema for each struct, from the struct itself."""
    kinds: dict[str, Any] = {
        "Pings": json_v1.PAYLOAD,
        "DeviceStatus": notices.STATUS_PAYLOAD,
        "Result": notices.RESULT_PAYLOAD,
        "CheckIn": notices.CHECK_IN_PAYLOAD,
        "AlertEvent": AlertEvent,
        "Command": Command,
        "Heartbeat": Heartbeat,
        "Transition": Transition,
        "DeviceState": DeviceState,
    }
    found, parts = msgspec.json.schema_components(kinds.values(), ref_template="{name}")
    schemas: dict[str, Any] = {}
    for name, schema in [*zip(kinds, found, strict=True), *parts.items()]:
        public = name.lstrip("_")
        if schema.get("$ref", "").lstrip("_") != public:
            schemas[public] = _public(schema)
    schemas["AlertEvent"]["properties"]["type"] = {"enum": [f"{EVENT_TYPE}.{change}" for change in CHANGES]}
    return {name: schemas[name] for name in sorted(schemas)}


def _public(value: Any) -> Any:
    """Without the underscores of private structs, and the indentation of docstrings."""
    if isinstance(value, list):
        return [_public(item) for item in value]
    if not isinstance(value, dict):
        return value
    clean = {key: _public(item) for key, item in value.items()}
    if isinstance(clean.get("$ref"), str):
        clean["$ref"] = f"#/components/schemas/{clean['$ref'].lstrip('_')}"
    if isinstance(clean.get("title"), str):
        clean["title"] = clean["title"].lstrip("_")
    if isinstance(clean.get("description"), str):
        clean["description"] = " ".join(clean["description"].split())
    return clean


def main() -> None:
    """Print the document."""
    json.dump(document(), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
