"""Devices, where they are, and where they were."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from telemetry.access.who import Permission, Who
from telemetry.api.guard import need
from telemetry.api.negotiate import negotiate
from telemetry.api.params import DeviceFilter, DeviceId, TrackFilter  # noqa: TC001 - FastAPI reads them
from telemetry.api.positions import columns_json, geojson
from telemetry.api.problems import Problem, problems
from telemetry.api.shapes import Device, DevicePage, device_of
from telemetry.api.track import MEDIA_TYPES, write_track

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from telemetry.api.reader import Reader, TrackRow

__all__ = ["fleet_routes"]

DAY_US: Final = 86_400_000_000
CLOCK_SLACK_US: Final = 600_000_000  # how far ahead of ours a stored fix time may be
POSITION_TYPES: Final = {"application/json": "json", "application/geo+json": "geojson"}

See = Annotated[Who, need(Permission.SEE)]
Tracker = Annotated[Who, need(Permission.TRACK)]
Accept = Annotated[str | None, Header(include_in_schema=False)]  # OpenAPI describes it by the answers' types

_POSITION_EXAMPLE: Final = {
    "columns": ["device_id", "lon", "lat", "accuracy_m", "time", "battery_pct", "status", "marks"],
    "rows": [["a17", -80.8431, 35.2271, 8.5, "2026-11-24T08:00:00Z", 81, ["moving"], []]],
}
_TRACK_EXAMPLE: Final = {
    "items": [
        {
            "time": "2026-11-24T08:00:00.123Z",
            "received_time": "2026-11-24T08:00:00.480Z",
            "boot": 3,
            "seq": 17,
            "lat": 35.2271,
            "lon": -80.8431,
            "accuracy_m": 8.5,
            "speed_mps": 1.2,
            "heading_deg": 87.5,
            "altitude_m": 229,
            "battery_pct": 81,
            "satellites": 9,
            "status": ["moving"],
            "source": "gnss",
            "marks": [],
        }
    ],
    "next": None,
}


def fleet_routes(reader: Reader) -> APIRouter:
    """The routes under ``/devices`` and ``/positions``."""
    router = APIRouter(tags=["fleet"])

    @router.get("/devices", summary="Devices by id", responses=problems(422, 503))
    async def devices(query: Annotated[DeviceFilter, Query()], _who: See) -> DevicePage:
        page = await reader.devices(cursor=query.cursor, limit=query.limit)
        return DevicePage(items=[device_of(row) for row in page.items], next=page.next)

    @router.get("/devices/{device_id}", summary="One device", responses=problems(404, 422, 503))
    async def device(device_id: DeviceId, _who: See) -> Device:
        row = await reader.device(device_id)
        if row is None:
            raise no_such_device(device_id)
        return device_of(row)

    @router.get(
        "/devices/{device_id}/track",
        summary="Every stored ping of a device between two times, by fix time",
        description="The last 24 hours unless told otherwise. Streamed and complete: a response that breaks "
        "off was cut short by an error.",
        response_class=StreamingResponse,
        responses={
            200: {
                "content": {
                    "application/json": {"example": _TRACK_EXAMPLE},
                    "text/csv": {"schema": {"type": "string"}},
                    "application/geo+json": {"schema": {"type": "object"}},
                    "application/mf+json": {"schema": {"type": "object"}},
                }
            },
            **problems(404, 406, 422, 503),
        },
    )
    async def track(
        device_id: DeviceId, query: Annotated[TrackFilter, Query()], _who: Tracker, accept: Accept = None
    ) -> StreamingResponse:
        style = query.format or negotiate(accept, MEDIA_TYPES)
        now_us = time.time_ns() // 1000
        to_us = query.to_us if query.to_us is not None else now_us + CLOCK_SLACK_US
        from_us = query.from_us if query.from_us is not None else min(to_us, now_us) - DAY_US
        chunks = aiter(reader.track(device_id, from_us, to_us))
        # read before the answer begins, so that an error of the database still becomes a proper one
        first = await anext(chunks, None) or []
        if not first and await reader.device(device_id) is None:
            raise no_such_device(device_id)
        media_type = next(name for name, value in MEDIA_TYPES.items() if value == style)
        return StreamingResponse(
            write_track(device_id, style, chain(first, chunks)),
            media_type=media_type,
            headers={
                "Content-Disposition": f'inline; filename="{device_id}.{style}"',
                "Vary": "Accept",
            },
        )

    @router.get(
        "/positions",
        summary="The newest position of every device",
        description="Compact columns, as the stream's `positions` events carry them, or GeoJSON points.",
        response_class=Response,
        responses={
            200: {
                "content": {
                    "application/json": {"example": _POSITION_EXAMPLE},
                    "application/geo+json": {"schema": {"type": "object"}},
                }
            },
            **problems(406, 503),
        },
    )
    async def positions(_who: See, accept: Accept = None) -> Response:
        style = negotiate(accept, POSITION_TYPES)
        rows = await reader.positions(None)
        if style == "json":
            return Response(
                await columns_json(rows), media_type="application/json", headers={"Vary": "Accept"}
            )
        return Response(await geojson(rows), media_type="application/geo+json", headers={"Vary": "Accept"})

    return router


def no_such_device(device_id: str) -> Problem:
    """The answer for an id that nobody knows."""
    return Problem(
        404,
        "no-such-device",
        f"no device {device_id!r} is enrolled or has ever spoken",
        "GET /api/v1/devices lists those that are known",
    )


async def chain(
    first: Sequence[TrackRow], rest: AsyncIterator[Sequence[TrackRow]]
) -> AsyncIterator[Sequence[TrackRow]]:
    """The first chunk, then the others."""
    yield first
    async for chunk in rest:
        yield chunk
