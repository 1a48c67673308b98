"""Who keeps alerts quiet, and what became of the messages."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Literal, Self

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from geofence import to_rfc3339
from telemetry.access.who import Permission, Who
from telemetry.api.guard import acting, need
from telemetry.api.params import MAX_LIMIT, Note, Text, TimeUs
from telemetry.api.problems import Problem, problems
from telemetry.api.shapes import Id, PageOf, Time

if TYPE_CHECKING:
    from telemetry.api.reader import Reader
    from telemetry.api.work import ChannelRow, DeliveryRow, SuppressionRow

__all__ = ["channel_routes"]

Number = Annotated[str, Path(pattern=r"^[0-9]{1,18}$", examples=["7"])]
DEVICE_ID = r"^[A-Za-z0-9_-]{1,64}$"


class Suppression(BaseModel):
    """Alerts that are kept quiet: recorded and listed, but delivered nowhere."""

    suppression_id: Id
    device_id: str | None = Field(description="null: any")
    rule_id: str | None = Field(description="null: any")
    zone_id: str | None = Field(description="null: any")
    reason: str
    created_by: str
    created_at: Time
    until: Time
    lifted_by: str | None = Field(description="who ended it early")
    lifted_at: Time | None
    in_force: bool


class SuppressionPage(PageOf[Suppression]):
    """Suppressions, newest first."""


class SuppressionFilter(BaseModel):
    """Which suppressions."""

    model_config = ConfigDict(extra="forbid")

    in_force: bool | None = Field(None, description="those that hold now, or those that have ended")
    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="most items of one answer")
    cursor: Text | None = Field(None, description="``next`` of the answer before")


class NewSuppression(BaseModel):
    """Which alerts to keep quiet, until when and why. All that is given of device, rule and zone must fit."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "device_id": "a17",
                    "rule_id": "strap",
                    "until": "2026-11-24T18:00:00Z",
                    "reason": "strap is being replaced",
                    "who": "m.ito",
                }
            ]
        },
    )

    device_id: Annotated[str, Field(pattern=DEVICE_ID)] | None = None
    rule_id: Text | None = None
    zone_id: Text | None = None
    until_us: TimeUs = Field(alias="until", description="at most a year ahead")
    reason: Annotated[Note, Field(min_length=1)]
    who: Annotated[Text, Field(max_length=100)] = Field("local operator", description="who does this")

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if self.device_id is None and self.rule_id is None and self.zone_id is None:
            raise ValueError("it would keep everything quiet; give device_id, rule_id or zone_id")
        now_us = time.time_ns() // 1000
        if not now_us < self.until_us <= now_us + 366 * 86_400_000_000:
            raise ValueError("`until` is not within the year ahead; give a time when somebody looks again")
        return self


class Lift(BaseModel):
    """Who ends it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"who": "m.ito"}]})

    who: Annotated[Text, Field(max_length=100)] = Field("local operator", description="who does this")


class Delivery(BaseModel):
    """One message through one channel."""

    delivery_id: Id
    channel: str = Field(examples=["webhook:pager"])
    alert_id: Id
    device_id: str
    state: str = Field(description="``waiting``, ``delivered`` or ``dead``: given up")
    attempts: int
    error: str | None = Field(description="what the last try that failed met")
    created_at: Time
    next_try_at: Time | None = Field(description="while it waits")
    settled_at: Time | None = Field(description="when it was delivered or given up")


class DeliveryPage(PageOf[Delivery]):
    """Deliveries, newest first."""


class DeliveryFilter(BaseModel):
    """Which deliveries."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["waiting", "delivered", "dead"] | None = None
    channel: Text | None = None
    alert: Annotated[str, Field(pattern=r"^[0-9]{1,18}$")] | None = Field(None, description="id of an alert")
    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="most items of one answer")
    cursor: Text | None = Field(None, description="``next`` of the answer before")


class ChannelState(BaseModel):
    """What a channel has before it."""

    channel: str = Field(examples=["mqtt"])
    waiting: int
    dead: int
    oldest_at: Time | None = Field(description="of the oldest message that waits; null: none does")


class ChannelList(BaseModel):
    """Every channel that ever told anybody."""

    items: list[ChannelState]


See = Annotated[Who, need(Permission.SEE)]
Worker = Annotated[Who, need(Permission.WORK_ALERTS)]
Engineer = Annotated[Who, need(Permission.MEASURE)]


def channel_routes(reader: Reader) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["alerts"])

    @router.get("/suppressions", summary="Who keeps which alerts quiet", responses=problems(422, 503))
    async def suppressions(query: Annotated[SuppressionFilter, Query()], _who: See) -> SuppressionPage:
        page = await reader.suppressions(in_force=query.in_force, cursor=query.cursor, limit=query.limit)
        return SuppressionPage(items=[_suppression(row) for row in page.items], next=page.next)

    @router.post(
        "/suppressions", summary="Keep alerts quiet", status_code=201, responses=problems(403, 422, 503)
    )
    async def suppress(new: NewSuppression, who: Worker) -> Suppression:
        if not who.sees_everyone and (new.device_id is None or await reader.device(new.device_id) is None):
            # a whole rule, or a zone, is other people's too
            raise _beyond_caseload(who)
        return _suppression(
            await reader.suppress(
                device_id=new.device_id,
                rule_id=new.rule_id,
                zone_id=new.zone_id,
                until_us=new.until_us,
                reason=new.reason,
                who=acting(who, new.who),
            )
        )

    @router.post(
        "/suppressions/{suppression_id}/lift", summary="End it now", responses=problems(403, 404, 422, 503)
    )
    async def lift(suppression_id: Number, step: Lift, who: Worker) -> Suppression:
        row = await reader.lift(int(suppression_id), who=acting(who, step.who))
        if row is None:
            raise _nobody_knows("suppression", suppression_id)
        return _suppression(row)

    @router.get("/deliveries", summary="What became of the messages", responses=problems(422, 503))
    async def deliveries(query: Annotated[DeliveryFilter, Query()], _who: Engineer) -> DeliveryPage:
        page = await reader.deliveries(
            state=query.state,
            channel=query.channel,
            alert_id=None if query.alert is None else int(query.alert),
            cursor=query.cursor,
            limit=query.limit,
        )
        return DeliveryPage(items=[_delivery(row) for row in page.items], next=page.next)

    @router.post(
        "/deliveries/{delivery_id}/retry",
        summary="Try at once what waits or was given up",
        responses=problems(403, 404, 422, 503),
    )
    async def retry(delivery_id: Number, _who: Engineer) -> Delivery:
        row = await reader.retry_delivery(int(delivery_id))
        if row is None:
            raise _nobody_knows("delivery", delivery_id)
        return _delivery(row)

    @router.get("/channels", summary="What each channel has before it", responses=problems(503))
    async def channels(_who: Engineer) -> ChannelList:
        return ChannelList(items=[_channel(row) for row in await reader.channels()])

    return router


def _nobody_knows(what: str, number: str) -> Problem:
    plural = {"delivery": "deliveries"}.get(what, f"{what}s")
    return Problem(
        404, f"no-such-{what}", f"no {what} {number} is known", f"GET /api/v1/{plural} lists those that are"
    )


def _beyond_caseload(who: Who) -> Problem:
    return Problem(
        403,
        "not-permitted",
        f"{who.name} has a caseload, and this would be about others as well",
        "name a device of the caseload, or ask somebody who works for all",
    )


def _suppression(row: SuppressionRow) -> Suppression:
    return Suppression(
        suppression_id=str(row.suppression_id),
        device_id=row.device_id,
        rule_id=row.rule_id,
        zone_id=row.zone_id,
        reason=row.reason,
        created_by=row.created_by,
        created_at=to_rfc3339(row.created_us),
        until=to_rfc3339(row.until_us),
        lifted_by=row.lifted_by,
        lifted_at=_time(row.lifted_us),
        in_force=row.in_force,
    )


def _delivery(row: DeliveryRow) -> Delivery:
    return Delivery(
        delivery_id=str(row.delivery_id),
        channel=row.channel,
        alert_id=str(row.alert_id),
        device_id=row.device_id,
        state=row.state,
        attempts=row.attempts,
        error=row.error,
        created_at=to_rfc3339(row.created_us),
        next_try_at=to_rfc3339(row.due_us) if row.state == "waiting" else None,
        settled_at=_time(row.settled_us),
    )


def _channel(row: ChannelRow) -> ChannelState:
    return ChannelState(
        channel=row.channel, waiting=row.waiting, dead=row.dead, oldest_at=_time(row.oldest_us)
    )


def _time(time_us: int | None) -> str | None:
    return None if time_us is None else to_rfc3339(time_us)
