"""What a device page needs besides the track: beliefs over time, commands, check-ins."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from geofence import to_rfc3339
from telemetry.access.who import Permission, Who
from telemetry.api.fleet import no_such_device
from telemetry.api.guard import need
from telemetry.api.params import MAX_LIMIT, Between, DeviceId, Filter, Looked, Text
from telemetry.api.problems import Problem, problems
from telemetry.api.shapes import PageOf, Time

if TYPE_CHECKING:
    from telemetry.api.reader import CheckInRow, CommandRow, Reader

__all__ = ["device_routes"]

DAY_US: Final = 86_400_000_000
MOST_DAYS: Final = 7
See = Annotated[Who, need(Permission.SEE)]
Tracker = Annotated[Who, need(Permission.TRACK)]
Commander = Annotated[Who, need(Permission.COMMAND)]


class BeliefFilter(Looked):
    """Which time; the last 24 hours unless told otherwise."""


class BeliefLine(BaseModel):
    """What the engine held of one rule and zone after each of ``times``; null: it was not in question."""

    rule_id: str
    zone_id: str
    opens_at: float = Field(description="a violation opens when the belief reaches it", examples=[0.95])
    clears_at: float = Field(description="and closes when it has fallen to it", examples=[0.27])
    confidence: list[float | None] = Field(description="of being on the wrong side of the line, 0 to 1")
    log_odds: list[float | None]
    distance_m: list[float | None] = Field(description="to the zone's edge, negative inside")
    state: list[str | None] = Field(description="``unknown``, ``lawful``, ``wrong``")


class Beliefs(BaseModel):
    """Beliefs over time, decided again from stored pings for this answer."""

    device_id: str
    warm_from: Time = Field(description="where the engine was started blank, to have evidence at ``from``")
    times: list[Time]
    series: list[BeliefLine]


class Command(BaseModel):
    """What a device is asked to do."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"command": "locate"}, {"command": "set_interval", "seconds": 60, "mode": "moving"}]
        },
    )

    command: Literal["locate", "vibrate", "message", "set_interval"]
    text: Annotated[Text, Field(max_length=500)] | None = Field(None, description="of ``message``")
    seconds: int | None = Field(None, ge=5, le=3600, description="of ``set_interval``: between two fixes")
    mode: Literal["moving", "resting"] | None = Field(None, description="of ``set_interval``; null: both")

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        wanted = {"message": "text", "set_interval": "seconds"}.get(self.command)
        if wanted is not None and getattr(self, wanted) is None:
            raise ValueError(f"`{self.command}` needs `{wanted}`")
        extra = {"message": {"text"}, "set_interval": {"seconds", "mode"}}.get(self.command, set())
        for name in ("text", "seconds", "mode"):
            if getattr(self, name) is not None and name not in extra:
                raise ValueError(f"`{name}` does not go with `{self.command}`")
        return self


class CommandSent(BaseModel):
    """A command and what became of it."""

    command_id: str = Field(examples=["17"])
    device_id: str
    command: str
    arguments: dict[str, Any]
    who: str
    asked_at: Time
    sent_at: Time | None = Field(description="when the broker had it; null: not yet")
    outcome: str | None = Field(description="``done``, ``refused``; null: the device has not answered")
    detail: str | None = Field(description="why it refused")
    answered_at: Time | None


class CommandPage(PageOf[CommandSent]):
    """Commands, newest first."""


class ListFilter(Filter):
    """Which part of a list."""

    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="most items of one answer")
    cursor: Text | None = Field(None, description="``next`` of the answer before")


class CheckInFilter(Between):
    """Which check-ins; times are those of the check-in."""

    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="most items of one answer")
    cursor: Text | None = Field(None, description="``next`` of the answer before")


class CheckIn(BaseModel):
    """A check-in as it was reported."""

    device_id: str
    time: Time
    received_time: Time
    outcome: str = Field(description="``verified``, ``failed``, ``no_answer``")
    method: str = Field(description="``voice``, ``face``, ``button``")


class CheckInPage(PageOf[CheckIn]):
    """Check-ins, newest first."""


def device_routes(reader: Reader) -> APIRouter:
    """The routes ``/devices/{id}/belief``, ``/commands`` and ``/check-ins``."""
    router = APIRouter(tags=["fleet"])

    async def known(device_id: str) -> None:
        if await reader.device(device_id) is None:
            raise no_such_device(device_id)

    @router.get(
        "/devices/{device_id}/belief",
        summary="How sure the engine was, fix by fix",
        description="Beliefs are not stored: they are decided again for this answer, from the stored pings, "
        "by an engine that starts blank two hours before `from`. So it is a look, not the record; that is "
        f"`/violations`. At most {MOST_DAYS} days and 5,000 pings.",
        responses=problems(403, 404, 422, 503),
    )
    async def belief(device_id: DeviceId, query: Annotated[BeliefFilter, Query()], _who: Tracker) -> Beliefs:
        await known(device_id)
        to_us = query.to_us if query.to_us is not None else time.time_ns() // 1000 + 600_000_000
        from_us = query.from_us if query.from_us is not None else to_us - DAY_US
        if not 0 <= to_us - from_us <= MOST_DAYS * DAY_US:
            raise Problem(
                422,
                "invalid-value",
                f"from {to_rfc3339(from_us)} to {to_rfc3339(to_us)} is no time of up to {MOST_DAYS} days",
                "ask for a shorter one",
            )
        found = await reader.belief(device_id, from_us, to_us)
        return Beliefs(
            device_id=device_id,
            warm_from=to_rfc3339(found.warm_us),
            times=[to_rfc3339(time_us) for time_us in found.times_us],
            series=[
                BeliefLine(
                    rule_id=line.rule_id,
                    zone_id=line.zone_id,
                    opens_at=line.opens_at,
                    clears_at=line.clears_at,
                    confidence=line.confidence,
                    log_odds=line.log_odds,
                    distance_m=line.distance_m,
                    state=line.state,
                )
                for line in found.series
            ],
        )

    @router.get(
        "/devices/{device_id}/commands",
        summary="What was asked of a device, newest first",
        responses=problems(404, 422, 503),
    )
    async def commands(device_id: DeviceId, query: Annotated[ListFilter, Query()], _who: See) -> CommandPage:
        await known(device_id)
        page = await reader.commands(device_id, cursor=query.cursor, limit=query.limit)
        return CommandPage(items=[_command_of(row) for row in page.items], next=page.next)

    @router.post(
        "/devices/{device_id}/commands",
        status_code=202,
        summary="Ask a device to do something",
        description="It goes out on the device's `commands` topic within a second, with `command_id` as its "
        "`id`; the list says when the broker had it and what the device answered.",
        responses=problems(403, 404, 422, 503),
    )
    async def ask(device_id: DeviceId, command: Command, who: Commander) -> CommandSent:
        await known(device_id)
        arguments = command.model_dump(exclude={"command"}, exclude_none=True)
        return _command_of(await reader.ask_device(device_id, command.command, who.name, arguments))

    @router.get(
        "/devices/{device_id}/check-ins",
        summary="Check-ins of a device, newest first",
        responses=problems(404, 422, 503),
    )
    async def check_ins(
        device_id: DeviceId, query: Annotated[CheckInFilter, Query()], _who: See
    ) -> CheckInPage:
        await known(device_id)
        page = await reader.check_ins(
            device_id, from_us=query.from_us, to_us=query.to_us, cursor=query.cursor, limit=query.limit
        )
        return CheckInPage(items=[_check_in_of(row) for row in page.items], next=page.next)

    return router


def _time(time_us: int | None) -> str | None:
    return None if time_us is None else to_rfc3339(time_us)


def _command_of(row: CommandRow) -> CommandSent:
    return CommandSent(
        command_id=str(row.command_id),
        device_id=row.device_id,
        command=row.command,
        arguments={name: value for name, value in row.payload.items() if name != "command"},
        who=row.who,
        asked_at=to_rfc3339(row.asked_us),
        sent_at=_time(row.sent_us),
        outcome=row.outcome,
        detail=row.detail or None,
        answered_at=_time(row.answered_us),
    )


def _check_in_of(row: CheckInRow) -> CheckIn:
    return CheckIn(
        device_id=row.device_id,
        time=to_rfc3339(row.time_us),
        received_time=to_rfc3339(row.received_us),
        outcome=row.outcome,
        method=row.method,
    )
