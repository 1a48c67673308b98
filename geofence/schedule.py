"""When a rule holds: OpenStreetMap ``opening_hours`` text in a time zone, compiled to UTC windows.

Both nights on which clocks change, holidays and dated exceptions are the work of the opening-hours
library; this module turns its intervals into sorted int64 microseconds that a kernel can search.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from opening_hours import (  # type: ignore[attr-defined]  # its stub forgets the errors
    OpeningHours,
    ParserError,
    State,
    UnknownCountryError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from geofence.calls import Draw

__all__ = ["ALWAYS_FROM", "ALWAYS_UNTIL", "Calendar", "Schedule", "data_versions"]

ALWAYS_FROM: Final = -(1 << 62)  # before any time, with room to add to it
ALWAYS_UNTIL: Final = 1 << 62

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_YEAR: Final = 9000  # datetime ends with 9999
_MICROSECOND: Final = timedelta(microseconds=1)


def data_versions() -> dict[str, str]:
    """The packages whose data decide what a schedule means: they carry time zones and holidays."""
    return {name: version(name) for name in ("opening-hours-py", "tzdata")}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A recurring time, and the place whose clocks and holidays it follows.

    ``when`` None means always. ``check`` raises ValueError with the remedy when a part is wrong.

    >>> night = Schedule("20:00-06:00", "America/New_York", None)
    >>> len(night.windows(2026, 2026)) // 2  # the first began on the last evening of 2025
    366
    """

    when: str | None
    timezone: str
    country: str | None

    def check(self) -> None:
        """Raise ValueError where the text, the time zone or the country is not known."""
        try:
            zone = ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise ValueError(
                f"{self.timezone!r} is no time zone; use a name of the IANA list, such as 'America/New_York'"
            ) from exc
        if self.when is None:
            return
        try:
            OpeningHours(self.when, timezone=zone, country=self.country)
        except ParserError as exc:
            raise ValueError(
                f"{self.when!r} is not in the opening_hours format; "
                "write for example '20:00-06:00' or 'Mo-Fr 08:00-16:00; PH off'"
            ) from exc
        except UnknownCountryError as exc:
            raise ValueError(
                f"{self.country!r} is no country with known holidays; use its ISO code, such as 'US'"
            ) from exc

    @property
    def asks_for_holidays(self) -> bool:
        """Whether the text names public holidays."""
        return self.when is not None and re.search(r"\bPH\b", self.when) is not None

    def windows(self, first_year: int, last_year: int) -> NDArray[np.int64]:
        """Start and end, in turn, of every window that touches these years (UTC, whole windows).

        int64 (2 w,), UTC microseconds, strictly increasing. A window that was open at the start of 1970
        starts at ALWAYS_FROM; one that is open a year after ``last_year`` ends at ALWAYS_UNTIL.
        """
        if self.when is None:
            return np.array([ALWAYS_FROM, ALWAYS_UNTIL], np.int64)
        return _windows(self, first_year, last_year)


@lru_cache(maxsize=4096)
def _windows(schedule: Schedule, first_year: int, last_year: int) -> NDArray[np.int64]:
    assert schedule.when is not None
    zone = ZoneInfo(schedule.timezone)
    hours = OpeningHours(schedule.when, timezone=zone, country=schedule.country)
    stop = datetime(min(last_year + 2, _LAST_YEAR), 1, 1, tzinfo=zone)
    start = datetime(max(first_year, 1970), 1, 1, tzinfo=zone)
    if first_year > 1970:  # west of Greenwich the year begins in UTC while it is still the last one there
        start = min(start, datetime(first_year, 1, 1, tzinfo=UTC).astimezone(zone))
    if hours.is_open(start):  # where did it begin? ask from the beginning of time
        start = datetime(1970, 1, 1, tzinfo=zone)
    edges: list[int] = []
    for begin, end, state, _comment in hours.intervals(start, stop):
        if state != State.OPEN:
            continue
        begin_us = ALWAYS_FROM if begin.year == 1970 and begin == start else _to_us(begin)
        end_us = ALWAYS_UNTIL if end is None or end >= stop else _to_us(end)
        if edges and begin_us <= edges[-1]:
            edges[-1] = max(edges[-1], end_us)
        elif begin_us < end_us:  # a window inside the hour that spring skips has no length
            edges += (begin_us, end_us)
    windows = np.array(edges, np.int64)
    windows.flags.writeable = False
    return windows


def _to_us(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


@dataclass(frozen=True, slots=True)
class Calendar:
    """When one rule is in force for one subject: the schedule, less leaves, from the start of the rule.

    grace_us : time by which each window starts later; a window no longer than that is none
    from_us  : the rule begins (an edge as well: grace applies)
    leaves   : (start, end) in which the rule is suspended; grace applies again after each
    raw      : True keeps the windows whole, for check-ins, where grace follows the end
    draw     : the windows are times to answer, drawn in those of the schedule; one that a leave or an end
               touches is none: that call is not placed
    """

    schedule: Schedule
    grace_us: int = 0
    from_us: int = ALWAYS_FROM
    until_us: int = ALWAYS_UNTIL
    leaves: tuple[tuple[int, int], ...] = ()
    raw: bool = False
    draw: Draw | None = None

    def windows(self, first_year: int, last_year: int) -> NDArray[np.int64]:
        """Start and end, in turn, of the times in force; int64 (2 w,), UTC microseconds."""
        edges = self.schedule.windows(first_year, last_year)
        if self.draw is not None:
            return self._drawn(self.draw, edges)
        if not (self.grace_us or self.leaves or self.from_us > ALWAYS_FROM or self.until_us < ALWAYS_UNTIL):
            return edges
        pairs: Iterable[tuple[int, int]] = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
        pairs = [(max(s, self.from_us), min(e, self.until_us)) for s, e in pairs]
        for leave_from, leave_until in self.leaves:
            pairs = [
                piece
                for s, e in pairs
                for piece in ((s, min(e, leave_from)), (max(s, leave_until), e))
                if piece[0] < piece[1]
            ]
        if not self.raw:
            pairs = [(s + self.grace_us if s > ALWAYS_FROM else s, e) for s, e in pairs]
        return np.array([t for s, e in pairs if s < e for t in (s, e)], np.int64)

    def _drawn(self, draw: Draw, edges: NDArray[np.int64]) -> NDArray[np.int64]:
        kept: list[int] = []
        for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if begin == ALWAYS_FROM or end == ALWAYS_UNTIL:
                continue  # in a time without bounds nothing can be drawn
            for call, until in draw.times(begin, end):
                free = all(until <= away or back <= call for away, back in self.leaves)
                if free and self.from_us <= call and until <= self.until_us:
                    kept += (call, until)
        return np.array(kept, np.int64)
