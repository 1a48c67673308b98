"""Tables cut by day: TimescaleDB cuts its own, elsewhere this makes the native partitions.

Both keep the same promise: a row of any day that a batch may hold finds its place, and old days are dropped
whole, never row by row.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from psycopg import sql

from geofence import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from psycopg import Connection

__all__ = ["DAILY", "DAY_US", "Layout", "NativeDays", "TimescaleChunks", "days_of"]

DAY_US: Final = 86_400_000_000
AHEAD_DAYS: Final = 3
_DAY_NAME: Final = re.compile(r"\d{4}_\d\d_\d\d")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LOCK_TIMEOUT: Final = "2s"  # a reader that streams for long must not hold up the writer behind our lock
LOCK_KEY: Final = 0x52464E43  # of advisory locks: two sessions must not make the same partition

# Every table that is cut by day, with the column that says which day.
DAILY: Final[dict[str, str]] = {
    "batches": "committed_time",
    "pings": "fix_time",
    "transitions": "time",
    "violations": "opened_time",
    "check_ins": "received_time",
    "quarantine": "received_time",
    "command_results": "received_time",
    "outbox": "created_time",
}


def days_of(*times_us: NDArray[np.int64]) -> set[int]:
    """The days since 1970 (UTC) on which these times fall; NO_TIME falls on none."""
    days: set[int] = set()
    for column in times_us:
        if len(column):
            days.update(np.unique(column[column != NO_TIME] // DAY_US).tolist())
    return days


_CREATE: Final = """
CREATE TABLE {name} (LIKE {parent} INCLUDING ALL,
    CHECK ({column} >= {lower}::timestamptz AND {column} < {upper}::timestamptz))
"""
_ATTACH: Final = "ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ({lower}) TO ({upper})"


class NativeDays:
    """Native range partitions, one for each day and table, named ``pings_2026_11_24``."""

    name = "native partitions"

    def __init__(self) -> None:
        self._known: dict[str, set[int]] = {table: set() for table in DAILY}

    @staticmethod
    def cut(connection: Connection[Any], table: str, column: str) -> None:
        """Nothing to do: the table was created with PARTITION BY."""

    def forget(self) -> None:
        """Look at the database again before the next use: another session may have dropped days."""
        for days in self._known.values():
            days.clear()

    def ensure(self, connection: Connection[Any], table: str, days: Iterable[int]) -> None:
        """Have a partition for each of these days (counted from 1970). Call outside of a transaction."""
        missing = sorted(set(days) - self._known[table])
        if not missing:
            return
        there = self.existing(connection, table)
        self._known[table] = there
        for day in missing:
            if day not in there:
                self._make(connection, table, day)
                there.add(day)

    @staticmethod
    def existing(connection: Connection[Any], table: str) -> set[int]:
        """The days that have a partition now."""
        rows = connection.execute(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = to_regclass(%s)",
            (table,),
        ).fetchall()
        suffixes = (name.removeprefix(f"{table}_") for (name,) in rows)
        return {_day_in_name(suffix) for suffix in suffixes if _DAY_NAME.fullmatch(suffix)}

    @staticmethod
    def _make(connection: Connection[Any], table: str, day: int) -> None:
        """Make the partition beside the table, then attach it: ATTACH lets readers and writers go on, while
        CREATE ... PARTITION OF would wait for every one of them.
        """
        begin = date(1970, 1, 1) + timedelta(days=day)
        name = sql.Identifier(f"{table}_{begin:%Y_%m_%d}")
        parent, column = sql.Identifier(table), sql.Identifier(DAILY[table])
        lower, upper = _midnight(begin), _midnight(begin + timedelta(days=1))
        with connection.transaction():
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT))
            connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (LOCK_KEY, table))
            if day in NativeDays.existing(connection, table):
                return
            for statement in (_CREATE, _ATTACH):
                connection.execute(
                    sql.SQL(statement).format(
                        name=name, parent=parent, column=column, lower=lower, upper=upper
                    )
                )

    def parts(self, connection: Connection[Any], table: str) -> list[tuple[str, int]]:
        """The partitions as (name to be used in SQL, end in microseconds)."""
        return [
            (f"{table}_{date(1970, 1, 1) + timedelta(days=day):%Y_%m_%d}", (day + 1) * DAY_US)
            for day in sorted(self.existing(connection, table))
        ]

    def drop_before(self, connection: Connection[Any], table: str, before_us: int) -> int:
        """Drop the days that end at or before this time; gives how many."""
        old = [day for day in self.existing(connection, table) if (day + 1) * DAY_US <= before_us]
        for day in sorted(old):
            begin = date(1970, 1, 1) + timedelta(days=day)
            with connection.transaction():
                connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT))
                connection.execute(
                    sql.SQL("DROP TABLE {}").format(sql.Identifier(f"{table}_{begin:%Y_%m_%d}"))
                )
            self._known[table].discard(day)
        return len(old)


class TimescaleChunks:
    """Hypertables with a chunk for each day; the extension makes chunks when rows come.

    licence : ``apache`` or ``timescale``, of the server; the columnstore is part of the second alone
    """

    def __init__(self, version: str, licence: str) -> None:
        edition = "Apache edition: no columnstore" if licence == "apache" else "columnstore not used"
        self.name = f"timescaledb {version}, {edition}"

    @staticmethod
    def cut(connection: Connection[Any], table: str, column: str) -> None:
        """Make a hypertable of a table without rows. It needs no index by time alone: we ask none of that."""
        connection.execute(
            "SELECT create_hypertable(%s::regclass, %s::name, chunk_time_interval => interval '1 day',"
            " create_default_indexes => false)",
            (table, column),
        )

    def forget(self) -> None:
        """Nothing is remembered."""

    def ensure(self, connection: Connection[Any], table: str, days: Iterable[int]) -> None:
        """Nothing to do: a chunk is made with the first row of its day."""

    @staticmethod
    def parts(connection: Connection[Any], table: str) -> list[tuple[str, int]]:
        """The chunks as (name to be used in SQL, end in microseconds)."""
        rows = connection.execute(
            "SELECT format('%%I.%%I', chunk_schema, chunk_name), range_end"
            " FROM timescaledb_information.chunks"
            " WHERE hypertable_schema = current_schema() AND hypertable_name = %s ORDER BY range_end",
            (table,),
        ).fetchall()
        return [(name, (end - _EPOCH) // timedelta(microseconds=1)) for name, end in rows]

    @staticmethod
    def drop_before(connection: Connection[Any], table: str, before_us: int) -> int:
        """Drop the chunks that end at or before this time; gives how many."""
        before = _EPOCH + timedelta(microseconds=before_us)
        with connection.transaction():
            connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(LOCK_TIMEOUT))
            rows = connection.execute(
                "SELECT drop_chunks(%s::regclass, older_than => %s)", (table, before)
            ).fetchall()
        return len(rows)


Layout = NativeDays | TimescaleChunks


def _day_in_name(text: str) -> int:
    year, month, day = map(int, text.split("_"))
    return (date(year, month, day) - date(1970, 1, 1)).days


def _midnight(day: date) -> str:
    return f"{day:%Y-%m-%d} 00:00:00+00"
