"""The zones and rules in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Header, Response

from geofence import to_rfc3339
from telemetry.api.problems import Problem, problems
from telemetry.api.shapes import Rules

if TYPE_CHECKING:
    from telemetry.api.reader import Reader

__all__ = ["rules_routes", "zone_kinds"]

# A zone that several rules name has the kind that matters most to who looks at a map.
KINDS: Final = ("unused", "recorded", "inclusion", "exclusion")
_KIND_OF_REQUIRE: Final = {"outside": "exclusion", "inside": "inclusion", "none": "recorded"}

_ZONE_EXAMPLE: Final = {
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
    """The routes ``/zones`` and ``/rules``."""
    router = APIRouter(tags=["rules"])

    @router.get(
        "/zones",
        summary="The zones in force, as GeoJSON",
        description="`properties.kind` says what the rules make of a zone: `exclusion` (some rule requires "
        "to be outside), `inclusion` (inside), `recorded` (transitions only) or `unused`. The answer has an "
        "`ETag`; it changes with the version of the rules.",
        response_class=Response,
        responses={
            200: {"content": {"application/geo+json": {"example": _ZONE_EXAMPLE}}},
            304: {"description": "`If-None-Match` names the version that is still in force"},
            **problems(503),
        },
    )
    async def zones(if_none_match: Annotated[str | None, Header()] = None) -> Response:
        found = await reader.ruleset()
        version, document = (found[0], found[1]) if found else (0, {})
        headers = {"ETag": f'"rules-{version}"', "Cache-Control": "no-cache"}
        if if_none_match is not None and headers["ETag"] in if_none_match:
            return Response(status_code=304, headers=headers)
        return Response(
            msgspec.json.encode(zones_with_kinds(document)),
            media_type="application/geo+json",
            headers=headers,
        )

    @router.get("/rules", summary="The rules in force", responses=problems(404, 503))
    async def rules() -> Rules:
        found = await reader.ruleset()
        if found is None:
            raise Problem(
                404, "no-rules", "no rules were ever loaded", "start `ringfence up` with --rules DIRECTORY"
            )
        version, document, effective_us = found
        return Rules(
            version=version,
            effective_at=to_rfc3339(effective_us),
            read_only=read_only,
            rules=without_keys(document.get("rules", {})),
        )

    return router


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
