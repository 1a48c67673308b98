"""Every look at a person is written down before anything is shown; and who looked, for supervisors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import unquote

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from geofence import from_rfc3339, to_rfc3339
from telemetry.access.looks import Look
from telemetry.access.who import Permission, Who
from telemetry.api.guard import need
from telemetry.api.params import Filter, Text, TimeUs
from telemetry.api.problems import Problem, problems
from telemetry.api.shapes import PageOf, Time

if TYPE_CHECKING:
    from fastapi import Request

    from telemetry.access.looks import LookRow
    from telemetry.store.gate import Gate

__all__ = ["LookPage", "Looking", "look_routes"]

LONGEST_REASON: Final = 500


class Looking:
    """Writes looks down.

    needs_reason : refuse a look that does not say why
    """

    def __init__(self, gate: Gate, *, needs_reason: bool) -> None:
        self._gate = gate
        self.needs_reason = needs_reason

    async def note(self, who: Who, request: Request, what: str) -> None:
        """Log that ``who`` looks, before anything is read: what can't be logged is not shown.

        Whom the look is at stands in the path, its range and reason in the query or a header.
        Raises Problem 422 when a reason is needed and none was given.
        """
        query, path = request.query_params, request.path_params
        header = request.headers.get("ringfence-reason")
        reason = _clean(query.get("reason") or (unquote(header, errors="replace") if header else ""))
        if self.needs_reason and not reason:
            raise Problem(
                422,
                "reason-needed",
                "a look at a person's track or record must say why",
                "send the header `Ringfence-Reason`, or `?reason=`",
            )
        await self._gate.note(
            Look(
                who=who.name,
                role=who.role.value,
                how=who.how,
                what=what,
                device_id=_clean(path.get("device_id", "")),
                participant=_clean(path.get("participant", "")),
                from_us=_time_us(query.get("from")),
                to_us=_time_us(query.get("to")),
                reason=reason,
            )
        )


def _clean(text: str) -> str | None:
    """What may be stored and printed of a stranger's text; None: nothing."""
    printable = (character for character in text[:LONGEST_REASON] if character.isprintable())
    return "".join(printable).strip() or None


def _time_us(text: str | None) -> int | None:
    """A time of the query; a wrong one is the route's to refuse."""
    try:
        return None if text is None else from_rfc3339(text.upper())
    except (ValueError, OverflowError):
        return None


class LookShape(BaseModel):
    """One row of the access log."""

    model_config = ConfigDict(title="Look", populate_by_name=True)

    link: int = Field(description="its place in the chain that `ringfence audit verify` follows")
    time: Time
    who: str
    role: str
    how: str = Field(description="``loopback``, ``session``, ``token``, ``terminal``")
    what: str = Field(description="``track``, ``export``, ``record``, ``log_in``, ``account``, ``erase``, …")
    device_id: str | None
    participant: str | None
    begin: Time | None = Field(alias="from", description="the range that was looked at")
    to: Time | None
    reason: str | None
    detail: str | None
    erased: bool = Field(description="an erasure blanked whom it was about, and why")


class LookPage(PageOf[LookShape]):
    """The access log, newest first."""


class LookFilter(Filter):
    """Which looks; times are those of the look."""

    who: Text | None = None
    device_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = Field(None, alias="device")
    participant: Text | None = None
    what: Text | None = None
    from_us: TimeUs | None = Field(None, alias="from", description="not before this time")
    to_us: TimeUs | None = Field(None, alias="to", description="before this time")
    limit: int = Field(100, ge=1, le=1_000, description="most items of one answer")
    cursor: Text | None = Field(None, description="``next`` of the answer before")


def look_routes(gate: Gate) -> APIRouter:
    """The route ``/looks``."""
    router = APIRouter(tags=["access"])

    @router.get(
        "/looks",
        summary="Who looked at whom, when and why; newest first",
        description="The access log: looks at tracks and records, log-ins, changes of accounts and tokens, "
        "erasures. A caseload sees what concerns its own people.",
        responses=problems(401, 403, 422, 503),
    )
    async def looks(
        query: Annotated[LookFilter, Query()], who: Annotated[Who, need(Permission.SEE_LOOKS)]
    ) -> LookPage:
        rows, following = await gate.looks(
            groups=who.groups,
            who=query.who,
            device_id=query.device_id,
            participant=query.participant,
            what=query.what,
            from_us=query.from_us,
            to_us=query.to_us,
            cursor=query.cursor,
            limit=query.limit,
        )
        return LookPage(items=[look_of(row) for row in rows], next=following)

    return router


def look_of(row: LookRow) -> LookShape:
    """A row as it travels."""
    begin = None if row.from_us is None else to_rfc3339(row.from_us)
    return LookShape(
        **{"from": begin},  # no name that Python takes
        link=row.link,
        time=to_rfc3339(row.time_us),
        who=row.who,
        role=row.role,
        how=row.how,
        what=row.what,
        device_id=row.device_id,
        participant=row.participant,
        to=None if row.to_us is None else to_rfc3339(row.to_us),
        reason=row.reason,
        detail=row.detail,
        erased=row.erased,
    )
