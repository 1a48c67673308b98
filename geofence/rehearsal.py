"""A small engine that does everything once, so that Numba compiles and caches its kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from geofence.engine import Engine
from geofence.pings import BEACON_IN_RANGE, STRAP_OPEN, Pings
from geofence.ruleset import Ruleset

__all__ = ["warm"]

_DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class _CheckIn:
    device_id: str
    time_us: int
    outcome: str
    method: str


def warm() -> None:
    """Judge a few pings under one rule of every kind."""
    circles = [("home", 10.0, "homes"), ("school", 10.01, "schools")]
    zones: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {"id": zone_id, "layer": layer, "radius_m": 100},
                "geometry": {"type": "Point", "coordinates": [lon, 50.0]},
            }
            for zone_id, lon, layer in circles
        ],
    }
    everyone = {"subjects": ["all"]}
    rules: list[dict[str, Any]] = [
        {"id": "home", "subjects": ["device:a"], "require": "inside", "zones": ["home"], "beacon": True},
        {
            "id": "school",
            "subjects": ["device:a"],
            "require": "outside",
            "zones": ["school"],
            "crossing": True,
        },
        {"id": "schools", **everyone, "require": "outside", "layer": "schools", "when": "08:00-16:00"},
        {"id": "strap", **everyone, "require": "strap_closed"},
        {"id": "calls", **everyone, "require": "check_in", "when": "09:00-10:00"},
        {"id": "silence", **everyone, "require": "contact", "within": "10 min"},
    ]
    ruleset = Ruleset.from_document({"zones": zones, "rules": {"rules": rules}})
    engine = Engine(ruleset)
    slot = engine.devices.slot("a")
    lon_e7 = [100_000_000, 100_100_000, 100_200_000]
    pings = Pings.of(
        engine.devices,
        device=[slot] * 3,
        fix_time_us=[60_000_000, 120_000_000, 180_000_000],
        lat_e7=[500_000_000] * 3,
        lon_e7=lon_e7,
        accuracy_mm=[5_000] * 3,
        status=[BEACON_IN_RANGE, STRAP_OPEN, 0],
    )
    engine.check(pings)
    engine.check(pings.take(slice(0, 1)))
    engine.rejudge(pings)
    engine.tick(_DAY_US)
    engine.check_in(
        [_CheckIn("a", 2 * _DAY_US, "failed", "voice"), _CheckIn("a", 3 * _DAY_US, "verified", "voice")]
    )
    engine.adopt(ruleset, 4 * _DAY_US)
    Engine.restore(ruleset, engine.snapshot())
