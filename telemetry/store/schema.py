"""Migrations: from an empty or older database to this program's schema, never from a newer one."""

from __future__ import annotations

import logging
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import psycopg

from telemetry.store.connect import connect
from telemetry.store.errors import SchemaTooNew, StoreError
from telemetry.store.partitions import DAILY, Layout, NativeDays, TimescaleChunks

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["VERSION", "layout_of", "migrate"]

log = logging.getLogger(__name__)

# In order; a database at version n has had the first n. A new version adds a file and edits no old one.
MIGRATIONS: Final = ("schema.sql",)
VERSION: Final = len(MIGRATIONS)
OLDEST_TIMESCALE: Final = (2, 11)
LOCK_KEY: Final = 0x52464E47  # of the advisory lock: one program migrates at a time

_BY_DAY: Final = re.compile(r"/\* by day: (\w+) \*/")


def layout_of(connection: Connection[Any]) -> tuple[int, Layout | None]:
    """The version of the database's schema (0: it has none) and how its tables are cut.

    Raises SchemaTooNew.
    """
    if connection.execute("SELECT to_regclass('ringfence_schema')").fetchone() == (None,):
        return 0, None
    row = connection.execute(
        "SELECT max(version), min(layout) FILTER (WHERE version = 1) FROM ringfence_schema"
    ).fetchone()
    assert row is not None
    found, layout = row
    if found is None:
        return 0, None
    if found > VERSION:
        raise SchemaTooNew(found, VERSION)
    if layout != "timescaledb":
        return found, NativeDays()
    version = _installed(connection)
    if version is None:
        raise StoreError(
            "this database was made with TimescaleDB, and the extension is gone from it; "
            "install it again (CREATE EXTENSION timescaledb)"
        )
    return found, TimescaleChunks(version, _licence(connection))


def migrate(connection: Connection[Any], url: str) -> Layout:
    """Bring the schema to VERSION; safe to call by several programs at once. Gives how tables are cut."""
    if connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
        raise StoreError(
            "the database is a read-only standby; let the database URL name the primary "
            "(add target_session_attrs=read-write and list both hosts)"
        )
    connection.execute("SELECT pg_advisory_lock(%s, 0)", (LOCK_KEY,))
    try:
        found, layout = layout_of(connection)
        if layout is None:
            layout = _choose_layout(connection, url)
        for version in range(found + 1, VERSION + 1):
            with connection.transaction():
                _apply(connection, version, layout)
            log.info("database migrated to schema version %d (%s)", version, layout.name)
        return layout
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s, 0)", (LOCK_KEY,))


def _apply(connection: Connection[Any], version: int, layout: Layout) -> None:
    text = resources.files("telemetry.store").joinpath(MIGRATIONS[version - 1]).read_text("utf-8")
    native = isinstance(layout, NativeDays)
    connection.execute(_BY_DAY.sub(r"PARTITION BY RANGE (\1)" if native else "", text))
    made = set(re.findall(r"CREATE TABLE (\w+) \((?:(?!CREATE TABLE).)*?/\* by day", text, re.DOTALL))
    for table, column in DAILY.items():
        if table in made:
            layout.cut(connection, table, column)
    connection.execute(
        "CREATE TABLE IF NOT EXISTS ringfence_schema (version integer PRIMARY KEY, layout text NOT NULL,"
        " applied_time timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    connection.execute(
        "INSERT INTO ringfence_schema (version, layout) VALUES (%s, %s)",
        (version, "native" if native else "timescaledb"),
    )


def _choose_layout(connection: Connection[Any], url: str) -> Layout:
    """Hypertables where the extension is or can be installed, native partitions elsewhere."""
    version = _installed(connection)
    if version is None:
        available = connection.execute(
            "SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'"
        ).fetchone()
        if available is None:
            return NativeDays()
        problem = _install(url)
        version = _installed(connection)
        if version is None:
            log.warning(
                "TimescaleDB %s is on this server but could not be installed into the database (%s): native "
                "partitions are used, for good. To have hypertables, let an administrator run CREATE "
                "EXTENSION timescaledb in an empty database, and start with that one",
                available[0],
                problem,
            )
            return NativeDays()
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_TIMESCALE:
        log.warning(
            "TimescaleDB %s is older than %d.%d: native partitions are used, for good",
            version,
            *OLDEST_TIMESCALE,
        )
        return NativeDays()
    return TimescaleChunks(version, _licence(connection))


def _installed(connection: Connection[Any]) -> str | None:
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
    return None if row is None else str(row[0])


def _licence(connection: Connection[Any]) -> str:
    """Under which licence the extension runs: Debian's is built under the Apache one alone."""
    row = connection.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    return str(row[0]) if row is not None and row[0] is not None else "apache"


def _install(url: str) -> str | None:
    """Try CREATE EXTENSION; gives what went wrong. On a connection of its own: the server ends the session
    when the library was not preloaded.
    """
    with connect(url, "ringfence-migrate") as other:
        try:
            other.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
        except psycopg.Error as error:
            return str(error).splitlines()[0]
    return None
