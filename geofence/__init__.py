"""Decisions: which zones a ping is in, how sure that is, and which rules are broken.

No I/O beyond loading zone and rule files, no clock, no logging: the same input gives the same output on
every machine. What needs a compiler is loaded on first use (PEP 562), so that ``import geofence`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geofence.errors import *  # noqa: F403 - each module's __all__ is its public part
from geofence.errors import __all__ as _errors
from geofence.pings import *  # noqa: F403
from geofence.pings import __all__ as _pings
from geofence.records import *  # noqa: F403
from geofence.records import __all__ as _records
from geofence.units import *  # noqa: F403
from geofence.units import __all__ as _units

if TYPE_CHECKING:
    from geofence.engine import Engine
    from geofence.explain import sentence
    from geofence.ruleset import Enrolled, Rule, Ruleset
    from geofence.zoneset import ZoneSet

_LAZY = {
    "Engine": "geofence.engine",
    "Enrolled": "geofence.ruleset",
    "Rule": "geofence.ruleset",
    "Ruleset": "geofence.ruleset",
    "ZoneSet": "geofence.zoneset",
    "sentence": "geofence.explain",
}

__all__ = [  # noqa: PLE0604 - lists of names
    "Engine",
    "Enrolled",
    "Rule",
    "Ruleset",
    "ZoneSet",
    "sentence",
    *_errors,
    *_pings,
    *_records,
    *_units,
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'geofence' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
