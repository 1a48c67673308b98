"""What is rare goes in row by row: transitions, violations, check-ins, rejects."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from geofence import (
    FLAG_INITIAL,
    FLAG_LATE,
    FLAG_WITHDRAWN,
    HELD_BACK,
    NO_TIME,
    SEVERITIES,
    TRANSITION_KINDS,
    VIOLATION_CHANGES,
    WITHDRAWN,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from psycopg import Cursor

    from geofence import Decided
    from telemetry.columns import Batch, CheckIn, CommandResult, Reject

__all__ = [
    "KEPT_PAYLOAD_BYTES",
    "OUTBOX_CHANNEL",
    "OUTBOX_LOCK",
    "TRANSITION_COLUMNS",
    "VIOLATION_COLUMNS",
    "bound",
    "copy_rows",
    "moment",
    "storable",
    "time_us_of",
    "transition_rows",
    "violation_row",
    "write_check_ins",
    "write_command_results",
    "write_rejects",
    "write_transitions",
    "write_violations",
]

KEPT_PAYLOAD_BYTES: Final = 64 << 10  # of a rejected payload; a message of 1,024 pings has 33 KB
BRIEF_PAYLOAD_BYTES: Final = 256  # of one in a full quarantine
OUTBOX_CHANNEL: Final = "ringfence_outbox"  # NOTIFY goes here with the newest id
OUTBOX_LOCK: Final = 0x52464E4F

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_EARLIEST_US: Final = -62_135_596_800_000_000  # year 1
_LATEST_US: Final = 253_402_300_799_999_999  # year 9999


def moment(time_us: int) -> datetime:
    """UTC microseconds as a datetime, exact."""
    return _EPOCH + timedelta(microseconds=int(time_us))


def bound(time_us: int) -> datetime:
    """The same for the bound of a question: one past what a datetime can say is moved to its end."""
    return moment(min(max(time_us, _EARLIEST_US), _LATEST_US))


def time_us_of(value: datetime) -> int:
    """A datetime as UTC microseconds, exact."""
    return (value - _EPOCH) // _MICROSECOND


def _moment_or_none(time_us: int) -> datetime | None:
    return None if time_us == NO_TIME else moment(time_us)


def copy_rows(
    cursor: Cursor[Any], table: str, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]]
) -> None:
    """COPY rows into a table, binary. columns: name and type of each."""
    names = ", ".join(name for name, _ in columns)
    with cursor.copy(f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types([kind for _, kind in columns])
        for row in rows:
            copy.write_row(row)


TRANSITION_COLUMNS: Final = (
    ("time", "timestamptz"),
    ("confirmed_time", "timestamptz"),
    ("rules_version", "int8"),
    ("batch", "int8"),
    ("distance_mm", "int4"),
    ("confidence_ppm", "int4"),
    ("share", "int2"),
    ("initial", "bool"),
    ("late", "bool"),
    ("withdrawn", "bool"),
    ("kind", "text"),
    ("device_id", "text"),
    ("zone_id", "text"),
)


def write_transitions(cursor: Cursor[Any], batch: Batch) -> None:
    """COPY the transitions of all decisions of the batch."""
    copy_rows(cursor, "transitions", TRANSITION_COLUMNS, transition_rows(batch))


def transition_rows(batch: Batch) -> Iterator[tuple[Any, ...]]:
    """The values of TRANSITION_COLUMNS, for every transition of a batch."""
    for decided in batch.decided:
        devices, zones = decided.devices.ids, decided.ruleset.zones.ids
        for row in decided.transitions.tolist():
            device, zone, kind, flags, time_us, confirmed_us, distance_mm, confidence_ppm = row
            yield (
                moment(time_us),
                moment(confirmed_us),
                batch.version_of(decided),
                batch.number,
                distance_mm,
                confidence_ppm,
                batch.share,
                bool(flags & FLAG_INITIAL),
                bool(flags & FLAG_LATE),
                bool(flags & FLAG_WITHDRAWN),
                TRANSITION_KINDS[kind],
                devices[device],
                zones[zone],
            )


VIOLATION_COLUMNS: Final = (
    ("violation_id", "int8"),
    ("opened_time", "timestamptz"),
    ("confirmed_time", "timestamptz"),
    ("closed_time", "timestamptz"),
    ("recorded_time", "timestamptz"),
    ("supersedes", "int8"),
    ("rules_version", "int8"),
    ("batch", "int8"),
    ("revision", "int4"),
    ("confidence_ppm", "int4"),
    ("depth_mm", "int4"),
    ("depth_error_mm", "int4"),
    ("fixes", "int4"),
    ("share", "int2"),
    ("late", "bool"),
    ("change", "text"),
    ("severity", "text"),
    ("device_id", "text"),
    ("rule_id", "text"),
    ("zone_id", "text"),
)


def write_violations(cursor: Cursor[Any], batch: Batch, recorded_time: datetime) -> None:
    """COPY the rows of violations, and move the heads to the newest revision of each."""
    heads: dict[int, tuple[Any, ...]] = {}

    def rows() -> Iterator[tuple[Any, ...]]:
        for decided in batch.decided:
            for row in decided.violations:
                values = violation_row(batch, decided, row, recorded_time)
                yield values
                violation_id, revision = values[0], values[8]
                if violation_id not in heads or heads[violation_id][2] < revision:
                    heads[violation_id] = (violation_id, values[1], revision, _state_of(row), *values[16:])

    copy_rows(cursor, "violations", VIOLATION_COLUMNS, rows())
    cursor.execute(
        "INSERT INTO violation_heads AS h (violation_id, opened_time, revision, state, severity, device_id,"
        " rule_id, zone_id) SELECT * FROM unnest(%s::int8[], %s::timestamptz[], %s::int4[], %s::text[],"
        " %s::text[], %s::text[], %s::text[], %s::text[])"
        " ON CONFLICT (violation_id) DO UPDATE SET opened_time = EXCLUDED.opened_time,"
        " revision = EXCLUDED.revision, state = EXCLUDED.state, severity = EXCLUDED.severity"
        " WHERE h.revision < EXCLUDED.revision",
        [list(column) for column in zip(*heads.values(), strict=True)],
    )


def violation_row(
    batch: Batch, decided: Decided, row: np.void, recorded_time: datetime | None
) -> tuple[Any, ...]:
    """The values of VIOLATION_COLUMNS."""
    (
        violation_id,
        revision,
        change,
        severity,
        flags,
        device,
        rule,
        zone,
        opened_us,
        confirmed_us,
        closed_us,
        confidence_ppm,
        depth_mm,
        depth_error_mm,
        fixes,
        supersedes,
    ) = row.tolist()
    return (
        violation_id,
        moment(opened_us),
        moment(confirmed_us),
        _moment_or_none(closed_us),
        recorded_time,
        supersedes or None,
        batch.version_of(decided),
        batch.number,
        revision,
        confidence_ppm,
        depth_mm,
        None if depth_error_mm < 0 else depth_error_mm,
        fixes,
        batch.share,
        bool(flags & FLAG_LATE),
        VIOLATION_CHANGES[change],
        SEVERITIES[severity],
        decided.devices.ids[device],
        decided.ruleset.rule_ids[rule],
        decided.ruleset.zones.ids[zone] if zone >= 0 else None,
    )


def _state_of(row: np.void) -> str:
    if row["change"] == WITHDRAWN:
        return "withdrawn"
    if row["change"] == HELD_BACK:
        return "held_back"
    return "open" if row["closed_us"] == NO_TIME else "closed"


def write_check_ins(cursor: Cursor[Any], batch: Batch, check_ins: Sequence[CheckIn]) -> None:
    """COPY the check-ins, in order."""
    columns = (
        ("time", "timestamptz"),
        ("received_time", "timestamptz"),
        ("batch", "int8"),
        ("item", "int4"),
        ("share", "int2"),
        ("device_id", "text"),
        ("outcome", "text"),
        ("method", "text"),
    )
    rows = (
        (
            moment(c.time_us),
            moment(c.received_time_us),
            batch.number,
            item,
            batch.share,
            c.device_id,
            c.outcome,
            c.method,
        )
        for item, c in enumerate(check_ins)
    )
    copy_rows(cursor, "check_ins", columns, rows)


def write_command_results(cursor: Cursor[Any], batch: Batch, results: Sequence[CommandResult]) -> None:
    """Insert what devices did with commands; what the broker brings again is there already."""
    cursor.executemany(
        "INSERT INTO command_results (time, received_time, batch, share, done, device_id, command_id, detail)"
        " SELECT %(time)s, %(received)s, %(batch)s, %(share)s, %(done)s, %(device)s, %(command)s, %(detail)s"
        " WHERE NOT EXISTS (SELECT FROM command_results r WHERE r.device_id = %(device)s"
        " AND r.command_id = %(command)s AND r.time = %(time)s AND r.done = %(done)s)",
        [
            {
                "time": bound(r.time_us),
                "received": moment(r.received_time_us),
                "batch": batch.number,
                "share": batch.share,
                "done": r.done,
                "device": r.device_id,
                "command": storable(r.command_id),
                "detail": storable(r.detail),
            }
            for r in results
        ],
    )


def write_rejects(
    cursor: Cursor[Any], batch: Batch, rejects: Sequence[Reject], *, brief: bool = False
) -> None:
    """COPY what could not be read; of a payload past the bound the beginning and a hash of the whole.

    brief : the quarantine is full, so one of each reason stands for all of them
    """
    kept_bytes = BRIEF_PAYLOAD_BYTES if brief else KEPT_PAYLOAD_BYTES
    if brief:
        counts = Counter(r.reason for r in rejects)
        first = {r.reason: r for r in reversed(rejects)}
        rejects = [
            replace(r, detail=f"{r.detail} (the quarantine is full: one of {counts[r.reason]} of this batch)")
            for r in first.values()
        ]
    columns = (
        ("received_time", "timestamptz"),
        ("batch", "int8"),
        ("payload_bytes", "int8"),
        ("share", "int2"),
        ("topic", "text"),
        ("reason", "text"),
        ("detail", "text"),
        ("payload", "bytea"),
        ("payload_sha256", "bytea"),
    )
    rows = (
        (
            moment(r.received_time_us),
            batch.number,
            len(r.payload),
            batch.share,
            storable(r.topic),
            storable(r.reason),
            storable(r.detail),
            r.payload[:kept_bytes],
            hashlib.sha256(r.payload).digest() if len(r.payload) > kept_bytes else None,
        )
        for r in rejects
    )
    copy_rows(cursor, "quarantine", columns, rows)


def storable(text: str) -> str:
    """Text that PostgreSQL takes: what a stranger sent may hold NUL or lone surrogates."""
    return text.replace("\0", "\N{SYMBOL FOR NULL}").encode("utf-8", "backslashreplace").decode()
