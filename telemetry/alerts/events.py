"""What operators receive: CloudEvents 1.0 in JSON, one for each step of an alert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from geofence import NO_TIME, SEVERITIES, to_rfc3339
from telemetry.columns import Outgoing
from telemetry.mqtt.topics import alert_topic

if TYPE_CHECKING:
    from telemetry.columns import AlertChange

__all__ = ["CHANGES", "EVENT_TYPE", "AlertData", "AlertEvent", "Escalation", "alert_event"]

EVENT_TYPE: Final = "org.ringfence.alert"  # and a dot, and one of CHANGES
CHANGES: Final = (
    "opened",
    "updated",
    "withdrawn",
    "acknowledged",
    "assigned",
    "resolved",
    "reopened",
    "escalated",
    "unsuppressed",
)


class Escalation(msgspec.Struct, frozen=True):
    """Which step of the escalation policy this is, and whom it asks for."""

    step: int
    contact: str


class AlertData(msgspec.Struct, frozen=True, kw_only=True):
    """What a step says of its alert. The engine's steps bring the evidence, people's steps who and why.

    Times are RFC 3339 in UTC, depths metres past the line, ``confidence`` is a share of 1.
    """

    alert_id: str
    violation_id: str
    device_id: str
    rule_id: str
    zone_id: str | None
    severity: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(SEVERITIES)})]
    opened_at: str
    sentence: str
    rules_version: int
    confirmed_at: str | UnsetType = UNSET
    closed_at: str | UnsetType | None = UNSET
    confidence: float | UnsetType = UNSET
    depth_m: float | UnsetType = UNSET
    depth_error_m: float | UnsetType | None = UNSET
    fixes: int | UnsetType = UNSET
    state: Literal["open", "acknowledged", "resolved", "withdrawn"] | UnsetType = UNSET
    outcome: Literal["real", "false", "excused", "equipment"] | UnsetType | None = UNSET
    assigned_to: str | UnsetType | None = UNSET
    who: str | UnsetType | None = UNSET
    note: str | UnsetType | None = UNSET
    escalation: Escalation | UnsetType = UNSET


class AlertEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope. ``id`` is the same in every delivery of a step, so a repeated one can be told."""

    id: str
    source: str
    type: str
    subject: str
    time: str
    data: AlertData
    specversion: Literal["1.0"] = "1.0"
    datacontenttype: Literal["application/json"] = "application/json"


def alert_event(
    root: str, share: int, change: AlertChange, row: Any, *, emitted_us: int, rules_version: int
) -> Outgoing:
    """The message that tells operators of one step of the engine.

    row : a VIOLATION record, the one that caused the step
    The event id is the violation's id and revision, so a repeated delivery can be told from a new step.
    """
    depth_error_mm = int(row["depth_error_mm"])
    event = AlertEvent(
        id=f"{change.violation_id}-{int(row['revision'])}",
        source=f"/ringfence/share/{share}",
        type=f"{EVENT_TYPE}.{change.change}",
        subject=change.device_id,
        time=to_rfc3339(emitted_us),
        data=AlertData(
            alert_id=str(change.alert_id),
            violation_id=str(change.violation_id),
            device_id=change.device_id,
            rule_id=change.rule_id,
            rules_version=rules_version,
            zone_id=change.zone_id,
            severity=change.severity,
            opened_at=to_rfc3339(row["opened_us"]),
            confirmed_at=to_rfc3339(row["confirmed_us"]),
            closed_at=None if row["closed_us"] == NO_TIME else to_rfc3339(row["closed_us"]),
            confidence=int(row["confidence_ppm"]) / 1e6,
            depth_m=int(row["depth_mm"]) / 1e3,
            depth_error_m=None if depth_error_mm < 0 else depth_error_mm / 1e3,
            fixes=int(row["fixes"]),
            sentence=change.sentence,
        ),
    )
    return Outgoing(
        alert_id=change.alert_id,
        device_id=change.device_id,
        topic=alert_topic(root, change.severity, change.device_id, str(change.alert_id)),
        payload=msgspec.json.encode(event),
        retain=True,  # who subscribes later sees the last state of every alert that has not ended
    )
