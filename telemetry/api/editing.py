"""Zones, rules and leaves changed over the API: each change makes a new version, checked as files are."""

from __future__ import annotations

import copy
import re
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Body, Header, Path, Query, Response

from geofence import RuleError, ZoneError
from telemetry.access.scope import changes_own_leaves_alone
from telemetry.access.who import Permission, Who
from telemetry.api import edits
from telemetry.api.edit_shapes import EditOutcome, EditQuery, LeaveGrant, NewVersion, outcome_of
from telemetry.api.guard import need
from telemetry.api.params import Text
from telemetry.api.problems import Problem, problems

if TYPE_CHECKING:
    from telemetry.api.edits import Change
    from telemetry.api.reader import Reader

__all__ = ["editing_routes"]

_ETAG: Final = re.compile(r'(?:W/)?"rules-(\d{1,18})"')
_LEAD_US: Final = 5_000_000  # a leave that is revoked ends when its version takes effect
_MOST_LISTED: Final = 100  # problems of one document

IfMatch = Annotated[
    str | None,
    Header(
        description='the `ETag` of the newest version, such as `"rules-7"`; `*`: whichever it is. Needed '
        "unless `validate=only`: two people who change at the same time must not undo each other's work",
        examples=['"rules-7"', "*"],
    ),
]
Editor = Annotated[Who, need(Permission.EDIT)]
Granter = Annotated[Who, need(Permission.GRANT_LEAVE)]
ZoneId = Annotated[Text, Path(examples=["school-41"])]
RuleId = Annotated[Text, Path(examples=["home-curfew-a17"])]
_ZONE: Final = {
    "type": "Feature",
    "geometry": {"type": "Point", "coordinates": [-80.8431, 35.2271]},
    "properties": {"id": "school-41", "name": "Oak Street School", "layer": "schools", "radius_m": 150},
}
_RULE: Final = {
    "subjects": ["device:a17"],
    "require": "inside",
    "zones": ["home-a17"],
    "when": "20:00-06:00",
    "severity": "high",
    "grace": "5 min",
}
_REFUSALS: Final = problems(400, 403, 404, 409, 412, 422, 428, 503)


def editing_routes(reader: Reader, *, read_only: bool) -> APIRouter:
    """The routes that change ``/zones``, ``/rules``, ``/leaves`` and ``/versions``."""
    router = APIRouter(tags=["editing"])

    async def edit(
        change: Change,
        response: Response,
        query: EditQuery,
        if_match: str | None,
        who: Who,
        *,
        cancels: bool = False,
    ) -> EditOutcome:
        if read_only:
            raise Problem(
                409,
                "rules-from-files",
                "zones and rules come from the directory that `ringfence up --rules` names",
                "change the files and send SIGHUP, or start `ringfence up` without --rules",
            )
        tried: dict[str, Any] = {}

        def noted(document: dict[str, Any]) -> dict[str, Any]:
            before = {"rules": {"leaves": copy.deepcopy(document["rules"].get("leaves"))}}
            tried.update(change(document))  # the document is the change's own: it is another now
            if who.groups is not None and not changes_own_leaves_alone(who.groups, before, tried):
                raise Problem(
                    403,
                    "not-permitted",
                    f"{who.name} has a caseload, and the leave is about somebody outside of it",
                    "ask somebody whose caseload the person is in",
                )
            odd = edits.check_json(tried)
            if odd:
                raise _invalid(odd)
            return tried

        dry_run = query.validate_only == "only"
        base = None if dry_run and if_match is None else _version_of(if_match)
        try:
            edited = await reader.edit_rules(
                noted,
                base=base,
                effective_us=query.effective_us,
                saved_by=who.name,
                note=query.note,
                dry_run=dry_run,
                cancels=cancels,
            )
        except ZoneError as error:
            raise _invalid(_zone_problems(error, tried)) from error
        except RuleError as error:
            raise _invalid(
                [
                    (edits.pointer(("rules", *path)), what)
                    for path, what in zip(error.paths, error.problems, strict=True)
                ]
            ) from error
        response.headers["ETag"] = f'"rules-{edited.version}"'
        return outcome_of(edited)

    @router.put(
        "/zones/{zone_id}",
        summary="Make a zone, or change it",
        description="A GeoJSON Feature; `properties.id` may be left out. A change makes a new version of "
        "the rules, which takes effect at `effective_at`.",
        responses=_REFUSALS,
    )
    async def put_zone(
        *,
        zone_id: ZoneId,
        feature: Annotated[dict[str, Any], Body(examples=[_ZONE])],
        query: Annotated[EditQuery, Query()],
        response: Response,
        who: Editor,
        if_match: IfMatch = None,
    ) -> EditOutcome:
        return await edit(edits.put_zone(zone_id, _named(zone_id, feature)), response, query, if_match, who)

    @router.delete("/zones/{zone_id}", summary="Retire a zone", responses=_REFUSALS)
    async def retire_zone(
        zone_id: ZoneId,
        query: Annotated[EditQuery, Query()],
        response: Response,
        who: Editor,
        if_match: IfMatch = None,
    ) -> EditOutcome:
        return await edit(edits.retire_zone(zone_id), response, query, if_match, who)

    @router.put(
        "/rules/{rule_id}",
        summary="Make a rule, or change it",
        description="The keys are those of `[[rules]]` in `rules.toml`; `id` may be left out.",
        responses=_REFUSALS,
    )
    async def put_rule(
        *,
        rule_id: RuleId,
        rule: Annotated[dict[str, Any], Body(examples=[_RULE])],
        query: Annotated[EditQuery, Query()],
        response: Response,
        who: Editor,
        if_match: IfMatch = None,
    ) -> EditOutcome:
        if rule.get("id", rule_id) != rule_id:
            raise _other_id("rule", rule_id, rule["id"])
        return await edit(edits.put_rule(rule_id, rule), response, query, if_match, who)

    @router.delete("/rules/{rule_id}", summary="Retire a rule", responses=_REFUSALS)
    async def retire_rule(
        rule_id: RuleId,
        query: Annotated[EditQuery, Query()],
        response: Response,
        who: Editor,
        if_match: IfMatch = None,
    ) -> EditOutcome:
        return await edit(edits.retire_rule(rule_id), response, query, if_match, who)

    @router.post(
        "/versions",
        summary="Replace all zones and rules",
        description="What a rules directory would hold, in one document: several changes at once, profiles, "
        "the roster. Devices that are sent without `key` keep theirs.",
        responses=_REFUSALS,
    )
    async def replace_all(
        version: NewVersion,
        query: Annotated[EditQuery, Query()],
        response: Response,
        who: Editor,
        if_match: IfMatch = None,
    ) -> EditOutcome:
        change = edits.replace_all(version.zones, version.rules)
        return await edit(change, response, query, if_match, who)

    @router.delete(
        "/versions/scheduled",
        summary="Cancel what is scheduled",
        description="Every version whose time has not come is replaced by a copy of that in force.",
        responses=_REFUSALS,
    )
    async def cancel_scheduled(
        query: Annotated[EditQuery, Query()], response: Response, who: Editor, if_match: IfMatch = None
    ) -> EditOutcome:
        return await edit(lambda document: document, response, query, if_match, who, cancels=True)

    @router.post(
        "/leaves",
        summary="Grant a leave",
        description="Suspends rules of some people for a time; who granted it is who asks.",
        responses=_REFUSALS,
    )
    async def grant_leave(
        leave: LeaveGrant,
        query: Annotated[EditQuery, Query()],
        response: Response,
        who: Granter,
        if_match: IfMatch = None,
    ) -> EditOutcome:
        return await edit(edits.grant_leave(leave.table(who.name)), response, query, if_match, who)

    @router.delete(
        "/leaves/{leave_id}",
        summary="Revoke a leave",
        description="One that has begun ends when this takes effect; one that has not is taken out.",
        responses=_REFUSALS,
    )
    async def revoke_leave(
        leave_id: Annotated[str, Path(pattern="^[0-9a-f]{12}$", examples=["5f0c2a9be113"])],
        query: Annotated[EditQuery, Query()],
        response: Response,
        who: Granter,
        if_match: IfMatch = None,
    ) -> EditOutcome:
        at_us = query.effective_us or time.time_ns() // 1000 + _LEAD_US
        return await edit(edits.revoke_leave(leave_id, at_us), response, query, if_match, who)

    return router


def _version_of(if_match: str | None) -> int | None:
    """The version that a request was made on; None: whichever is the newest."""
    if if_match is None:
        raise Problem(
            428,
            "version-needed",
            "the request does not say on which version of the rules it was made",
            "send the `ETag` of GET /api/v1/rules as `If-Match`, or `If-Match: *`",
        )
    if if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise Problem(
            412,
            "version-unknown",
            f"If-Match is {if_match[:40]!r}, which is no version of the rules",
            'send the `ETag` of GET /api/v1/rules, such as "rules-7"',
        )
    return int(found[1])


def _named(zone_id: str, feature: dict[str, Any]) -> dict[str, Any]:
    properties = feature.get("properties")
    if properties is None:
        return feature | {"properties": {"id": zone_id}}
    if not isinstance(properties, dict):
        return feature | {"properties": {"id": zone_id, "properties": properties}}  # the reader refuses it
    if properties.get("id", zone_id) != zone_id:
        raise _other_id("zone", zone_id, properties["id"])
    kept = {name: value for name, value in properties.items() if name != "kind"}  # ours, from GET
    return feature | {"properties": {"id": zone_id, **kept}}


def _other_id(what: str, in_path: str, in_body: Any) -> Problem:
    return Problem(
        422,
        "invalid-value",
        f"the path names {what} {in_path!r}, the body {str(in_body)[:80]!r}",
        "an id can't be changed: make one of that id and retire this one",
    )


def _zone_problems(error: ZoneError, document: dict[str, Any]) -> list[tuple[str, str]]:
    features = (
        document.get("zones", {}).get("features", []) if isinstance(document.get("zones"), dict) else []
    )
    places: dict[str, int] = {}
    for i, feature in enumerate(features if isinstance(features, list) else []):
        properties = feature.get("properties") if isinstance(feature, dict) else None
        zone_id = properties.get("id") if isinstance(properties, dict) else None
        places[str(zone_id) if zone_id else f"feature {i}"] = i
    return [
        (
            edits.pointer(("zones", "features", places[name])) if name in places else "/zones",
            f'zone "{name}": {what}',
        )
        for name, what in error.problems
    ]


def _invalid(found: list[tuple[str, str]]) -> Problem:
    detail = "; ".join(what for _, what in found[:3])
    if len(found) > 3:
        detail += f"; and {len(found) - 3} more"
    return Problem(
        422,
        "invalid-rules",
        detail.replace("rules document: ", ""),
        "`errors` lists every problem with its place in the document; docs/rules.md describes each key",
        errors=[
            {"where": place, "detail": what.removeprefix("rules document: ")}
            for place, what in found[:_MOST_LISTED]
        ],
    )
