"""A device's stored pings, streamed: as JSON, CSV or GeoJSON; and as one OGC moving feature."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from geofence import E7, NO_ACCURACY, NO_FIX, NO_SEQ, UNKNOWN_I16, UNKNOWN_U8, UNKNOWN_U16, to_rfc3339
from telemetry.api.shapes import mark_names, source_name, status_names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from telemetry.api.reader import TrackRow

__all__ = ["CSV_COLUMNS", "MEDIA_TYPES", "TrackPing", "write_track"]

MEDIA_TYPES: Final[Mapping[str, str]] = {
    "application/json": "json",
    "text/csv": "csv",
    "application/geo+json": "geojson",
    "application/mf+json": "mfjson",
}


class TrackPing(msgspec.Struct):
    """One stored ping; null is "unknown", as in JSON v1."""

    time: str
    received_time: str
    boot: int | None
    seq: int | None
    lat: float | None
    lon: float | None
    accuracy_m: float | None
    speed_mps: float | None
    heading_deg: float | None
    altitude_m: int | None
    battery_pct: int | None
    satellites: int | None
    status: list[str]
    source: str
    marks: list[str]


CSV_COLUMNS: Final = ("device_id", *TrackPing.__struct_fields__)


def ping_of(row: TrackRow) -> TrackPing:
    """A row of the store in degrees, metres and UTC."""
    has_fix = row.lat_e7 != NO_FIX
    return TrackPing(
        time=to_rfc3339(row.fix_time_us),
        received_time=to_rfc3339(row.received_time_us),
        boot=None if row.boot == NO_SEQ else row.boot,
        seq=None if row.seq == NO_SEQ else row.seq,
        lat=row.lat_e7 / E7 if has_fix else None,
        lon=row.lon_e7 / E7 if has_fix else None,
        accuracy_m=None if row.accuracy_mm == NO_ACCURACY else row.accuracy_mm / 1e3,
        speed_mps=None if row.speed_cmps == UNKNOWN_U16 else row.speed_cmps / 100,
        heading_deg=None if row.heading_cdeg == UNKNOWN_U16 else row.heading_cdeg / 100,
        altitude_m=None if row.altitude_m == UNKNOWN_I16 else row.altitude_m,
        battery_pct=None if row.battery_pct == UNKNOWN_U8 else row.battery_pct,
        satellites=None if row.satellites == UNKNOWN_U8 else row.satellites,
        status=status_names(row.status),
        source=source_name(row.status),
        marks=mark_names(row.marks),
    )


class Writer(Protocol):
    """How a track is written: what stands before, between and after the pings."""

    head: bytes
    between: bytes
    tail: bytes

    def write(self, ping: TrackPing) -> bytes:
        """One ping."""
        ...


class _Json:
    head, between, tail = b'{"items":[', b",", b'],"next":null}'

    def __init__(self, _device_id: str) -> None:
        self._encode = msgspec.json.Encoder().encode

    def write(self, ping: TrackPing) -> bytes:
        return self._encode(ping)


class _Csv:
    head, between, tail = (",".join(CSV_COLUMNS) + "\r\n").encode(), b"\r\n", b""

    def __init__(self, device_id: str) -> None:
        self._device_id = device_id

    def write(self, ping: TrackPing) -> bytes:
        # device ids, status names and sources hold no comma, quote or line break: nothing needs quoting
        values = [_csv_text(getattr(ping, name)) for name in TrackPing.__struct_fields__]
        return ",".join([self._device_id, *values]).encode()


class _GeoJson:
    head, between, tail = b'{"type":"FeatureCollection","features":[', b",", b"]}"

    def __init__(self, device_id: str) -> None:
        self._device_id = device_id
        self._encode = msgspec.json.Encoder().encode

    def write(self, ping: TrackPing) -> bytes:
        properties = {"device_id": self._device_id, **msgspec.structs.asdict(ping)}
        lat, lon = properties.pop("lat"), properties.pop("lon")
        geometry = None if lat is None else {"type": "Point", "coordinates": [lon, lat]}
        return self._encode({"type": "Feature", "geometry": geometry, "properties": properties})


_WRITERS: Final[dict[str, Callable[[str], Writer]]] = {"json": _Json, "csv": _Csv, "geojson": _GeoJson}


def _csv_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(value)
    return str(value)


async def write_track(
    device_id: str, style: str, chunks: AsyncIterator[Sequence[TrackRow]]
) -> AsyncIterator[bytes]:
    """The track in a format of MEDIA_TYPES, a piece for each chunk of rows.

    An error of the store on the way is raised, so the response breaks off without its end: what was cut
    short can't be taken for the whole.
    """
    if style == "mfjson":
        yield await _moving_feature(device_id, chunks)
        return
    writer = _WRITERS[style](device_id)
    yield writer.head
    first = True
    async for rows in chunks:
        if not rows:
            continue
        text = writer.between.join(writer.write(ping_of(row)) for row in rows)
        yield text if first else writer.between + text
        first = False
    yield writer.tail


async def _moving_feature(device_id: str, chunks: AsyncIterator[Sequence[TrackRow]]) -> bytes:
    """The track as OGC Moving Features JSON (OGC 19-045r3): one MovingPoint, its error and charge beside it.

    All times stand before all places, so it can't be streamed; a fix is some 100 bytes. Pings without a fix
    have no place in it, and of several with one time the first stands: times must grow.
    """
    pings: list[TrackPing] = []
    last_us: int | None = None
    async for rows in chunks:
        for row in rows:
            if row.lat_e7 != NO_FIX and row.fix_time_us != last_us:
                pings.append(ping_of(row))
                last_us = row.fix_time_us
    times = [ping.time for ping in pings]
    feature: dict[str, Any] = {
        "type": "Feature",
        "id": device_id,
        "properties": {"device_id": device_id},
        "crs": {"type": "Name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
        "trs": {"type": "Name", "properties": {"name": "urn:ogc:data:time:iso8601"}},
        "temporalGeometry": {
            "type": "MovingPoint",
            "datetimes": times,
            "coordinates": [[ping.lon, ping.lat] for ping in pings],
            "interpolation": "Discrete",  # what lies between two fixes is not known
        },
        "temporalProperties": [
            _measure("accuracy_m", "MTR", pings),
            _measure("battery_pct", "P1", pings),
        ],
    }
    if times:
        feature["time"] = [times[0], times[-1]]
    return msgspec.json.encode(feature)


def _measure(name: str, unit: str, pings: Sequence[TrackPing]) -> dict[str, Any]:
    """A measured value over the times at which it is known; units by their UN/CEFACT code."""
    known = [(ping.time, getattr(ping, name)) for ping in pings if getattr(ping, name) is not None]
    return {
        "datetimes": [time for time, _ in known],
        name: {
            "type": "Measure",
            "form": unit,
            "values": [value for _, value in known],
            "interpolation": "Discrete",
        },
    }
