"""How sure a rule wants to be: named sets of thresholds, each number with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from geofence.schema import Table

__all__ = ["BUILT_IN", "CONFIDENCE_RANGE", "Profile", "log_odds", "read_profiles"]

# Below 0.9 one network fix could open a violation by itself (see NETWORK_CLIP); above 0.997 none could open,
# because beliefs end at log-odds 6, which is 0.9975.
CONFIDENCE_RANGE: Final = (0.9, 0.997)


@dataclass(frozen=True, slots=True)
class Profile:
    """Thresholds of a rule.

    confidence      : a violation opens when the belief reaches it
    clear           : it closes when the belief has fallen to it; the gap keeps a doubtful fix from flapping
    dwell_us        : the stretch that opens or closes must have lasted so long, by fixes
    hysteresis_mm   : whoever is past the line must come back so far behind it before fixes speak for a return
    cross_within_us : two fixes at most so far apart can show a CROSS
    """

    name: str
    confidence: float
    clear: float
    dwell_us: int
    hysteresis_mm: int
    cross_within_us: int

    @property
    def open_log_odds(self) -> int:
        """``confidence`` as log-odds in 1/1024."""
        return log_odds(self.confidence)

    @property
    def clear_log_odds(self) -> int:
        """``clear`` as log-odds in 1/1024."""
        return log_odds(self.clear)


def log_odds(probability: float) -> int:
    """ln(p / (1 - p)) in 1/1024, rounded."""
    return round(1024 * math.log(probability / (1 - probability)))


_STANDARD: Final = Profile(
    name="standard",
    confidence=0.95,  # log-odds 2.94: four clear fixes a minute apart, or one deep one
    clear=0.27,  # log-odds -1
    dwell_us=0,
    hysteresis_mm=5_000,  # the error floor of GNSS: nobody can be placed more finely
    cross_within_us=600_000_000,  # in ten minutes a person seldom goes there and back
)

BUILT_IN: Final = {
    # A victim's exclusion zone: rather a call too many. One clear fix less is needed, and no gap in metres.
    "strict": replace(_STANDARD, name="strict", confidence=0.9, clear=0.2, hysteresis_mm=0),
    "standard": _STANDARD,
    # Where an alert costs more than a minute's delay: nearly the strongest belief, held for two minutes.
    "lenient": replace(
        _STANDARD, name="lenient", confidence=0.99, clear=0.4, dwell_us=120_000_000, hysteresis_mm=20_000
    ),
}


def read_profiles(top: Table) -> dict[str, Profile]:
    """``[profiles.NAME]`` of rules.toml, and those that are built in; problems are noted."""
    profiles = dict(BUILT_IN)
    tables = top.table("profiles")
    for name in tables.data:
        table = tables.table(name)
        start = profiles.get(name, profiles["standard"])
        low, high = CONFIDENCE_RANGE
        profile = Profile(
            name=name,
            confidence=table.number("confidence", start.confidence, low, high),
            clear=table.number("clear", start.clear, 0.003, 0.5),
            dwell_us=table.duration("dwell", start.dwell_us),
            hysteresis_mm=round(table.number("hysteresis_m", start.hysteresis_mm / 1000, 0, 10_000) * 1000),
            cross_within_us=table.duration("cross_within", start.cross_within_us),
        )
        table.close()
        profiles[name] = profile
    return profiles
