"""A rule and a leave, with everything looked up that their text names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from geofence.schedule import ALWAYS_FROM, ALWAYS_UNTIL, Calendar
from geofence.units import NO_TIME

if TYPE_CHECKING:
    from geofence.calls import Draw
    from geofence.profiles import Profile
    from geofence.schedule import Schedule

__all__ = ["CONDITIONS", "ZONE_REQUIREMENTS", "Leave", "Rule"]

ZONE_REQUIREMENTS: Final = ("none", "inside", "outside")
CONDITIONS: Final = (
    "strap_closed",
    "case_closed",
    "battery",
    "contact",
    "fix",
    "no_jamming",
    "plausible_movement",
    "check_in",
    "clock",
)


@dataclass(frozen=True, slots=True)
class Leave:
    """A dated permission that suspends rules (a hospital visit), with who granted it.

    rules : ids; empty: every rule of the subjects
    """

    subjects: tuple[str, ...]
    rules: tuple[str, ...]
    from_us: int
    until_us: int
    granted_by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, with everything looked up that its text names.

    zones     : indices into ``Ruleset.zones.ids``, ascending; of an `outside` rule all, of an `inside` any
    offset_mm : the line lies so far before the zone's edge (a warning), on the lawful side
    warns     : this rule was made by another one's ``warn_m``
    calls     : of a check_in: so many moments are drawn in each window, each to be answered in answer_us;
                answer_us 0: none is drawn, the window itself is the time to call
    """

    id: str
    subjects: tuple[str, ...]
    require: str
    zones: tuple[int, ...]
    layer: str | None
    schedule: Schedule
    from_us: int
    until_us: int
    severity: int
    grace_us: int
    profile: Profile
    crossing: bool = False
    beacon: bool = False
    offset_mm: int = 0
    warns: bool = False
    above_pct: int = 0
    within_us: int = 0
    methods: tuple[str, ...] = ()
    answer_us: int = 0
    calls: int = 1

    @property
    def about_zones(self) -> bool:
        """Whether it is about where the wearer is; else it is about the device."""
        return self.require in ZONE_REQUIREMENTS

    def calendar(
        self,
        leaves: tuple[tuple[int, int], ...] = (),
        effective_us: int = NO_TIME,
        draw: Draw | None = None,
    ) -> Calendar:
        """When the rule is in force, less these leaves, from the time it took effect.

        draw : of a check_in with calls: how the moments of one device are drawn
        """
        start = ALWAYS_FROM if self.from_us == NO_TIME else self.from_us
        return Calendar(
            self.schedule,
            self.grace_us if self.require != "check_in" else 0,
            max(start, ALWAYS_FROM if effective_us == NO_TIME else effective_us),
            ALWAYS_UNTIL if self.until_us == NO_TIME else self.until_us,
            leaves,
            raw=self.require == "check_in",
            draw=draw,
        )
