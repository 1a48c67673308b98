"""The chained logs as they are stored, for who checks them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from psycopg import IsolationLevel, sql
from psycopg.rows import dict_row

from telemetry.store.connect import connect
from telemetry.store.errors import translated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from psycopg import Connection

__all__ = ["StoredLogs", "stored_logs"]

CHUNK_ROWS: Final = 2_000


class StoredLogs:
    """All logs as of one moment, whatever is written meanwhile."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection

    def count(self, log: str) -> int:
        """How many rows it has."""
        row = self._connection.execute(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(log))
        ).fetchone()
        return 0 if row is None else int(row[0])

    def rows(self, log: str) -> Iterator[dict[str, Any]]:
        """Its rows by link, every column by its name; neither side holds them all."""
        with self._connection.cursor("log", row_factory=dict_row) as cursor:
            cursor.itersize = CHUNK_ROWS
            cursor.execute(sql.SQL("SELECT * FROM {} ORDER BY link").format(sql.Identifier(log)), binary=True)
            yield from cursor

    def erasures(self) -> dict[int, datetime]:
        """The numbers of the erasures that were logged, and when."""
        return dict(
            self._connection.execute("SELECT erasure, time FROM access_log WHERE erasure IS NOT NULL")
        )


@contextmanager
def stored_logs(url: str) -> Iterator[StoredLogs]:
    """The logs of this database, read in one transaction that writes nothing."""
    connection = connect(url, "ringfence audit")
    try:
        with translated("reading the logs"):
            connection.isolation_level = IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            with connection.transaction():
                yield StoredLogs(connection)
    finally:
        connection.close()
