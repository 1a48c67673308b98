"""What an edit does to the zones and rules: functions from one document to the next, and what differs.

A document is ``{"zones": FeatureCollection, "rules": {…}}``, as ``Ruleset.document`` has it. Nothing is
checked here but what the rules reader can't see (an id that is not there); the code that reads files does.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any, Final

from geofence import from_rfc3339, to_rfc3339
from telemetry.api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Document = dict[str, Any]
    Change = Callable[[Document], Document]

__all__ = [
    "check_json",
    "difference",
    "grant_leave",
    "leave_id",
    "pointer",
    "put_rule",
    "put_zone",
    "replace_all",
    "retire_rule",
    "retire_zone",
    "revoke_leave",
]

MAX_DEPTH: Final = 12  # a MultiPolygon in a FeatureCollection has nine


def put_zone(zone_id: str, feature: Mapping[str, Any]) -> Change:
    """Add this zone, or put it in the place of the one with its id."""

    def change(document: Document) -> Document:
        _put(document["zones"]["features"], feature, lambda item: item["properties"]["id"] == zone_id)
        return document

    return change


def retire_zone(zone_id: str) -> Change:
    """Take a zone out; rules that name it must be changed first."""

    def change(document: Document) -> Document:
        users = [
            rule.get("id") for rule in document["rules"].get("rules", []) if zone_id in rule.get("zones", [])
        ]
        if users:
            raise Problem(
                409,
                "zone-in-use",
                f"zone {zone_id!r} is named by {', '.join(map(repr, users))}",
                "change or retire these rules first, or send both changes at once with POST /api/v1/versions",
            )
        features = document["zones"]["features"]
        document["zones"]["features"] = _without(
            features, lambda item: item["properties"]["id"] == zone_id, "zone", zone_id
        )
        return document

    return change


def put_rule(rule_id: str, rule: Mapping[str, Any]) -> Change:
    """Add this rule, or put it in the place of the one with its id."""

    def change(document: Document) -> Document:
        rules = document["rules"].setdefault("rules", [])
        _put(rules, {"id": rule_id, **rule}, lambda item: item.get("id") == rule_id)
        return document

    return change


def retire_rule(rule_id: str) -> Change:
    """Take a rule out; leaves that name it end with it."""

    def change(document: Document) -> Document:
        rules = document["rules"].get("rules", [])
        document["rules"]["rules"] = _without(rules, lambda item: item.get("id") == rule_id, "rule", rule_id)
        leaves = []
        for leave in document["rules"].get("leaves", []):
            named = leave.get("rules", [])
            left = [name for name in named if name != rule_id]
            if not named or left:
                leaves.append(leave | ({"rules": left} if named else {}))
        if "leaves" in document["rules"]:
            document["rules"]["leaves"] = leaves
        return document

    return change


def replace_all(zones: Any, rules: Any) -> Change:
    """Another document in the place of the old one. Devices keep their keys, which no answer ever shows."""

    def change(document: Document) -> Document:
        keys = {device.get("id"): device.get("key") for device in document["rules"].get("devices", [])}

        def with_key(device: Any) -> Any:
            if not isinstance(device, dict) or "key" in device or not isinstance(device.get("id"), str):
                return device
            key = keys.get(device["id"])
            return device if key is None else {**device, "key": key}

        new = dict(rules)  # no deep copy: nobody has looked yet how deep it is
        if isinstance(new.get("devices"), list):
            new["devices"] = [with_key(device) for device in new["devices"]]
        return {"zones": zones, "rules": new}

    return change


def grant_leave(leave: Mapping[str, Any]) -> Change:
    """Add a leave."""

    def change(document: Document) -> Document:
        leaves = document["rules"].setdefault("leaves", [])
        if leave in leaves:
            raise Problem(
                409, "leave-exists", "the very same leave is granted already", "GET /api/v1/leaves shows it"
            )
        leaves.append(dict(leave))
        return document

    return change


def revoke_leave(identity: str, at_us: int) -> Change:
    """End a leave: one that has begun ends at this time, one that has not is taken out."""

    def change(document: Document) -> Document:
        leaves = document["rules"].get("leaves", [])
        for i, leave in enumerate(leaves):
            if leave_id(leave) != identity:
                continue
            if from_rfc3339(_with_offset(leave["from"])) >= at_us:
                del leaves[i]
            elif from_rfc3339(_with_offset(leave["until"])) <= at_us:
                raise Problem(
                    409, "leave-over", f"the leave ended at {leave['until']}", "there is nothing to revoke"
                )
            else:
                leave["until"] = to_rfc3339(at_us)
            return document
        raise Problem(
            404,
            "no-such-leave",
            f"no leave {identity!r} is granted",
            "GET /api/v1/leaves lists those that are",
        )

    return change


def _with_offset(text: str) -> str:
    """Times of leaves from files may be local to the rules' time zone; those are left to their owner."""
    try:
        from_rfc3339(text)
    except ValueError as error:
        raise Problem(
            409,
            "leave-local",
            f"the leave's times are local ({text}); only their file says of which clock",
            "replace the document with POST /api/v1/versions, with the times written with their offset",
        ) from error
    return text


def leave_id(leave: Mapping[str, Any]) -> str:
    """A leave has no id in the rules; this one follows from what it says, but for its end."""
    said = {key: value for key, value in leave.items() if key != "until"}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _put(items: list[Any], item: Mapping[str, Any], same: Callable[[Any], bool]) -> None:
    for i, known in enumerate(items):
        if same(known):
            items[i] = dict(item)
            return
    items.append(dict(item))


def _without(items: list[Any], same: Callable[[Any], bool], what: str, name: str) -> list[Any]:
    left = [item for item in items if not same(item)]
    if len(left) == len(items):
        raise Problem(
            404,
            f"no-such-{what}",
            f"there is no {what} {name!r} in the newest version",
            f"GET /api/v1/{what}s lists those that there are",
        )
    return left


# --- what differs -----------------------------------------------------------------------------------


def difference(before: Document, after: Document) -> dict[str, Any]:
    """What was added, changed and retired; keys of devices are left out."""
    old, new = before["rules"], after["rules"]
    tables = {
        "zones": (before["zones"].get("features", []), after["zones"].get("features", [])),
        "rules": (old.get("rules", []), new.get("rules", [])),
        "devices": (_keyless(old.get("devices")), _keyless(new.get("devices"))),
    }
    parts: dict[str, Any] = {name: _table_difference(*pair) for name, pair in tables.items()}
    was, now = ({leave_id(leave): leave for leave in rules.get("leaves", [])} for rules in (old, new))
    parts["leaves"] = _table_difference_of(was, now)
    settings = sorted((set(old) | set(new)) - {"rules", "devices", "leaves"})
    parts["settings"] = [
        {"id": key, "before": old.get(key), "after": new.get(key)}
        for key in settings
        if old.get(key) != new.get(key)
    ]
    return parts


def _keyless(devices: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    return [{name: value for name, value in device.items() if name != "key"} for device in devices or []]


def _identity(item: dict[str, Any]) -> str:
    return str(item["properties"]["id"] if "properties" in item else item.get("id"))


def _table_difference(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> dict[str, Any]:
    return _table_difference_of({_identity(i): i for i in before}, {_identity(i): i for i in after})


def _table_difference_of(was: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    return {
        "added": [name for name in now if name not in was],
        "changed": [
            {"id": name, "before": was[name], "after": now[name]}
            for name in now
            if name in was and was[name] != now[name]
        ],
        "retired": [name for name in was if name not in now],
    }


# --- what JSON can hold that a database can't -----------------------------------------------------------


def pointer(path: tuple[str | int, ...]) -> str:
    """A JSON pointer (RFC 6901).

    >>> pointer(("rules", 3, "a/b"))
    '/rules/3/a~1b'
    """
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def check_json(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str, str]]:
    """(pointer, what is wrong) of everything that JSON text can't carry on: odd text, no numbers, depth."""
    if len(path) > MAX_DEPTH:
        return [(pointer(path), f"lies deeper than {MAX_DEPTH} levels")]
    if isinstance(value, str):
        return [(pointer(path), "holds a NUL character or half of a surrogate pair")] if _odd(value) else []
    if isinstance(value, float):
        return [] if math.isfinite(value) else [(pointer(path), f"{value} is no number")]
    if isinstance(value, int):
        return [] if abs(value) < 2**63 else [(pointer(path), "is a number past 2^63")]
    if isinstance(value, dict):
        odd = [(pointer(path), "has a key that holds a NUL character or half of a surrogate pair")]
        found = odd if any(_odd(key) for key in value) else []
        return found + [p for key, item in value.items() for p in check_json(item, (*path, key))]
    if isinstance(value, list):
        return [p for i, item in enumerate(value) for p in check_json(item, (*path, i))]
    return []


def _odd(text: str) -> bool:
    return any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)
