"""Alerts: the queue that operators work on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query

from telemetry.access.who import Permission, Who
from telemetry.api.guard import acting, need
from telemetry.api.params import (
    Acknowledgement,
    AlertFilter,
    AlertId,
    Assignment,
    Resolution,
    parse_id,
)
from telemetry.api.problems import problems
from telemetry.api.shapes import AlertDetail, AlertPage, alert_detail_of, alert_of
from telemetry.store import NoSuchAlert

if TYPE_CHECKING:
    from telemetry.api.reader import Reader

__all__ = ["alert_routes"]

See = Annotated[Who, need(Permission.SEE)]
Worker = Annotated[Who, need(Permission.WORK_ALERTS)]


def alert_routes(reader: Reader) -> APIRouter:
    """The routes under ``/alerts``."""
    router = APIRouter(tags=["alerts"])

    @router.get("/alerts", summary="Alerts, newest first", responses=problems(422, 503))
    async def alerts(query: Annotated[AlertFilter, Query()], _who: See) -> AlertPage:
        page = await reader.alerts(
            device_id=query.device_id,
            rule_id=query.rule_id,
            zone_id=query.zone_id,
            severity=query.severity,
            states=query.state,
            assigned_to=query.assigned_to,
            from_us=query.from_us,
            to_us=query.to_us,
            cursor=query.cursor,
            limit=query.limit,
        )
        return AlertPage(items=[alert_of(row) for row in page.items], next=page.next)

    @router.get("/alerts/{alert_id}", summary="One alert and its log", responses=problems(404, 422, 503))
    async def alert(alert_id: AlertId, _who: See) -> AlertDetail:
        return await detail(parse_id(alert_id, "alert"))

    @router.post(
        "/alerts/{alert_id}/acknowledge",
        summary="Say that somebody works on it",
        responses=problems(403, 404, 409, 422, 503),
    )
    async def acknowledge(alert_id: AlertId, step: Acknowledgement, who: Worker) -> AlertDetail:
        number = parse_id(alert_id, "alert")
        await reader.act_on_alert(
            number, "acknowledge", who=acting(who, step.who), note=step.note, outcome=None
        )
        return await detail(number)

    @router.post(
        "/alerts/{alert_id}/assign",
        summary="Say who deals with it",
        responses=problems(403, 404, 409, 422, 503),
    )
    async def assign(alert_id: AlertId, step: Assignment, who: Worker) -> AlertDetail:
        number = parse_id(alert_id, "alert")
        await reader.act_on_alert(
            number, "assign", who=acting(who, step.who), note=step.note, outcome=None, assignee=step.to
        )
        return await detail(number)

    @router.post(
        "/alerts/{alert_id}/resolve",
        summary="Say how it ended",
        responses=problems(403, 404, 409, 422, 503),
    )
    async def resolve(alert_id: AlertId, step: Resolution, who: Worker) -> AlertDetail:
        number = parse_id(alert_id, "alert")
        await reader.act_on_alert(
            number, "resolve", who=acting(who, step.who), note=step.note, outcome=step.outcome
        )
        return await detail(number)

    @router.post(
        "/alerts/{alert_id}/reopen",
        summary="Take it up again",
        responses=problems(403, 404, 409, 422, 503),
    )
    async def reopen(alert_id: AlertId, step: Acknowledgement, who: Worker) -> AlertDetail:
        number = parse_id(alert_id, "alert")
        await reader.act_on_alert(number, "reopen", who=acting(who, step.who), note=step.note, outcome=None)
        return await detail(number)

    async def detail(alert_id: int) -> AlertDetail:
        row = await reader.alert(alert_id)
        if row is None:
            raise NoSuchAlert(alert_id)
        return alert_detail_of(row, await reader.alert_log(alert_id))

    return router
