"""What the engine says: transitions and violations as structured arrays, with ids still as indices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from geofence.pings import Devices
    from geofence.ruleset import Ruleset

__all__ = [
    "AMENDED",
    "CLOSED",
    "CROSS",
    "ENTER",
    "EXIT",
    "FLAG_INITIAL",
    "FLAG_LATE",
    "FLAG_WITHDRAWN",
    "HELD_BACK",
    "OPENED",
    "SEVERITIES",
    "TRANSITION",
    "TRANSITION_KINDS",
    "VIOLATION",
    "VIOLATION_CHANGES",
    "WITHDRAWN",
    "Decided",
]

ENTER: Final = 1
EXIT: Final = 2
CROSS: Final = 3
TRANSITION_KINDS: Final = ("", "ENTER", "EXIT", "CROSS")

FLAG_INITIAL: Final = 1  # the first state known of this device and zone
FLAG_LATE: Final = 2  # learned from pings that came after newer ones
FLAG_WITHDRAWN: Final = (
    4  # on a transition: late pings refute the one said before with the same device, zone, kind and time
)

# What a row says of its violation. Rows of one violation_id are its history: revision counts up from 0.
OPENED: Final = 1  # the belief passed the profile's confidence
CLOSED: Final = 2  # it ended; closed_us is set
AMENDED: Final = 3  # late pings moved an edge or the depth; the last row counts
WITHDRAWN: Final = 4  # late pings refuted it
HELD_BACK: Final = 5  # never opened; recorded with its peak confidence, alerts nobody
VIOLATION_CHANGES: Final = ("", "opened", "closed", "amended", "withdrawn", "held_back")

SEVERITIES: Final = ("info", "low", "high", "critical")

TRANSITION: Final = np.dtype(
    [
        ("device", "i4"),  # slot in Decided.devices
        ("zone", "i4"),  # index into ruleset.zones.ids
        ("kind", "u1"),  # ENTER, EXIT, CROSS
        ("flags", "u1"),  # FLAG_INITIAL | FLAG_LATE | FLAG_WITHDRAWN
        ("time_us", "i8"),  # fix time of the first fix of the stretch that led to it
        ("confirmed_us", "i8"),  # fix time of the fix that confirmed it
        ("distance_mm", "i4"),  # signed, negative inside, at the confirming fix
        ("confidence_ppm", "i4"),
    ]
)

VIOLATION: Final = np.dtype(
    [
        ("violation_id", "i8"),  # positive; from device, rule, zone and opening, so the same on every machine
        ("revision", "i4"),
        ("change", "u1"),  # OPENED, CLOSED, AMENDED, WITHDRAWN, HELD_BACK
        ("severity", "u1"),  # index into SEVERITIES
        ("flags", "u1"),  # FLAG_LATE
        ("device", "i4"),  # slot in Decided.devices
        ("rule", "i4"),  # index into ruleset.rule_ids
        ("zone", "i4"),  # index into ruleset.zones.ids; -1: the rule is about the device
        ("opened_us", "i8"),
        ("confirmed_us", "i8"),
        ("closed_us", "i8"),  # NO_TIME while open
        ("confidence_ppm", "i4"),  # the highest so far
        ("depth_mm", "i4"),  # the deepest point so far, metres past the line x 1000; 0 where there is no line
        ("depth_error_mm", "i4"),  # 68 % radius of that fix; -1 unknown
        ("fixes", "i4"),  # pings that support it so far
        ("supersedes", "i8"),  # violation_id that late pings replaced by this one; 0: none
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """What one call of the engine decided.

    transitions : TRANSITION (m,)  in order of device, then time
    violations  : VIOLATION (k,)   in order of device, then confirmation; one row for each change
    late        : bool (n,)        the pings given to ``check`` that are older than their device's state;
                                   they were not judged (``Engine.rejudge`` does that, from history)
    version     : of the rules, as the engine was told; 0: it was told none
    earlier     : what late pings change under rules that held before, oldest first
    """

    devices: Devices
    ruleset: Ruleset
    transitions: NDArray[Any]
    violations: NDArray[Any]
    late: NDArray[np.bool_]
    version: int = 0
    earlier: tuple[Decided, ...] = ()

    def __len__(self) -> int:
        return len(self.transitions) + len(self.violations) + sum(map(len, self.earlier))

    @property
    def parts(self) -> list[Decided]:
        """Each with rows of one version of the rules alone, in their order."""
        return [*self.earlier, replace(self, earlier=())] if self.earlier else [self]
