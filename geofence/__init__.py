"""Decisions: which zones a ping is in, how sure that is, and which rules are broken.

No I/O beyond loading zone and rule files, no clock, no logging: the same input gives the same output on
every machine. Names are loaded on first use (PEP 562), so that ``import geofence`` costs no compiler start.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geofence import units
    from geofence.engine import Engine
    from geofence.errors import GeofenceError, PingError, RuleError, SnapshotError, ZoneError
    from geofence.explain import sentence
    from geofence.pings import Devices, Pings
    from geofence.records import TRANSITION, VIOLATION, Decided
    from geofence.ruleset import Rule, Ruleset
    from geofence.zoneset import ZoneSet

__all__ = [
    "TRANSITION",
    "VIOLATION",
    "Decided",
    "Devices",
    "Engine",
    "GeofenceError",
    "PingError",
    "Pings",
    "Rule",
    "RuleError",
    "Ruleset",
    "SnapshotError",
    "ZoneError",
    "ZoneSet",
    "sentence",
    "units",
]

_HOME = {
    "TRANSITION": "records",
    "VIOLATION": "records",
    "Decided": "records",
    "Devices": "pings",
    "Engine": "engine",
    "GeofenceError": "errors",
    "PingError": "errors",
    "Pings": "pings",
    "Rule": "ruleset",
    "RuleError": "errors",
    "Ruleset": "ruleset",
    "SnapshotError": "errors",
    "ZoneError": "errors",
    "ZoneSet": "zoneset",
    "sentence": "explain",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"geofence.{_HOME[name]}"), name)
    elif name == "units":
        value = import_module("geofence.units")
    else:
        raise AttributeError(f"module 'geofence' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
