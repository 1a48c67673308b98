"""The truth's own calendar: when a curfew holds or a check-in is due, what is left of a stretch of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from firmware_sim.checkin import WINDOWS
from firmware_sim.city import CURFEWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firmware_sim.city import City

__all__ = ["check_in_windows", "curfew_windows", "less"]


def curfew_windows(
    city: City, i: int, start_us: int, end_us: int, grace_us: int = 0
) -> list[tuple[int, int]]:
    """The curfew windows of device i in a stretch of time, each begun ``grace_us`` late, UTC microseconds."""
    _, from_min, until_min = CURFEWS[city.people["curfew"][i]]
    windows = []
    for day in _days(city, start_us, end_us):
        # wall-clock arithmetic: the window begins and ends at its hours whatever the clocks do in the night
        begins = day + timedelta(minutes=from_min)
        ends = day + timedelta(days=1, minutes=until_min)
        window = (
            max(int(begins.timestamp() * 1e6) + grace_us, start_us),
            min(int(ends.timestamp() * 1e6), end_us),
        )
        if window[0] < window[1]:
            windows.append(window)
    return windows


def check_in_windows(city: City, start_us: int, end_us: int) -> list[tuple[int, int]]:
    """The windows for check-ins that lie wholly in a stretch of time, UTC microseconds."""
    windows = []
    for day in _days(city, start_us, end_us):
        for text in WINDOWS:
            begins, ends = (
                int(day.replace(hour=int(hhmm[:2]), minute=int(hhmm[3:])).timestamp()) * 1_000_000
                for hhmm in text.split("-")
            )
            if start_us <= begins and ends <= end_us:
                windows.append((begins, ends))
    return windows


def _days(city: City, start_us: int, end_us: int) -> Iterator[datetime]:
    """The local midnights from the day before a stretch of time to its end."""
    day = (
        datetime.fromtimestamp(start_us / 1e6, UTC)
        .astimezone(ZoneInfo(city.timezone))
        .replace(hour=0, minute=0, second=0, microsecond=0)
    )
    day -= timedelta(days=1)
    while day.timestamp() * 1e6 < end_us:
        yield day
        day += timedelta(days=1)


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
