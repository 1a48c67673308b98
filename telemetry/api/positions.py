"""Where the fleet is, for maps: compact columns, or GeoJSON."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from geofence import E7, NO_ACCURACY, NO_FIX, UNKNOWN_U8
from telemetry.api.shapes import mark_names, position_of, status_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from telemetry.api.reader import PositionRow

__all__ = ["COLUMNS", "columns_json", "geojson"]

COLUMNS: Final = ("device_id", "lon", "lat", "accuracy_m", "time", "battery_pct", "status", "marks")

PIECE_ROWS: Final = 2_000  # about 10 ms of work

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_status_names = cache(status_names)  # a fleet has a few dozen different values
_mark_names = cache(mark_names)


async def columns_json(rows: Sequence[PositionRow]) -> bytes:
    """``{"columns": [...], "rows": [[...], ...]}``: a fifth of the bytes of one object for each device."""
    head = b'{"columns":' + msgspec.json.encode(COLUMNS) + b',"rows":['
    return head + await _joined(rows, _row) + b"]}"


async def geojson(rows: Sequence[PositionRow]) -> bytes:
    """A FeatureCollection of points; a device without a fix has a null geometry."""
    return b'{"type":"FeatureCollection","features":[' + await _joined(rows, _feature) + b"]}"


async def _joined(rows: Sequence[PositionRow], make: Callable[[PositionRow], Any]) -> bytes:
    """The items of a JSON array, without its brackets; other requests get their turn between the pieces."""
    pieces = []
    for start in range(0, len(rows), PIECE_ROWS):
        pieces.append(msgspec.json.encode([make(row) for row in rows[start : start + PIECE_ROWS]])[1:-1])
        await asyncio.sleep(0)
    return b",".join(pieces)


def _row(row: PositionRow) -> tuple[Any, ...]:
    has_fix = row.lat_e7 != NO_FIX
    return (
        row.device_id,
        row.lon_e7 / E7 if has_fix else None,
        row.lat_e7 / E7 if has_fix else None,
        None if row.accuracy_mm == NO_ACCURACY else row.accuracy_mm / 1e3,
        _EPOCH + timedelta(microseconds=row.fix_time_us),  # msgspec writes it as RFC 3339 with Z
        None if row.battery_pct == UNKNOWN_U8 else row.battery_pct,
        _status_names(row.status),
        _mark_names(row.marks),
    )


def _feature(row: PositionRow) -> dict[str, Any]:
    position = position_of(row)
    properties = position.model_dump(exclude={"lat", "lon"})
    return {
        "type": "Feature",
        "id": row.device_id,
        "geometry": None
        if position.lat is None
        else {"type": "Point", "coordinates": [position.lon, position.lat]},
        "properties": {"device_id": row.device_id, **properties},
    }
