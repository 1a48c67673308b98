"""Writes a city's zones and rules in the form that the engine loads."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from firmware_sim.checkin import WINDOWS
from firmware_sim.city import CURFEWS
from firmware_sim.codec import KIND_ANKLE, KIND_PHONE, KIND_WRIST
from firmware_sim.power import CRADLE_HOURS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from firmware_sim.city import City, Zone

__all__ = ["BATTERY_PCT", "CONTACT_S", "STRAP_WRIST", "may_use_cradle", "write_rules"]

BATTERY_PCT: Final = 5
CONTACT_S: Final = 30 * 60
STRAP_WRIST: Final = "strap-wrist"  # the strap's rule for those who may take a wristband off to charge
_GRACE_MIN: Final = 5
_KIND_NAMES: Final = {KIND_ANKLE: "ankle", KIND_WRIST: "wrist", KIND_PHONE: "phone"}


def write_rules(city: City, directory: Path) -> None:
    """Write ``zones/*.geojson`` (one file for each layer) and ``rules.toml`` into ``directory``."""
    zones_dir = directory / "zones"
    zones_dir.mkdir(parents=True, exist_ok=True)
    layers: dict[str, list[Zone]] = {}
    for zone in city.zones:
        layers.setdefault(zone.layer, []).append(zone)
    for layer, zones in layers.items():
        collection = {"type": "FeatureCollection", "features": [_feature(zone) for zone in zones]}
        (zones_dir / f"{layer}.geojson").write_text(
            json.dumps(collection, separators=(",", ":")) + "\n", "utf-8"
        )
    (directory / "rules.toml").write_text(_rules(city), "utf-8")


def _feature(zone: Zone) -> dict[str, Any]:
    positions: list[Any] = zone.lon_lat.tolist()
    properties: dict[str, Any] = {"id": zone.id, "layer": zone.layer}
    if zone.shape == "polygon":
        geometry = {"type": "Polygon", "coordinates": [[*positions, positions[0]]]}
    elif zone.shape == "circle":
        geometry = {"type": "Point", "coordinates": positions[0]}
    else:
        geometry = {"type": "LineString", "coordinates": positions}
    if zone.radius_m:
        properties["radius_m"] = zone.radius_m
    if zone.buffer_m:
        properties["buffer_m"] = zone.buffer_m
    return {"type": "Feature", "properties": properties, "geometry": geometry}


# What holds for whole groups; a rule whose group has no member is left out.
_SHARED: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("school-exclusion", {"id": "schools", "require": "outside", "layer": "schools", "severity": "high"}),
    ("no-contact", {"id": "victim", "require": "outside", "zones": ["victim-01"], "severity": "critical"}),
    ("strapped", {"id": "strap", "require": "strap_closed", "severity": "critical"}),
    (
        "cradle",
        {
            "id": STRAP_WRIST,
            "require": "strap_closed",
            "when": f"{CRADLE_HOURS[1]:02d}:00-{CRADLE_HOURS[0]:02d}:00",
            "severity": "critical",
        },
    ),
    ("worn", {"id": "case", "require": "case_closed", "severity": "high"}),
    ("worn", {"id": "battery", "require": "battery", "above_pct": BATTERY_PCT, "severity": "low"}),
    ("worn", {"id": "contact", "require": "contact", "within": f"{CONTACT_S // 60} min", "severity": "low"}),
    ("worn", {"id": "river", "require": "none", "zones": ["river"], "severity": "info"}),
    (
        "phones",
        {
            "id": "check-in",
            "require": "check_in",
            "when": ",".join(WINDOWS),
            "grace": "10 min",
            "severity": "low",
        },
    ),
)


def _rules(city: City) -> str:
    groups = [_groups(city, i) for i in range(len(city))]
    members = {group for of_device in groups for group in of_device}
    blocks = [f'timezone = "{city.timezone}"\n']
    blocks += [
        _table("rules", subjects=[f"group:{group}"], **rule) for group, rule in _SHARED if group in members
    ]
    for i, device_id in enumerate(city.device_ids):
        if city.kind[i] == KIND_PHONE:
            continue
        blocks.append(
            _table(
                "rules",
                id=f"home-curfew-{device_id}",
                subjects=[f"device:{device_id}"],
                require="inside",
                zones=[f"home-{device_id}"],
                when=CURFEWS[city.people["curfew"][i]][0],
                severity="high",
                grace=f"{_GRACE_MIN} min",
            )
        )
    for i, device_id in enumerate(city.device_ids):
        key = city.keys[i]
        blocks.append(
            _table(
                "devices",
                id=device_id,
                kind=_KIND_NAMES[int(city.kind[i])],
                participant=city.participant(i),
                groups=groups[i],
                **({"key": b64encode(key).decode()} if key else {}),
            )
        )
    return "\n".join(blocks)


def _groups(city: City, i: int) -> list[str]:
    """The groups of device i."""
    if city.kind[i] == KIND_PHONE:
        return ["phones"]
    groups = ["worn", "cradle" if may_use_cradle(city)[i] else "strapped"]
    if city.people["school_exclusion"][i]:
        groups.append("school-exclusion")
    if city.people["no_contact"][i]:
        groups.append("no-contact")
    return groups


def may_use_cradle(city: City) -> NDArray[np.bool_]:
    """Who may take the device off to charge it, at the hours of `CRADLE_HOURS`: bool (n,).

    All wristbands, where the scenario knows that habit.
    """
    return np.asarray((city.kind == KIND_WRIST) & (city.scenario.behaviour.taken_off > 0.0))


def _table(name: str, **entries: Any) -> str:
    # JSON's strings, numbers and lists of strings are TOML's
    return f"[[{name}]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in entries.items())
