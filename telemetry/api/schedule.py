"""When each rule of a device applies in one week: the engine's own windows, between midnights of its zone."""

from __future__ import annotations

import asyncio
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from geofence import SEVERITIES, Ruleset, from_rfc3339, to_rfc3339
from telemetry.access.who import Permission, Who
from telemetry.api.edit_shapes import Leave, leave_of
from telemetry.api.fleet import no_such_device
from telemetry.api.guard import need
from telemetry.api.params import DeviceId, Filter
from telemetry.api.problems import problems
from telemetry.api.rules import no_such_version
from telemetry.api.shapes import Time  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from collections.abc import Iterator

    from geofence import Rule
    from telemetry.api.reader import Reader

__all__ = ["schedule_routes"]

DAYS: Final = 7
KEPT: Final = 4  # rule sets read from their documents: a few caseloads look at the newest version
FIRST_DAY: Final = date(1971, 1, 4)
LAST_DAY: Final = date(2200, 1, 1)  # past it no calendar of holidays means anything
See = Annotated[Who, need(Permission.SEE)]


class WeekFilter(Filter):
    """Which week."""

    week_of: date | None = Field(
        None, ge=FIRST_DAY, le=LAST_DAY, description="a day of it; left out: today. Weeks begin on Monday"
    )


class Span(BaseModel):
    """A stretch of time; ``until`` is its end, excluded."""

    from_: Time = Field(alias="from")
    until: Time


class Day(Span):
    """A day of the rules' time zone: 23 or 25 hours long when clocks change."""

    date: date


class RuleWeek(BaseModel):
    """One rule, and when it applies in the week, less leaves and after its grace."""

    rule_id: str
    require: str
    zones: list[str] = Field(description="of a rule over a layer: none")
    layer: str | None
    severity: str
    when: str | None = Field(description="as the rule is written; null: always")
    intervals: list[Span]


class Week(BaseModel):
    """A device's week by the newest version of the rules."""

    device_id: str
    version: int
    timezone: str
    days: list[Day]
    rules: list[RuleWeek]
    leaves: list[Leave] = Field(description="those that touch the week")


def schedule_routes(reader: Reader) -> APIRouter:
    """The route ``/devices/{device_id}/week``."""
    router = APIRouter(tags=["fleet"])
    kept: dict[tuple[int, frozenset[str] | None], Ruleset] = {}

    @router.get(
        "/devices/{device_id}/week",
        summary="When each rule of a device applies, in one week",
        description="By the newest version of the rules, which may still be scheduled. The moments at which "
        "a check-in is drawn are not told, only the windows in which one can be.",
        responses=problems(404, 422, 503),
    )
    async def week(device_id: DeviceId, query: Annotated[WeekFilter, Query()], who: See) -> Week:
        if await reader.device(device_id) is None:
            raise no_such_device(device_id)
        newest = await reader.rules_versions(cursor=None, limit=1)
        found = await reader.ruleset(newest.items[0].version) if newest.items else None
        if found is None:
            raise no_such_version(None)
        version, document, _ = found
        key = (version, who.groups)
        if key not in kept:
            ruleset = await asyncio.to_thread(Ruleset.from_document, _whole(document))
            while len(kept) >= KEPT:
                kept.pop(next(iter(kept)), None)
            kept[key] = ruleset
        return await asyncio.to_thread(week_of, device_id, version, document, kept[key], query.week_of)

    return router


def week_of(
    device_id: str, version: int, document: dict[str, Any], ruleset: Ruleset, day: date | None
) -> Week:
    """The week that holds ``day``; None: the current one."""
    zone = ZoneInfo(ruleset.timezone)
    day = day or datetime.now(zone).date()
    monday = day - timedelta(days=day.weekday())
    midnights = [_midnight_us(monday + timedelta(days=i), zone) for i in range(DAYS + 1)]
    first_us, last_us = midnights[0], midnights[-1]
    subjects = ruleset.subjects_of(device_id)
    leaves = [leave for leave in ruleset.leaves if subjects.intersection(leave.subjects)]
    rules = []
    for rule in _rules_of(device_id, ruleset):
        away = sorted((x.from_us, x.until_us) for x in leaves if not x.rules or rule.id in x.rules)
        edges = rule.calendar(tuple(away)).windows(monday.year, (monday + timedelta(days=DAYS)).year).tolist()
        pairs = zip(edges[::2], edges[1::2], strict=True)
        cut = [(max(begin, first_us), min(end, last_us)) for begin, end in pairs]
        rules.append(_rule_week(rule, document, [_span(begin, end) for begin, end in cut if begin < end]))
    return Week(
        device_id=device_id,
        version=version,
        timezone=ruleset.timezone,
        days=[
            Day(
                date=monday + timedelta(days=i),
                **_span(midnights[i], midnights[i + 1]).model_dump(by_alias=True),
            )
            for i in range(DAYS)
        ],
        rules=rules,
        leaves=[
            leave_of(table)
            for table in document["rules"].get("leaves", [])
            if subjects.intersection(table["subjects"])
            and from_rfc3339(str(table["from"])) < last_us
            and first_us < from_rfc3339(str(table["until"]))
        ],
    )


def _rules_of(device_id: str, ruleset: Ruleset) -> Iterator[Rule]:
    """The rules that bind a device; a warning applies when its rule does, and is left out."""
    subjects = ruleset.subjects_of(device_id)
    entry = ruleset.roster.get(device_id) if ruleset.roster is not None else None
    layers = entry.layers if entry is not None else None
    for rule in ruleset.rules:
        bound = subjects.intersection(rule.subjects) and not rule.warns
        if bound and (layers is None or rule.layer is None or rule.layer in layers):
            yield rule


def _rule_week(rule: Rule, document: dict[str, Any], intervals: list[Span]) -> RuleWeek:
    table = next(table for table in document["rules"]["rules"] if table["id"] == rule.id)
    return RuleWeek(
        rule_id=rule.id,
        require=rule.require,
        zones=table.get("zones", []),
        layer=rule.layer,
        severity=SEVERITIES[rule.severity],
        when=rule.schedule.when,
        intervals=intervals,
    )


def _whole(document: dict[str, Any]) -> dict[str, Any]:
    """A caseload sees leaves without the rules of others that they name too; those names can't be read."""
    rules = document["rules"]
    known = {rule["id"] for rule in rules.get("rules", [])}
    leaves = []
    for leave in rules.get("leaves", []):
        named = [name for name in leave.get("rules", []) if name in known]
        if named or not leave.get("rules"):
            leaves.append(leave | ({"rules": named} if named else {}))
    return document | {"rules": rules | {"leaves": leaves}}


def _midnight_us(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1_000_000


def _span(begin_us: int, end_us: int) -> Span:
    return Span(**{"from": to_rfc3339(begin_us), "until": to_rfc3339(end_us)})
