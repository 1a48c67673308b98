"""All that is stored about one participant, and who wore which device when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
from psycopg.rows import dict_row

from telemetry.store.connect import connect
from telemetry.store.errors import translated
from telemetry.store.rows import bound, time_us_of

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["FOREVER_US", "Record", "Worn", "read_record", "worn_by"]

FOREVER_US: Final = 253_402_300_799_000_000  # the end of year 9999: "still"
LONG_AGO_US: Final = 0


@dataclass(frozen=True, slots=True)
class Worn:
    """A stretch in which the person had a device."""

    device_id: str
    kind: str
    groups: list[str]
    from_us: int
    until_us: int


@dataclass(slots=True)
class Record:
    """Rows as they are stored, each with the names of its columns; times as datetimes in UTC."""

    participant: str
    worn: list[Worn]
    days: list[dict[str, Any]] = field(default_factory=list)
    positions: list[dict[str, Any]] | None = None
    violations: list[dict[str, Any]] = field(default_factory=list)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    check_ins: list[dict[str, Any]] = field(default_factory=list)
    commands: list[dict[str, Any]] = field(default_factory=list)
    leaves: list[dict[str, Any]] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)


def worn_by(connection: Connection[Any], participant: str) -> list[Worn]:
    """Who had which device when, by every version of the roster.

    A stretch without a given begin starts when the version took effect, unless nobody was named before; one
    without an end lasts until a version names another person, or none.
    """
    rows = connection.execute(_ENROLLMENTS, (participant,)).fetchall()
    found: list[Worn] = []
    for device_id, kind, groups, begin, end, effective, ended, first in rows:
        from_us = time_us_of(begin) if begin else LONG_AGO_US if first else time_us_of(effective)
        until_us = min(
            time_us_of(end) if end else FOREVER_US, time_us_of(ended) if ended is not None else FOREVER_US
        )
        last = found[-1] if found else None
        if last is not None and last.device_id == device_id and from_us <= last.until_us:
            found[-1] = Worn(device_id, kind, groups, last.from_us, max(until_us, last.until_us))
        elif from_us < until_us:
            found.append(Worn(device_id, kind, groups, from_us, until_us))
    return found


def read_record(
    url: str, participant: str, *, groups: frozenset[str] | None, positions: bool
) -> Record | None:
    """All of it, as of one moment; None: nobody of that name is on a roster, or in this caseload.

    positions : every stored position too, not only how many there are
    """
    connection = connect(url, "ringfence record")
    try:
        with translated("reading a record"), connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            worn = worn_by(connection, participant)
            if not worn or (groups is not None and not _of_caseload(connection, participant, groups)):
                return None
            record = Record(participant, worn, positions=[] if positions else None)
            for stretch in worn:
                _read_stretch(connection, record, stretch)
            for rows in (record.days, record.violations, record.alerts, record.check_ins, record.commands):
                rows.sort(key=lambda row: str(next(iter(row.values()))))
            record.leaves = _leaves(connection, record)
            record.looks = _rows(connection, _LOOKS, {"participant": participant})
            return record
    finally:
        connection.close()


def _read_stretch(connection: Connection[Any], record: Record, worn: Worn) -> None:
    values = {"device": worn.device_id, "from": bound(worn.from_us), "until": bound(worn.until_us)}
    record.days += _rows(connection, _DAYS, values)
    if record.positions is not None:
        record.positions += _rows(connection, _POSITIONS, values)
    record.violations += _rows(connection, _VIOLATIONS, values)
    record.alerts += _rows(connection, _ALERTS, values)
    record.steps += _rows(connection, _STEPS, values)
    record.check_ins += _rows(connection, _CHECK_INS, values)
    record.commands += _rows(connection, _COMMANDS, values)


def _rows(connection: Connection[Any], query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, values).fetchall()


def _of_caseload(connection: Connection[Any], participant: str, groups: frozenset[str]) -> bool:
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM enrollments WHERE participant = %s AND until_version IS NULL"
        " AND groups && %s::text[])",
        (participant, sorted(groups)),
    ).fetchone()
    return row == (True,)


def _leaves(connection: Connection[Any], record: Record) -> list[dict[str, Any]]:
    """Every leave of every version that names the person, a device or a group of theirs."""
    mine = {f"participant:{record.participant}", "all"}
    for worn in record.worn:
        mine |= {f"device:{worn.device_id}", *(f"group:{group}" for group in worn.groups)}
    found: dict[str, dict[str, Any]] = {}
    for (text,) in connection.execute("SELECT document::text FROM rules ORDER BY version"):
        for leave in msgspec.json.decode(text).get("rules", {}).get("leaves") or []:
            if mine.intersection(leave.get("subjects", [])):
                key = str(leave.get("id") or sorted(leave.items(), key=str))
                found[key] = leave
    return list(found.values())


_ENROLLMENTS: Final = """
SELECT e.device_id, e.kind, e.groups, e.from_time, e.until_time, v.effective_time, u.effective_time,
       NOT EXISTS (
           SELECT FROM enrollments o WHERE o.device_id = e.device_id AND o.from_version < e.from_version)
FROM enrollments e JOIN rules v ON v.version = e.from_version LEFT JOIN rules u ON u.version = e.until_version
WHERE e.participant = %s ORDER BY e.device_id, e.from_version
"""
_DAYS: Final = """
SELECT (fix_time AT TIME ZONE 'UTC')::date::text AS day, device_id, count(*) AS pings,
       count(lat_e7) AS with_position, min(fix_time) AS first_time, max(fix_time) AS last_time
FROM pings WHERE device_id = %(device)s AND fix_time >= %(from)s AND fix_time < %(until)s
GROUP BY 1, 2 ORDER BY 1
"""
_POSITIONS: Final = """
SELECT fix_time AS time, device_id, lat_e7 / 1e7::float8 AS lat, lon_e7 / 1e7::float8 AS lon,
       accuracy_mm / 1e3::float8 AS accuracy_m
FROM pings WHERE device_id = %(device)s AND fix_time >= %(from)s AND fix_time < %(until)s ORDER BY fix_time
"""
_VIOLATIONS: Final = """
SELECT opened_time, closed_time, device_id, rule_id, zone_id, severity, state, confidence_ppm, depth_mm,
       depth_error_mm, fixes, rules_version
FROM current_violations
WHERE device_id = %(device)s AND opened_time >= %(from)s AND opened_time < %(until)s
"""
_ALERTS: Final = """
SELECT opened_time, alert_id, device_id, rule_id, severity, state, outcome, sentence, note
FROM alerts WHERE device_id = %(device)s AND opened_time >= %(from)s AND opened_time < %(until)s
"""
_STEPS: Final = """
SELECT l.recorded_time, l.alert_id, l.change, l.who, l.outcome, l.note
FROM alert_log l JOIN alerts a USING (alert_id)
WHERE a.device_id = %(device)s AND a.opened_time >= %(from)s AND a.opened_time < %(until)s ORDER BY l.link
"""
_CHECK_INS: Final = """
SELECT time, device_id, outcome, method FROM check_ins
WHERE device_id = %(device)s AND time >= %(from)s AND time < %(until)s
"""
_COMMANDS: Final = """
SELECT asked_time, device_id, command, who, payload ->> 'text' AS message FROM commands
WHERE device_id = %(device)s AND asked_time >= %(from)s AND asked_time < %(until)s
"""
_LOOKS: Final = """
SELECT time, who, role, what, from_time, to_time, reason FROM access_log
WHERE participant = %(participant)s ORDER BY link
"""
