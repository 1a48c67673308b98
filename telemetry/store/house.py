"""Keeping house: days are made before they are needed and dropped, whole, when they are old."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from telemetry.store.partitions import AHEAD_DAYS, DAILY, DAY_US
from telemetry.store.quarantine import size_of
from telemetry.store.rows import moment, time_us_of

if TYPE_CHECKING:
    from psycopg import Connection

    from telemetry.store.partitions import Layout

__all__ = ["Retention", "clean", "index_places", "make_ahead"]

LATENESS_US = 3_600_000_000  # most late pings of a day have come an hour after its end

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retention:
    """For how many days each table keeps its rows; None: for ever.

    Raw pings are the bulk of the data and tell most about a person, so they go after 90 days unless told
    otherwise; decisions are the record, so they stay. Days count from the time by which a table is cut.
    """

    pings: int | None = 90
    batches: int | None = 90
    check_ins: int | None = None
    transitions: int | None = None
    violations: int | None = None
    quarantine: int | None = 30
    command_results: int | None = None
    outbox: int | None = 30
    quarantine_bytes: int | None = 1 << 30  # from half of it on the oldest days go

    @classmethod
    def of_pings(cls, days: int | None, **others: int | None) -> Self:
        """Pings for so long, and as long the batches, which tell in what order they were decided."""
        return cls(pings=days, batches=days, **others)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value < 1:
                unit = "bytes" if field.name == "quarantine_bytes" else "days"
                raise ValueError(
                    f"retention of {field.name} is {value} {unit}; give at least 1, or None to keep all"
                )


def make_ahead(connection: Connection[Any], layout: Layout, now_us: int) -> None:
    """Have today, yesterday and the next days in every table."""
    today = now_us // DAY_US
    for table in DAILY:
        layout.ensure(connection, table, range(today - 1, today + AHEAD_DAYS + 1))


def clean(connection: Connection[Any], layout: Layout, retention: Retention, now_us: int) -> dict[str, int]:
    """Drop the days past their retention; gives how many of each table.

    What a restart would still replay, violations that last, and messages that were not sent are kept whatever
    their age.
    """
    dropped: dict[str, int] = {}
    for table in DAILY:
        days = getattr(retention, table)
        if days is None:
            continue
        before_us = now_us - days * DAY_US
        needed = connection.execute(_NEEDED[table]).fetchone() if table in _NEEDED else None
        if needed is not None and needed[0] is not None:
            before_us = min(before_us, time_us_of(needed[0]))
        count = layout.drop_before(connection, table, before_us)
        if count:
            dropped[table] = count
            log.info("retention: %d days of %s dropped", count, table)
            if table == "violations":  # their heads say which rows are current, and are no days
                connection.execute(
                    "DELETE FROM violation_heads WHERE opened_time < %s",
                    (moment(before_us // DAY_US * DAY_US),),
                )
    if retention.quarantine_bytes is not None:
        count = _make_room(connection, layout, retention.quarantine_bytes, now_us)
        if count:
            dropped["quarantine"] = dropped.get("quarantine", 0) + count
            log.warning("the quarantine was filling up: its %d oldest days were dropped", count)
    return dropped


def _make_room(connection: Connection[Any], layout: Layout, most_bytes: int, now_us: int) -> int:
    """Drop the oldest days of the quarantine while it takes over half of what it may; today stays."""
    dropped = 0
    for _, end_us in layout.parts(connection, "quarantine"):
        if end_us > now_us or size_of(connection, layout) <= most_bytes // 2:
            break
        dropped += layout.drop_before(connection, "quarantine", end_us)
    return dropped


def index_places(connection: Connection[Any], layout: Layout, now_us: int) -> int:
    """Add the index by cell and time to every day of pings that is over; gives how many were made.

    Sorting a whole day at once costs a fraction of keeping the index up row by row, and CONCURRENTLY holds up
    nobody. What an interruption left half-made is made again.
    """
    made = 0
    for part, end_us in layout.parts(connection, "pings"):
        if end_us + LATENESS_US > now_us:
            continue
        there = connection.execute(_PLACE_INDEX, (part,)).fetchone()
        if there is not None:
            index, is_valid = there
            if is_valid:
                continue
            connection.execute(f"DROP INDEX CONCURRENTLY {index}")
        connection.execute(f"CREATE INDEX CONCURRENTLY ON {part} (cell, fix_time)")
        made += 1
    return made


_PLACE_INDEX = """
SELECT format('%%I.%%I', n.nspname, c.relname), i.indisvalid
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.indrelid = %s::regclass AND i.indkey::text = (
    SELECT string_agg(attnum::text, ' ' ORDER BY attname) FROM pg_attribute
    WHERE attrelid = i.indrelid AND attname IN ('cell', 'fix_time'))
"""

_LATER_BATCHES = (
    " FROM batches b JOIN shares s USING (share) LEFT JOIN"
    " (SELECT share, max(batch) AS batch FROM snapshots GROUP BY share) n USING (share)"
    " WHERE b.number > coalesce(n.batch, 0)"
)
_NEEDED = {
    "pings": "SELECT min(b.first_fix_time)" + _LATER_BATCHES,
    "batches": "SELECT min(b.committed_time)" + _LATER_BATCHES,
    "check_ins": "SELECT min(b.first_check_in)" + _LATER_BATCHES,
    "violations": "SELECT min(opened_time) FROM violation_heads WHERE state = 'open'",
    "outbox": "SELECT min(created_time) FROM outbox WHERE sent_time IS NULL",
}
