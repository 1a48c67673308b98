"""What somebody with a caseload sees of the rules: those about their own people, and what all share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["changes_own_leaves_alone", "document_for"]


def document_for(groups: frozenset[str] | None, document: Mapping[str, Any]) -> dict[str, Any]:
    """The stored document without devices, rules, leaves and zones of others.

    Zones of a layer are shared, so all see them; one of no layer (a home) only who has a rule that names it.
    groups : the caseload; None: everyone
    """
    if groups is None:
        return dict(document)
    rules: dict[str, Any] = dict(document.get("rules", {}))
    mine = _subjects_of(groups, rules)
    if rules.get("devices"):
        rules["devices"] = [device for device in rules["devices"] if groups & set(device.get("groups", []))]
    if rules.get("groups"):
        rules["groups"] = {name: members for name, members in rules["groups"].items() if name in groups}
    for table in ("rules", "leaves"):
        if rules.get(table):
            rules[table] = [
                row | {"subjects": sorted(mine & set(row.get("subjects", [])))}
                for row in rules[table]
                if mine & set(row.get("subjects", []))
            ]
    named = {zone for rule in rules.get("rules", []) for zone in rule.get("zones", [])}
    zones = document.get("zones", {})
    seen = [
        feature
        for feature in zones.get("features", [])
        if feature["properties"].get("layer") is not None or feature["properties"]["id"] in named
    ]
    return {**document, "rules": rules, "zones": {**zones, "features": seen}}


def _subjects_of(groups: frozenset[str], rules: Mapping[str, Any]) -> set[str]:
    """The subjects that stand for people of these groups."""
    mine = {"all"} | {f"group:{group}" for group in groups}
    for group in groups:
        mine.update(rules.get("groups", {}).get(group, []))
    for device in rules.get("devices") or []:
        if groups & set(device.get("groups", [])):
            mine.add(f"device:{device['id']}")
            if device.get("participant"):
                mine.add(f"participant:{device['participant']}")
    return mine


def changes_own_leaves_alone(
    groups: frozenset[str], before: Mapping[str, Any], after: Mapping[str, Any]
) -> bool:
    """Whether every leave that is new, changed or gone is about people of this caseload, and nobody else."""
    old, new = (
        {str(row): row for row in side.get("rules", {}).get("leaves") or []} for side in (before, after)
    )
    mine = _subjects_of(groups, after.get("rules", {})) - {"all"}
    changed = [(old | new)[key] for key in old.keys() ^ new.keys()]
    return all(set(leave.get("subjects", ["all"])) <= mine for leave in changed)
