"""What travels over HTTP: the store's rows in the units that people read.

Ids of alerts and violations are text, because they can exceed 2^53 and JSON numbers in a browser can't.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from geofence import E7, NO_ACCURACY, NO_FIX, SOURCES, STATUS_NAMES, UNKNOWN_U8, UNKNOWN_U16, to_rfc3339
from geofence.pings import SOURCE_MASK, SOURCE_SHIFT
from telemetry.columns import MARK_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telemetry.api.reader import AlertRow, DeviceRow, LogRow, PositionRow, TransitionRow, ViolationRow

__all__ = [
    "Alert",
    "AlertDetail",
    "AlertPage",
    "AlertStep",
    "Device",
    "DevicePage",
    "PageOf",
    "Position",
    "Rules",
    "Transition",
    "TransitionPage",
    "Violation",
    "ViolationPage",
    "alert_detail_of",
    "alert_of",
    "device_of",
    "mark_names",
    "position_of",
    "source_name",
    "status_names",
    "transition_of",
    "violation_of",
]

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-24T08:00:00.123Z"])]
Id = Annotated[str, Field(pattern=r"^[0-9]+$", examples=["6917529027641081856"])]
Share = Annotated[float, Field(ge=0, le=1, examples=[0.998])]

Item = TypeVar("Item")


class PageOf(BaseModel, Generic[Item]):
    """Some items, and where to go on."""

    items: list[Item]
    next: str | None = Field(
        description="the ``cursor`` that gives the items after these; null: there are none"
    )


class Position(BaseModel):
    """The newest ping of a device; the coordinates are those of its newest fix."""

    time: Time = Field(description="of the device's clock")
    received_time: Time
    lat: float | None = Field(description="degrees; null: it never had a fix", examples=[35.2271])
    lon: float | None = Field(examples=[-80.8431])
    accuracy_m: float | None = Field(description="68 % horizontal radius", examples=[8.5])
    speed_mps: float | None
    heading_deg: float | None
    battery_pct: int | None
    status: list[str] = Field(examples=[["moving"]])
    source: str = Field(examples=["gnss"])
    marks: list[str] = Field(description="doubts about the ping", examples=[[]])


class Device(BaseModel):
    """A device that is enrolled or has spoken."""

    device_id: str = Field(examples=["a17"])
    kind: str | None = Field(description="``ankle``, ``wrist``, ``phone``; null: not said")
    participant: str | None
    groups: list[str]
    online: bool | None = Field(description="as it or its last will said; null: it said nothing")
    open_alerts: int
    position: Position | None = Field(description="null: it has never spoken")


class Transition(BaseModel):
    """A device entered, left or crossed a zone."""

    transition_id: Id
    device_id: str
    zone_id: str
    kind: str = Field(description="``ENTER``, ``EXIT`` or ``CROSS``")
    initial: bool = Field(description="the first state known of this device and zone")
    late: bool = Field(description="learned from pings that came after newer ones")
    withdrawn: bool = Field(
        description="late pings refute the transition told before with this device, zone, kind and time"
    )
    time: Time = Field(description="fix time of the first fix of the stretch that led to it")
    confirmed_at: Time
    distance_m: float = Field(description="to the zone's edge at the confirming fix; negative inside")
    confidence: Share
    rules_version: int


class Violation(BaseModel):
    """The current revision of a broken rule."""

    violation_id: Id
    revision: int
    change: str = Field(description="what the newest row said: opened, closed, amended, withdrawn, held_back")
    device_id: str
    rule_id: str
    zone_id: str | None = Field(description="null: the rule is about the device")
    severity: str
    opened_at: Time
    confirmed_at: Time
    closed_at: Time | None = Field(description="null: it lasts")
    confidence: Share
    depth_m: float = Field(
        description="the deepest point, past the line; of one that lasts, as its newest row said"
    )
    depth_error_m: float | None
    fixes: int = Field(description="pings that support it, in that row")
    supersedes: Id | None = Field(description="the violation that late pings replaced by this one")
    rules_version: int


class Alert(BaseModel):
    """An operator's work item."""

    alert_id: Id
    state: str = Field(description="``open``, ``acknowledged``, ``resolved`` or ``withdrawn``")
    outcome: str | None = Field(description="of a resolved one: real, false, excused, equipment")
    device_id: str
    rule_id: str
    zone_id: str | None
    severity: str
    sentence: str = Field(
        description="what happened and how sure that is, in words",
        examples=[
            "inside Oak Street School's exclusion zone by 62 m ± 9 m for 4 min 10 s, 5 fixes, 99.8 % sure"
        ],
    )
    opened_at: Time
    updated_at: Time
    acknowledged_at: Time | None
    resolved_at: Time | None
    assigned_to: str | None = Field(description="who deals with it")
    note: str | None = Field(description="the newest one that somebody left")
    suppression_id: Id | None = Field(description="what keeps it quiet; null: it is delivered")
    confidence: Share | None
    violation: Violation | None = Field(description="the newest violation of this alert")


class AlertStep(BaseModel):
    """One row of an alert's log."""

    time: Time
    change: str
    who: str | None
    note: str | None
    outcome: str | None = Field(description="of a step that resolved it")


class AlertDetail(Alert):
    """An alert and its log, oldest first."""

    log: list[AlertStep]


class Rules(BaseModel):
    """The rules in force."""

    model_config = ConfigDict(
        json_schema_extra={"description": "the rules as they were loaded, without keys"}
    )

    version: int
    effective_at: Time
    newest_version: int = Field(description="what a change is made on; greater while one is scheduled")
    read_only: bool = Field(description="they come from files, so the API can't change them")
    rules: dict[str, Any]


class DevicePage(PageOf[Device]):
    """Devices by id."""


class TransitionPage(PageOf[Transition]):
    """Transitions, newest first."""


class ViolationPage(PageOf[Violation]):
    """Violations, newest first."""


class AlertPage(PageOf[Alert]):
    """Alerts, newest first."""


_PPM: Final = 1e6
_MM: Final = 1e3


def status_names(status: int) -> list[str]:
    """The names of the bits that are set."""
    return [name for bit, name in enumerate(STATUS_NAMES) if status >> bit & 1]


def source_name(status: int) -> str:
    """Where the fix came from."""
    return SOURCES[(status & SOURCE_MASK) >> SOURCE_SHIFT]


def mark_names(marks: int) -> list[str]:
    """The names of the doubts."""
    return [name for bit, name in enumerate(MARK_NAMES) if marks >> bit & 1]


def position_of(row: PositionRow) -> Position:
    """A position in degrees, metres and RFC 3339."""
    has_fix = row.lat_e7 != NO_FIX
    return Position(
        time=to_rfc3339(row.fix_time_us),
        received_time=to_rfc3339(row.received_time_us),
        lat=row.lat_e7 / E7 if has_fix else None,
        lon=row.lon_e7 / E7 if has_fix else None,
        accuracy_m=None if row.accuracy_mm == NO_ACCURACY else row.accuracy_mm / _MM,
        speed_mps=None if row.speed_cmps == UNKNOWN_U16 else row.speed_cmps / 100,
        heading_deg=None if row.heading_cdeg == UNKNOWN_U16 else row.heading_cdeg / 100,
        battery_pct=None if row.battery_pct == UNKNOWN_U8 else row.battery_pct,
        status=status_names(row.status),
        source=source_name(row.status),
        marks=mark_names(row.marks),
    )


def device_of(row: DeviceRow) -> Device:
    """A device with its position."""
    return Device(
        device_id=row.device_id,
        kind=row.kind,
        participant=row.participant,
        groups=list(row.groups),
        online=row.online,
        open_alerts=row.open_alerts,
        position=None if row.position is None else position_of(row.position),
    )


def transition_of(row: TransitionRow) -> Transition:
    """A transition in metres and RFC 3339."""
    return Transition(
        transition_id=str(row.transition_id),
        device_id=row.device_id,
        zone_id=row.zone_id,
        kind=row.kind,
        initial=row.initial,
        late=row.late,
        withdrawn=row.withdrawn,
        time=to_rfc3339(row.time_us),
        confirmed_at=to_rfc3339(row.confirmed_us),
        distance_m=row.distance_mm / _MM,
        confidence=row.confidence_ppm / _PPM,
        rules_version=row.rules_version,
    )


def violation_of(row: ViolationRow) -> Violation:
    """A violation in metres and RFC 3339."""
    return Violation(
        violation_id=str(row.violation_id),
        revision=row.revision,
        change=row.change,
        device_id=row.device_id,
        rule_id=row.rule_id,
        zone_id=row.zone_id,
        severity=row.severity,
        opened_at=to_rfc3339(row.opened_us),
        confirmed_at=to_rfc3339(row.confirmed_us),
        closed_at=None if row.closed_us is None else to_rfc3339(row.closed_us),
        confidence=row.confidence_ppm / _PPM,
        depth_m=row.depth_mm / _MM,
        depth_error_m=None if row.depth_error_mm < 0 else row.depth_error_mm / _MM,
        fixes=row.fixes,
        supersedes=None if row.supersedes is None else str(row.supersedes),
        rules_version=row.rules_version,
    )


def _alert_fields(row: AlertRow) -> dict[str, Any]:
    violation = None if row.violation is None else violation_of(row.violation)
    return {
        "alert_id": str(row.alert_id),
        "state": row.state,
        "outcome": row.outcome,
        "device_id": row.device_id,
        "rule_id": row.rule_id,
        "zone_id": row.zone_id,
        "severity": row.severity,
        "sentence": row.sentence,
        "opened_at": to_rfc3339(row.opened_us),
        "updated_at": to_rfc3339(row.updated_us),
        "acknowledged_at": None if row.acknowledged_us is None else to_rfc3339(row.acknowledged_us),
        "resolved_at": None if row.resolved_us is None else to_rfc3339(row.resolved_us),
        "assigned_to": row.assigned_to,
        "note": row.note,
        "suppression_id": None if row.suppression_id is None else str(row.suppression_id),
        "confidence": None if violation is None else violation.confidence,
        "violation": violation,
    }


def alert_of(row: AlertRow) -> Alert:
    """An alert with its newest violation."""
    return Alert(**_alert_fields(row))


def alert_detail_of(row: AlertRow, log: Sequence[LogRow]) -> AlertDetail:
    """An alert with its log."""
    return AlertDetail(**_alert_fields(row), log=[_step_of(step) for step in log])


def _step_of(row: LogRow) -> AlertStep:
    return AlertStep(
        time=to_rfc3339(row.time_us), change=row.change, who=row.who, note=row.note, outcome=row.outcome
    )
