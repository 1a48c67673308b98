"""When a curfew holds, and what is left of a stretch of time: the truth's own calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from firmware_sim.city import CURFEWS

if TYPE_CHECKING:
    from firmware_sim.city import City

__all__ = ["curfew_windows", "less"]


def curfew_windows(
    city: City, i: int, start_us: int, end_us: int, grace_us: int = 0
) -> list[tuple[int, int]]:
    """The curfew windows of device i in a stretch of time, each begun ``grace_us`` late, UTC microseconds."""
    _, from_min, until_min = CURFEWS[city.people["curfew"][i]]
    zone = ZoneInfo(city.timezone)
    day = (
        datetime.fromtimestamp(start_us / 1e6, UTC)
        .astimezone(zone)
        .replace(hour=0, minute=0, second=0, microsecond=0)
    )
    day -= timedelta(days=1)
    windows = []
    while day.timestamp() * 1e6 < end_us:
        # wall-clock arithmetic: the window begins and ends at its hours whatever the clocks do in the night
        begins = day + timedelta(minutes=from_min)
        ends = day + timedelta(days=1, minutes=until_min)
        window = (
            max(int(begins.timestamp() * 1e6) + grace_us, start_us),
            min(int(ends.timestamp() * 1e6), end_us),
        )
        if window[0] < window[1]:
            windows.append(window)
        day += timedelta(days=1)
    return windows


def less(window: tuple[int, int], taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of a window that no interval of ``taken`` covers."""
    at, end = window
    left = []
    for from_us, to_us in sorted(taken):
        if to_us <= at or from_us >= end:
            continue
        if from_us > at:
            left.append((at, from_us))
        at = max(at, to_us)
    if at < end:
        left.append((at, end))
    return left
