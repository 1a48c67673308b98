"""What was decided: transitions and violations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query

from telemetry.access.who import Permission, Who
from telemetry.api.guard import need
from telemetry.api.params import TransitionFilter, ViolationFilter  # noqa: TC001 - FastAPI reads them
from telemetry.api.problems import problems
from telemetry.api.shapes import TransitionPage, ViolationPage, transition_of, violation_of

if TYPE_CHECKING:
    from telemetry.api.reader import Reader

__all__ = ["history_routes"]

See = Annotated[Who, need(Permission.SEE)]


def history_routes(reader: Reader) -> APIRouter:
    """The routes ``/transitions`` and ``/violations``."""
    router = APIRouter(tags=["decisions"])

    @router.get("/transitions", summary="Transitions, newest first", responses=problems(422, 503))
    async def transitions(query: Annotated[TransitionFilter, Query()], _who: See) -> TransitionPage:
        page = await reader.transitions(
            device_id=query.device_id,
            zone_id=query.zone_id,
            kind=query.kind,
            from_us=query.from_us,
            to_us=query.to_us,
            cursor=query.cursor,
            limit=query.limit,
        )
        return TransitionPage(items=[transition_of(row) for row in page.items], next=page.next)

    @router.get(
        "/violations",
        summary="Violations, newest first",
        description="The current revision of each; earlier ones stay in the database.",
        responses=problems(422, 503),
    )
    async def violations(query: Annotated[ViolationFilter, Query()], _who: See) -> ViolationPage:
        page = await reader.violations(
            device_id=query.device_id,
            rule_id=query.rule_id,
            zone_id=query.zone_id,
            severity=query.severity,
            state=query.state,
            from_us=query.from_us,
            to_us=query.to_us,
            cursor=query.cursor,
            limit=query.limit,
        )
        return ViolationPage(items=[violation_of(row) for row in page.items], next=page.next)

    return router
