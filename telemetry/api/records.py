"""What is recorded about a participant, for that person to read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import Field

from telemetry.access.who import Permission, Who
from telemetry.api.guard import need
from telemetry.api.negotiate import negotiate
from telemetry.api.params import Filter, Text
from telemetry.api.problems import Problem, problems
from telemetry.record.writers import HTML_POLICY, write_html, write_json, write_pdf

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemetry.api.reader import Reader
    from telemetry.store.records import Record

__all__ = ["record_routes"]

MEDIA_TYPES: Final = {"application/json": "json", "text/html": "html", "application/pdf": "pdf"}
_WRITERS: Final[dict[str, Callable[[Record], bytes]]] = {
    "json": write_json,
    "html": write_html,
    "pdf": write_pdf,
}

Accept = Annotated[str | None, Header(include_in_schema=False)]
Recorder = Annotated[Who, need(Permission.RECORD)]


class RecordQuery(Filter):
    """How it is written."""

    format: Literal["json", "html", "pdf"] | None = Field(None, description="instead of an Accept header")
    positions: bool = Field(False, description="also every stored position, not only how many")
    reason: Annotated[Text, Field(max_length=500)] | None = Field(None, description="why, for the log")


def record_routes(reader: Reader) -> APIRouter:
    """The route ``/participants/{participant}/record``."""
    router = APIRouter(tags=["access"])

    @router.get(
        "/participants/{participant}/record",
        summary="All that is recorded about a person, in plain words",
        description="What devices sent, what was decided, what people did, and who looked. "
        "The look is logged.",
        response_class=Response,
        responses={
            200: {"content": {name: {} for name in MEDIA_TYPES}},
            **problems(401, 403, 404, 406, 422, 503),
        },
    )
    async def record(
        participant: Annotated[Text, Path(examples=["p-1017"])],
        query: Annotated[RecordQuery, Query()],
        who: Recorder,
        accept: Accept = None,
    ) -> Response:
        form = query.format or negotiate(accept, MEDIA_TYPES)
        found: Any = await reader.record(participant, groups=who.groups, positions=query.positions)
        if found is None:
            raise Problem(
                404,
                "no-such-participant",
                f"no participant {participant!r} is known",
                "GET /api/v1/devices shows who has which device",
            )
        data = await asyncio.to_thread(_WRITERS[form], found)
        headers = {"Vary": "Accept"}
        if form == "html":
            headers["Content-Security-Policy"] = HTML_POLICY
        media_type = next(name for name, value in MEDIA_TYPES.items() if value == form)
        return Response(data, media_type=media_type, headers=headers)

    return router
