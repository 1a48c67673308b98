"""What operators receive over MQTT: CloudEvents 1.0 in JSON, one for each step of an alert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from geofence import NO_TIME, to_rfc3339
from telemetry.columns import Outgoing
from telemetry.mqtt.topics import alert_topic

if TYPE_CHECKING:
    from telemetry.columns import AlertChange

__all__ = ["EVENT_TYPE", "alert_event"]

EVENT_TYPE: Final = "org.ringfence.alert"  # .opened, .updated, .withdrawn


def alert_event(
    root: str, share: int, change: AlertChange, row: Any, *, emitted_us: int, rules_version: int
) -> Outgoing:
    """The message that tells operators of one step.

    row : a VIOLATION record, the one that caused the step
    The event id is the violation's id and revision, so a repeated delivery can be told from a new step.
    """
    depth_error_mm = int(row["depth_error_mm"])
    event = {
        "specversion": "1.0",
        "id": f"{change.violation_id}-{int(row['revision'])}",
        "source": f"/ringfence/share/{share}",
        "type": f"{EVENT_TYPE}.{change.change}",
        "subject": change.device_id,
        "time": to_rfc3339(emitted_us),
        "datacontenttype": "application/json",
        "data": {
            "alert_id": str(change.alert_id),
            "violation_id": str(change.violation_id),
            "device_id": change.device_id,
            "rule_id": change.rule_id,
            "rules_version": rules_version,
            "zone_id": change.zone_id,
            "severity": change.severity,
            "opened_at": to_rfc3339(row["opened_us"]),
            "confirmed_at": to_rfc3339(row["confirmed_us"]),
            "closed_at": None if row["closed_us"] == NO_TIME else to_rfc3339(row["closed_us"]),
            "confidence": int(row["confidence_ppm"]) / 1e6,
            "depth_m": int(row["depth_mm"]) / 1e3,
            "depth_error_m": None if depth_error_mm < 0 else depth_error_mm / 1e3,
            "fixes": int(row["fixes"]),
            "sentence": change.sentence,
        },
    }
    return Outgoing(
        alert_id=change.alert_id,
        device_id=change.device_id,
        topic=alert_topic(root, change.severity, change.device_id, str(change.alert_id)),
        payload=msgspec.json.encode(event),
        retain=True,  # who subscribes later sees the last state of every alert
    )
