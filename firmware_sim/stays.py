"""Intervals of the truth: how long something held, and who stayed in which zone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from firmware_sim.exact import bounds, signed_distance_m

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from firmware_sim.city import City, Zone

__all__ = ["Holding", "Stay", "Stays"]

_FLUSH_ROWS: Final = 200_000  # about 10 MB of columns
_REACH_M: Final = 250.0  # farther than anyone gets in a tick, so both ends of a crossing are measured


@dataclass(slots=True)
class Stay:
    """A wearer inside a zone."""

    device: int
    zone: int  # index into City.zones
    from_us: int
    to_us: int | None
    deepest_m: float
    deepest_us: int


class Holding:
    """Intervals in which a yes-or-no of each device holds."""

    def __init__(self, count: int) -> None:
        self._now = np.zeros(count, np.bool_)
        self._since_us = np.zeros(count, np.int64)
        self._done: list[tuple[int, int, int | None]] = []

    def add(self, time_us: NDArray[np.int64], now: NDArray[np.bool_]) -> None:
        """What holds now, bool (n,), at each one's own moment, int64 (n,)."""
        changed = np.flatnonzero(now != self._now)
        for i in changed:
            if self._now[i]:
                self._done.append((int(i), int(self._since_us[i]), int(time_us[i])))
            else:
                self._since_us[i] = time_us[i]
        if len(changed):
            self._now = now.copy()

    def all(self) -> list[tuple[int, int, int | None]]:
        """Device, from, until (None: it still holds)."""
        going = [(int(i), int(self._since_us[i]), None) for i in np.flatnonzero(self._now)]
        return self._done + going


class Stays:
    """Follows every wearer through the zones. Only rows of those who moved are kept, and measured in bulk."""

    def __init__(self, city: City, worn: NDArray[np.bool_]) -> None:
        self._city, self._worn = city, worn
        index = {device_id: i for i, device_id in enumerate(city.device_ids)}
        self._owner = [index[z.id.removeprefix("home-")] if z.layer == "homes" else None for z in city.zones]
        self._last: tuple[NDArray[Any], ...] | None = None
        self._rows: list[tuple[NDArray[Any], ...]] = []
        self._count = 0
        self._open: dict[tuple[int, int], Stay] = {}
        self._done: list[Stay] = []

    def add(self, time_us: NDArray[np.int64], lon: NDArray[np.float64], lat: NDArray[np.float64]) -> None:
        """The true position of everyone, at each one's own moment."""
        if self._last is None:
            moved = np.flatnonzero(self._worn)
        else:
            was_us, was_lon, was_lat, was_still = self._last
            still = (lon == was_lon) & (lat == was_lat)
            moved = np.flatnonzero(self._worn & ~still)
            # who starts to move stood at the old place until the tick before
            starts = moved[was_still[moved]]
            self._rows.append((starts, was_us[starts], was_lon[starts], was_lat[starts]))
        self._rows.append((moved, time_us[moved], lon[moved], lat[moved]))
        self._count += len(moved)
        resting = np.ones(len(lon), np.bool_)
        resting[moved] = False
        self._last = (time_us, lon, lat, resting)
        if self._count >= _FLUSH_ROWS:
            self._measure()

    def all(self) -> list[Stay]:
        """Every stay so far, in order of device and time."""
        self._measure()
        return sorted([*self._done, *self._open.values()], key=lambda s: (s.device, s.from_us, s.zone))

    def _measure(self) -> None:
        if not self._rows:
            return
        device, time_us, lon, lat = (np.concatenate(column) for column in zip(*self._rows, strict=True))
        order = np.lexsort((time_us, device))
        device, time_us, lon, lat = device[order], time_us[order], lon[order], lat[order]
        # the last row of each device is the next flush's first, so no crossing falls between two flushes
        last = np.flatnonzero(np.append(device[1:] != device[:-1], True))
        self._rows, self._count = [(device[last], time_us[last], lon[last], lat[last])], 0
        for k, zone in enumerate(self._city.zones):
            owner = self._owner[k]
            if owner is None:
                west, south, east, north = bounds(zone, _REACH_M)
                near = np.flatnonzero((lon >= west) & (lon <= east) & (lat >= south) & (lat <= north))
            else:
                near = np.arange(np.searchsorted(device, owner), np.searchsorted(device, owner, "right"))
            if len(near):
                self._follow(k, zone, device, time_us, near, lon, lat)

    def _follow(  # noqa: PLR0917 (columns)
        self,
        k: int,
        zone: Zone,
        device: NDArray[np.int64],
        time_us: NDArray[np.int64],
        near: NDArray[np.int64],
        lon: NDArray[np.float64],
        lat: NDArray[np.float64],
    ) -> None:
        """Walk along the rows that are near a zone and open and close stays."""
        distance = signed_distance_m(zone, lon[near], lat[near])
        inside = distance <= 0
        # rows that can change nothing: outside, and so is the neighbour
        busy = inside | np.append(inside[1:], False) | np.append(False, inside[:-1])
        for j in np.flatnonzero(busy):
            i, now_us, metres = int(device[near[j]]), int(time_us[near[j]]), float(distance[j])
            stay = self._open.get((i, k))
            follows = j > 0 and near[j - 1] == near[j] - 1 and device[near[j - 1]] == i
            if metres <= 0:
                if stay is None:
                    at_us = now_us
                    if follows:
                        at_us = _crossing_us(time_us[near[j - 1]], now_us, distance[j - 1], metres)
                    stay = self._open[i, k] = Stay(i, k, at_us, None, -metres, now_us)
                elif -metres > stay.deepest_m:
                    stay.deepest_m, stay.deepest_us = -metres, now_us
            elif stay is not None:
                stay.to_us = _crossing_us(time_us[near[j - 1]], now_us, distance[j - 1], metres)
                self._done.append(self._open.pop((i, k)))


def _crossing_us(a_us: Any, b_us: Any, a_m: Any, b_m: Any) -> int:
    """When the distance passed zero, on a straight line between two samples."""
    share = abs(a_m) / (abs(a_m) + abs(b_m)) if a_m != b_m else 1.0
    return int(a_us + share * (b_us - a_us))
