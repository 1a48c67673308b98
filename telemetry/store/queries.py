"""The SQL of the reading side, and how its rows become the API's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from geofence import NO_ACCURACY, NO_FIX, NO_SEQ, UNKNOWN_I16, UNKNOWN_U8, UNKNOWN_U16
from telemetry.api.reader import (
    AlertRow,
    DeviceRow,
    PositionRow,
    TrackRow,
    TransitionRow,
    ViolationRow,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ALERTS",
    "COMMAND_RESULTS",
    "DEVICES",
    "NEAR",
    "POSITIONS",
    "TRACK",
    "TRANSITIONS",
    "VIOLATIONS",
    "alert_row",
    "device_row",
    "position_row",
    "track_row",
    "transition_row",
    "violation_row",
]

_POSITION: Final = f"""
d.fix_time, d.received_time, coalesce(d.lat_e7, {NO_FIX}), coalesce(d.lon_e7, {NO_FIX}),
coalesce(d.accuracy_mm, {NO_ACCURACY}), coalesce(d.speed_cmps, {UNKNOWN_U16}),
coalesce(d.heading_cdeg, {UNKNOWN_U16}), d.status, coalesce(d.battery_pct, {UNKNOWN_U8}), d.marks
"""

POSITIONS: Final = f"SELECT d.device_id, {_POSITION} FROM device_status d WHERE d.fix_time IS NOT NULL"  # noqa: S608


def position_row(row: Sequence[Any]) -> PositionRow:
    """A row of POSITIONS."""
    return PositionRow(*row)


# The devices of a page are found first, so that the joins see only those.
DEVICES: Final = f"""
WITH known AS (
    (SELECT device_id FROM device_status WHERE {{which}} ORDER BY device_id LIMIT %(limit)s)
    UNION
    (SELECT device_id FROM enrollments WHERE until_version IS NULL AND {{which}}
     ORDER BY device_id LIMIT %(limit)s)
    ORDER BY device_id LIMIT %(limit)s
)
SELECT k.device_id, e.kind, e.participant, coalesce(e.groups, '{{{{}}}}'), d.online,
       (SELECT count(*) FROM alerts a
        WHERE a.device_id = k.device_id AND a.state IN ('open', 'acknowledged'){{opened}}),
       {_POSITION}
FROM known k
LEFT JOIN device_status d ON d.device_id = k.device_id{{newest}}
LEFT JOIN enrollments e ON e.device_id = k.device_id AND e.until_version IS NULL
ORDER BY k.device_id
"""  # noqa: S608


def device_row(row: Sequence[Any]) -> DeviceRow:
    """A row of DEVICES."""
    device_id, kind, participant, groups, online, open_alerts, *position = row
    return DeviceRow(
        device_id=device_id,
        kind=kind,
        participant=participant,
        groups=groups,
        online=online,
        position=None if position[0] is None else PositionRow(device_id, *position),
        open_alerts=open_alerts,
    )


TRACK: Final = f"""
SELECT fix_time, received_time, coalesce(boot, {NO_SEQ}), coalesce(seq, {NO_SEQ}), coalesce(lat_e7, {NO_FIX}),
       coalesce(lon_e7, {NO_FIX}), coalesce(accuracy_mm, {NO_ACCURACY}), coalesce(speed_cmps, {UNKNOWN_U16}),
       coalesce(heading_cdeg, {UNKNOWN_U16}), coalesce(altitude_m, {UNKNOWN_I16}), status,
       coalesce(battery_pct, {UNKNOWN_U8}), coalesce(satellites, {UNKNOWN_U8}), marks
FROM pings
WHERE device_id = %(device_id)s AND fix_time >= %(from)s AND fix_time < %(to)s{{mine}}
ORDER BY fix_time, boot NULLS FIRST, seq NULLS FIRST
"""  # noqa: S608


def track_row(row: Sequence[Any]) -> TrackRow:
    """A row of TRACK."""
    return TrackRow(*row)


COMMAND_RESULTS: Final = """
SELECT device_id, command_id, done, detail, time, received_time
FROM command_results WHERE device_id = %(device_id)s
ORDER BY received_time DESC, command_id LIMIT %(limit)s
"""


TRANSITIONS: Final = """
SELECT transition_id, device_id, zone_id, kind, initial, late, withdrawn, time, confirmed_time, distance_mm,
       confidence_ppm, rules_version
FROM transitions
WHERE {where}
ORDER BY time DESC, transition_id DESC LIMIT %(limit)s
"""


def transition_row(row: Sequence[Any]) -> TransitionRow:
    """A row of TRANSITIONS."""
    return TransitionRow(*row)


_VIOLATION: Final = """
v.violation_id, v.revision, v.change, v.device_id, v.rule_id, v.zone_id, v.severity, v.opened_time,
v.confirmed_time, v.closed_time, v.confidence_ppm, v.depth_mm, coalesce(v.depth_error_mm, -1), v.fixes,
v.supersedes, v.rules_version
"""
# The page is cut first and its rows are looked up one by one: a plain join of three equal columns looks to
# the planner as if it gave one row, and it would read everything.
_ROW_OF_HEAD: Final = """
LATERAL (
    SELECT * FROM violations v
    WHERE v.violation_id = h.violation_id AND v.revision = h.revision AND v.opened_time = h.opened_time
    LIMIT 1
) v
"""

VIOLATIONS: Final = f"""
SELECT {_VIOLATION}
FROM (
    SELECT * FROM violation_heads h WHERE {{where}}
    ORDER BY h.opened_time DESC, h.violation_id DESC LIMIT %(limit)s
) h
CROSS JOIN {_ROW_OF_HEAD}
ORDER BY h.opened_time DESC, h.violation_id DESC
"""  # noqa: S608


def violation_row(row: Sequence[Any]) -> ViolationRow:
    """A row of VIOLATIONS."""
    return ViolationRow(*row)


ALERTS: Final = f"""
SELECT a.alert_id, a.state, a.outcome, a.device_id, a.rule_id, a.zone_id, a.severity, a.sentence,
       a.opened_time, a.updated_time, a.acknowledged_time, a.resolved_time, a.assigned_to, a.note,
       a.suppression_id, {_VIOLATION}
FROM (
    SELECT * FROM alerts a WHERE {{where}} ORDER BY a.opened_time DESC, a.alert_id DESC LIMIT %(limit)s
) a
LEFT JOIN violation_heads h ON h.violation_id = a.violation_id
LEFT JOIN {_ROW_OF_HEAD} ON true
ORDER BY a.opened_time DESC, a.alert_id DESC
"""  # noqa: S608
_ALERT_COLUMNS: Final = 15


def alert_row(row: Sequence[Any]) -> AlertRow:
    """A row of ALERTS."""
    alert, violation = row[:_ALERT_COLUMNS], row[_ALERT_COLUMNS:]
    return AlertRow(*(*alert, None if violation[0] is None else ViolationRow(*violation)))


# Cells first (index pings_place), then the exact distance on a sphere: within 0.5 % of that on the ellipsoid.
NEAR: Final = """
SELECT device_id, fix_time, lat_e7, lon_e7, coalesce(accuracy_mm, -1), marks, round(distance_m * 1000)::int4
FROM (
    SELECT *, 12742017.6 * asin(least(1.0, sqrt(
        sin(radians(lat_e7 / 1e7::float8 - %(lat)s::float8) / 2) ^ 2
        + cos(radians(%(lat)s::float8)) * cos(radians(lat_e7 / 1e7::float8))
        * sin(radians(lon_e7 / 1e7::float8 - %(lon)s::float8) / 2) ^ 2))) AS distance_m
    FROM pings
    WHERE cell = ANY(%(cells)s::int4[]) AND fix_time >= %(from)s AND fix_time < %(to)s
) p
WHERE distance_m <= %(radius_m)s
ORDER BY device_id, fix_time
LIMIT %(limit)s
"""
