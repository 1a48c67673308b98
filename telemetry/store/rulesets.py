"""Versions of zones and rules, kept whole, and in rows for who asks the database."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

from geofence import from_rfc3339
from telemetry.store.errors import RulesConflict
from telemetry.store.rows import moment, time_us_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import Connection

__all__ = ["AFTER_SQL", "IN_FORCE_SQL", "LOAD_SQL", "load", "save"]

LOAD_SQL: Final = """
SELECT version, document::text, effective_time FROM rules
WHERE version = coalesce(%s, (SELECT max(version) FROM rules))
"""

# Of the versions whose time has come the newest is in force: one that was saved later for an earlier time
# replaces the scheduled ones after it.
IN_FORCE_SQL: Final = """
SELECT version, document::text, effective_time FROM rules
WHERE version = coalesce((SELECT max(version) FROM rules WHERE effective_time <= %s),
                         (SELECT min(version) FROM rules))
"""

AFTER_SQL: Final = """
SELECT version, document::text, effective_time FROM rules WHERE version > %s ORDER BY version
"""


def load(row: Sequence[Any] | None) -> tuple[int, dict[str, Any], int] | None:
    """A row of LOAD_SQL as (version, document, effective_us)."""
    return None if row is None else (row[0], msgspec.json.decode(row[1]), time_us_of(row[2]))


def save(  # noqa: PLR0917 - a version is all of this
    connection: Connection[Any],
    document: dict[str, Any],
    digest: str,
    effective_us: int,
    saved_by: str | None = None,
    note: str | None = None,
    base: int | None = None,
) -> int:
    """The version of this document: a new one, or the newest where that has the same digest and is in force.

    base : the version that must be the newest; raises RulesConflict when another is
    """
    with connection.transaction():
        connection.execute(
            "LOCK TABLE rules IN SHARE ROW EXCLUSIVE MODE"
        )  # versions go up one after the other
        newest = connection.execute(
            "SELECT version, digest, effective_time FROM rules ORDER BY version DESC LIMIT 1"
        ).fetchone()
        if base is not None and base != (newest[0] if newest else 0):
            raise RulesConflict(base, int(newest[0]) if newest else 0)
        if newest is not None and newest[1] == digest and newest[2] <= moment(effective_us):
            return int(newest[0])
        row = connection.execute(
            "INSERT INTO rules (effective_time, digest, saved_by, note, document)"
            " VALUES (%s, %s, %s, %s, %s) RETURNING version",
            (moment(effective_us), digest, saved_by, note, msgspec.json.encode(document).decode()),
        ).fetchone()
        assert row is not None
        version = int(row[0])
        _save_zones(connection, version, document)
        _save_enrollments(connection, version, document)
        return version


def _save_zones(connection: Connection[Any], version: int, document: Mapping[str, Any]) -> None:
    """End the rows of zones that changed or are gone, and add the new ones."""
    features = document.get("zones", {}).get("features", [])
    rows = {
        str(feature["properties"]["id"]): (feature["properties"].get("layer"), msgspec.json.encode(feature))
        for feature in features
    }
    _replace(
        connection,
        version,
        "zones",
        "zone_id",
        {zone_id: _digest(feature) for zone_id, (_, feature) in rows.items()},
    )
    _insert(
        connection,
        "INSERT INTO zones (from_version, zone_id, layer, digest, feature)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        "zones",
        "zone_id",
        {
            zone_id: (version, zone_id, layer, _digest(feature), feature.decode())
            for zone_id, (layer, feature) in rows.items()
        },
    )


def _save_enrollments(connection: Connection[Any], version: int, document: Mapping[str, Any]) -> None:
    """The same for the roster. Keys stay in the document alone."""
    rows: dict[str, tuple[Any, ...]] = {}
    for device in document.get("rules", {}).get("devices", None) or []:
        fields = (
            _time_or_none(device.get("from")),
            _time_or_none(device.get("until")),
            str(device["id"]),
            str(device.get("kind", "ankle")),
            device.get("participant"),
            list(device.get("groups", [])),
            device.get("layers"),
        )
        rows[fields[2]] = fields
    digests = {device_id: _digest(repr(fields).encode()) for device_id, fields in rows.items()}
    _replace(connection, version, "enrollments", "device_id", digests)
    _insert(
        connection,
        "INSERT INTO enrollments (from_version, from_time, until_time, device_id, kind, participant, groups,"
        " layers, digest) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        "enrollments",
        "device_id",
        {device_id: (version, *fields, digests[device_id]) for device_id, fields in rows.items()},
    )


def _replace(
    connection: Connection[Any], version: int, table: str, key: str, digests: Mapping[str, bytes]
) -> None:
    """End the rows in force that are not among these."""
    connection.execute(
        f"UPDATE {table} t SET until_version = %s WHERE until_version IS NULL AND NOT EXISTS"  # noqa: S608
        " (SELECT FROM unnest(%s::text[], %s::bytea[]) n (key, digest)"
        f" WHERE n.key = t.{key} AND n.digest = t.digest)",
        (version, list(digests), list(digests.values())),
    )


def _insert(
    connection: Connection[Any], insert: str, table: str, key: str, rows: Mapping[str, tuple[Any, ...]]
) -> None:
    """Add those that have no row in force."""
    there = {
        row[0]
        for row in connection.execute(f"SELECT {key} FROM {table} WHERE until_version IS NULL")  # noqa: S608
    }
    new = [row for name, row in rows.items() if name not in there]
    with connection.cursor() as cursor:
        cursor.executemany(insert, new)


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()


def _time_or_none(value: Any) -> Any:
    """A time of the roster, as the document holds it: RFC 3339 text, or microseconds."""
    if value is None:
        return None
    return moment(value if isinstance(value, int) else from_rfc3339(str(value)))
