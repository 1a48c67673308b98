"""Zones, rules and leaves: those in force, and every version before and to come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Header, Path, Query, Response
from pydantic import Field

from geofence import to_rfc3339
from telemetry.access.who import Permission, Who
from telemetry.api import edits
from telemetry.api.edit_shapes import (
    LeaveList,
    RulesDifference,
    VersionDetail,
    VersionFilter,
    VersionPage,
    leave_of,
    version_of,
)
from telemetry.api.guard import need
from telemetry.api.params import Filter, Text
from telemetry.api.problems import Problem, problems
from telemetry.api.shapes import Rules

if TYPE_CHECKING:
    from telemetry.api.reader import Reader

__all__ = ["rules_routes", "zone_kinds"]

# A zone that several rules name has the kind that matters most to who looks at a map.
KINDS: Final = ("unused", "recorded", "inclusion", "exclusion")
_KIND_OF_REQUIRE: Final = {"outside": "exclusion", "inside": "inclusion", "none": "recorded"}

EMPTY: Final[dict[str, Any]] = {"zones": {"type": "FeatureCollection", "features": []}, "rules": {}}
See = Annotated[Who, need(Permission.SEE)]
Version = Annotated[int, Field(ge=1, le=2**63 - 1)] | None
VersionNumber = Annotated[int, Path(ge=1, le=2**63 - 1, examples=[7])]

_ZONE_EXAMPLE: Final[dict[str, Any]] = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [-80.8431, 35.2271]},
            "properties": {"id": "school-41", "layer": "schools", "radius_m": 150.0, "kind": "exclusion"},
        }
    ],
}


def rules_routes(reader: Reader, *, read_only: bool) -> APIRouter:
    """The routes that read ``/zones``, ``/rules``, ``/leaves`` and ``/versions``."""
    router = APIRouter(tags=["rules"])

    async def load(version: int | None) -> tuple[int, dict[str, Any], int]:
        found = await reader.ruleset(version)
        if found is None:
            raise no_such_version(version)
        return found

    @router.get(
        "/zones",
        summary="The zones, as GeoJSON",
        description="`properties.kind` says what the rules make of a zone: `exclusion` (some rule requires "
        "to be outside), `inclusion` (inside), `recorded` (transitions only) or `unused`. The answer has an "
        "`ETag`; it changes with the version of the rules.",
        response_class=Response,
        responses={
            200: {"content": {"application/geo+json": {"example": _ZONE_EXAMPLE}}},
            304: {"description": "`If-None-Match` names the version that is still in force"},
            **problems(404, 422, 503),
        },
    )
    async def zones(
        query: Annotated[ZoneFilter, Query()],
        _who: See,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        found = await reader.ruleset(query.version)
        if found is None and query.version is not None:
            raise no_such_version(query.version)
        version, document = (found[0], found[1]) if found else (0, {})
        headers = {"ETag": etag_of(version), "Cache-Control": "no-cache"}
        if if_none_match is not None and headers["ETag"] in if_none_match:
            return Response(status_code=304, headers=headers)
        collection = zones_with_kinds(document)
        collection["features"] = [
            feature
            for feature in collection["features"]
            if query.kind in {None, feature["properties"]["kind"]}
            and query.layer in {None, feature["properties"].get("layer")}
        ]
        return Response(msgspec.json.encode(collection), media_type="application/geo+json", headers=headers)

    @router.get(
        "/zones/{zone_id}",
        summary="One zone, as GeoJSON",
        response_class=Response,
        responses={
            200: {"content": {"application/geo+json": {"example": _ZONE_EXAMPLE["features"][0]}}},
            **problems(404, 422, 503),
        },
    )
    async def zone(
        zone_id: Annotated[Text, Path(examples=["school-41"])],
        query: Annotated[VersionQuery, Query()],
        _who: See,
    ) -> Response:
        version, document, _ = await load(query.version)
        for feature in zones_with_kinds(document)["features"]:
            if feature["properties"]["id"] == zone_id:
                return Response(
                    msgspec.json.encode(feature),
                    media_type="application/geo+json",
                    headers={"ETag": etag_of(version)},
                )
        raise Problem(
            404,
            "no-such-zone",
            f"there is no zone {zone_id!r} in version {version}",
            "GET /api/v1/zones lists those that there are",
        )

    @router.get("/rules", summary="The rules", responses=problems(404, 422, 503))
    async def rules(query: Annotated[VersionQuery, Query()], response: Response, _who: See) -> Rules:
        version, document, effective_us = await load(query.version)
        newest = await reader.rules_versions(cursor=None, limit=1)
        response.headers["ETag"] = etag_of(version)
        return Rules(
            version=version,
            effective_at=to_rfc3339(effective_us),
            newest_version=newest.items[0].version,
            read_only=read_only,
            rules=without_keys(document.get("rules", {})),
        )

    @router.get("/leaves", summary="The leaves that are granted", responses=problems(404, 422, 503))
    async def leaves(query: Annotated[VersionQuery, Query()], response: Response, who: See) -> LeaveList:
        if query.version is None:  # a leave that was just granted is to be seen, though seconds are to pass
            newest = await reader.rules_versions(cursor=None, limit=1)
            query.version = newest.items[0].version if newest.items else None
        version, document, _ = await load(query.version)
        response.headers["ETag"] = etag_of(version)
        rules = document.get("rules", {})
        return LeaveList(
            version=version,
            items=[leave_of(table) for table in rules.get("leaves", []) if concerns(who, table, rules)],
        )

    @router.get(
        "/versions", summary="Versions of zones and rules, newest first", responses=problems(422, 503)
    )
    async def versions(query: Annotated[VersionFilter, Query()], _who: See) -> VersionPage:
        page = await reader.rules_versions(cursor=query.cursor, limit=query.limit)
        return VersionPage(items=[version_of(row) for row in page.items], next=page.next)

    @router.get("/versions/{version}", summary="A version, whole", responses=problems(404, 422, 503))
    async def version(version: VersionNumber, response: Response, _who: See) -> VersionDetail:
        number, document, effective_us = await load(version)
        response.headers["ETag"] = etag_of(number)
        return VersionDetail(
            version=number,
            effective_at=to_rfc3339(effective_us),
            zones=document["zones"],
            rules=without_keys(document.get("rules", {})),
        )

    @router.get(
        "/versions/{version}/diff",
        summary="What a version changed",
        responses=problems(404, 422, 503),
    )
    async def difference(
        version: VersionNumber,
        query: Annotated[DifferenceQuery, Query()],
        _who: See,
    ) -> RulesDifference:
        _, after, _ = await load(version)
        since = query.since if query.since is not None else await reader.version_before(version)
        before = EMPTY if since is None else (await load(since))[1]
        return RulesDifference(**edits.difference(before, after))

    return router


class VersionQuery(Filter):
    """Which version."""

    version: Version = Field(None, description="left out: that in force")


class ZoneFilter(VersionQuery):
    """Which zones."""

    kind: Literal["exclusion", "inclusion", "recorded", "unused"] | None = None
    layer: Text | None = None


class DifferenceQuery(Filter):
    """Between which versions."""

    since: Version = Field(None, description="left out: the one before")


def etag_of(version: int) -> str:
    """The tag of a version, which `If-Match` takes."""
    return f'"rules-{version}"'


def no_such_version(version: int | None) -> Problem:
    """The answer where there is none."""
    if version is None:
        return Problem(
            404, "no-rules", "no rules were ever loaded", "start `ringfence up` with --rules DIRECTORY"
        )
    return Problem(
        404,
        "no-such-version",
        f"the rules have no version {version}",
        "GET /api/v1/versions lists those that there are",
    )


def concerns(who: Who, leave: dict[str, Any], rules: dict[str, Any]) -> bool:
    """Whether a leave is about somebody of this caseload; one for all concerns everyone."""
    if who.groups is None:
        return True
    mine = {f"group:{group}" for group in who.groups} | {"all"}
    for group in who.groups:
        mine.update(rules.get("groups", {}).get(group, []))
    for device in rules.get("devices", []):
        if who.groups.intersection(device.get("groups", [])):
            mine.add(f"device:{device['id']}")
            if device.get("participant"):
                mine.add(f"participant:{device['participant']}")
    return bool(mine.intersection(leave.get("subjects", [])))


def zones_with_kinds(document: dict[str, Any]) -> dict[str, Any]:
    """The zones of a stored rules document, each with its kind."""
    features = document.get("zones", {}).get("features", [])
    kinds = zone_kinds(document)
    return {
        "type": "FeatureCollection",
        "features": [
            feature
            | {
                "properties": feature["properties"]
                | {"kind": kinds.get(feature["properties"]["id"], "unused")}
            }
            for feature in features
        ],
    }


def zone_kinds(document: dict[str, Any]) -> dict[str, str]:
    """The kind of every zone that some rule names, itself or by its layer."""
    kinds: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for feature in document.get("zones", {}).get("features", []):
        properties = feature["properties"]
        if properties.get("layer") is not None:
            members.setdefault(properties["layer"], []).append(properties["id"])
    for rule in document.get("rules", {}).get("rules", []):
        kind = _KIND_OF_REQUIRE.get(rule.get("require", ""))
        if kind is None:
            continue
        for zone_id in [*rule.get("zones", []), *members.get(rule.get("layer", ""), [])]:
            kinds[zone_id] = max(kinds.get(zone_id, "unused"), kind, key=KINDS.index)
    return kinds


def without_keys(rules: dict[str, Any]) -> dict[str, Any]:
    """The rules without the devices' secret keys."""
    devices = rules.get("devices")
    if not devices:
        return rules
    return rules | {
        "devices": [{name: value for name, value in device.items() if name != "key"} for device in devices]
    }
