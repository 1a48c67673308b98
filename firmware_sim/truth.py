"""The truth of a run, in Parquet: where every wearer was, which zones they were in, which rules they broke.

For ``truth = run.parquet`` three files are written:

``run.parquet``, the true track, a row for each sample (and each minute of a device that is off)
    device_id, time_us, lon, lat, boot, seq (null: no sample), around, mode
``run.zones.parquet``, stays in zones; homes only of their own wearers
    device_id, zone_id, from_us, to_us (null: at the run's end still inside), deepest_m, deepest_us
``run.breaks.parquet``, what the rules of `firmware_sim.rules` call broken, without any grace, and what was
done to a device
    device_id, rule_id (null where no rule speaks of it), zone_id (null), kind, from_us, to_us (null:
    not over), deepest_m (null)

``kind`` is curfew, zone, strap, case, battery, off, foil or handover. Times are UTC microseconds. Edges are
found on the true track, sampled every five seconds, and interpolated between the samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from firmware_sim.city import CURFEWS
from firmware_sim.codec import KIND_PHONE
from firmware_sim.device import TICK_S
from firmware_sim.exact import bounds, signed_distance_m
from firmware_sim.rules import BATTERY_PCT
from firmware_sim.wearer import AROUND

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from firmware_sim.city import City, Zone
    from firmware_sim.fleet import Burst, Fleet

__all__ = ["BREAKS", "STAYS", "TRACK", "Break", "Stay", "TruthWriter"]

TRACK: Final = pa.schema(
    [
        ("device_id", pa.dictionary(pa.int32(), pa.string())),
        ("time_us", pa.int64()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("boot", pa.uint16()),
        ("seq", pa.uint32()),
        ("around", pa.dictionary(pa.int8(), pa.string())),
        ("mode", pa.dictionary(pa.int8(), pa.string())),
    ]
)
STAYS: Final = pa.schema(
    [
        ("device_id", pa.string()),
        ("zone_id", pa.string()),
        ("from_us", pa.int64()),
        ("to_us", pa.int64()),
        ("deepest_m", pa.float64()),
        ("deepest_us", pa.int64()),
    ]
)
BREAKS: Final = pa.schema(
    [
        ("device_id", pa.string()),
        ("rule_id", pa.string()),
        ("zone_id", pa.string()),
        ("kind", pa.string()),
        ("from_us", pa.int64()),
        ("to_us", pa.int64()),
        ("deepest_m", pa.float64()),
    ]
)

_MODES: Final = ("rest", "walk", "cycle", "bus", "car")
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


@dataclass(frozen=True, slots=True)
class Break:
    """A rule broken, or a device tampered with."""

    device: int
    rule_id: str | None
    zone: int | None
    kind: str
    from_us: int
    to_us: int | None
    deepest_m: float | None


class TruthWriter:
    """Follows a fleet tick by tick; `add` after each step, `close` at the end."""

    def __init__(self, path: Path, fleet: Fleet) -> None:
        self._path = path
        self._fleet = fleet
        city = fleet.city
        self._worn = city.kind != KIND_PHONE
        self._ids = pa.array(city.device_ids)
        self._track = pq.ParquetWriter(path, TRACK, compression="zstd")
        self._rows: list[tuple[NDArray[Any], ...]] = []
        self._row_count = 0
        self._stays = _Stays(city, self._worn)
        self._states = {
            ("strap", "strap"): _State(len(city)),
            ("case", "case"): _State(len(city)),
            ("battery", "battery"): _State(len(city)),
            (None, "off"): _State(len(city)),
            (None, "foil"): _State(len(city)),
            (None, "handover"): _State(len(city)),
        }
        self._end_us = fleet.now_s * 1_000_000
        self._start_us = self._end_us

    def add(self, burst: Burst) -> None:
        """Take in what a step did."""
        fleet, now_s = self._fleet, burst.now_s
        time_us = now_s * 1_000_000 + fleet.phase_ms.astype(np.int64) * 1000
        lon, lat = fleet.city.to_degrees(fleet.wearers["x"], fleet.wearers["y"])
        self._stays.add(time_us, lon, lat)
        self._end_us = (now_s + TICK_S) * 1_000_000

        batteries, straps, plans = fleet.batteries, fleet.straps, fleet.agendas
        self._states["strap", "strap"].add(time_us, straps["is_open"] != 0)
        self._states["case", "case"].add(time_us, straps["case_is_open"] != 0)
        # what the firmware reports is rounded
        low = np.floor(batteries["level_pct"] + 0.5) < BATTERY_PCT
        self._states["battery", "battery"].add(time_us, low & self._worn)
        self._states[None, "off"].add(time_us, (batteries["on"] == 0) & self._worn)
        self._states[None, "foil"].add(time_us, fleet.wearers["foiled"] != 0)
        handed = (plans["handed_from_s"] <= now_s) & (now_s < plans["handed_until_s"])
        self._states[None, "handover"].add(time_us, handed)

        due = burst.due
        self._keep(due, time_us, lon, lat, burst.samples["seq"].astype(np.int64))
        if now_s % 60 == 0:
            off = np.flatnonzero((batteries["on"] == 0) & self._worn).astype(np.int32)
            self._keep(off, time_us, lon, lat, np.full(len(off), -1, np.int64))
        if self._row_count >= _FLUSH_ROWS:
            self._write_track()

    def close(self) -> None:
        """Write what is left, and the two files of intervals."""
        self._write_track()
        self._track.close()
        city = self._fleet.city
        stays = self._stays.all()
        pq.write_table(
            pa.table(
                {
                    "device_id": [city.device_ids[stay.device] for stay in stays],
                    "zone_id": [city.zones[stay.zone].id for stay in stays],
                    "from_us": [stay.from_us for stay in stays],
                    "to_us": [stay.to_us for stay in stays],
                    "deepest_m": [stay.deepest_m for stay in stays],
                    "deepest_us": [stay.deepest_us for stay in stays],
                },
                STAYS,
            ),
            self._path.with_suffix(".zones.parquet"),
        )
        breaks = self.breaks()
        pq.write_table(
            pa.table(
                {
                    "device_id": [city.device_ids[entry.device] for entry in breaks],
                    "rule_id": [entry.rule_id for entry in breaks],
                    "zone_id": [
                        None if entry.zone is None else city.zones[entry.zone].id for entry in breaks
                    ],
                    "kind": [entry.kind for entry in breaks],
                    "from_us": [entry.from_us for entry in breaks],
                    "to_us": [entry.to_us for entry in breaks],
                    "deepest_m": [entry.deepest_m for entry in breaks],
                },
                BREAKS,
            ),
            self._path.with_suffix(".breaks.parquet"),
        )

    def breaks(self) -> list[Break]:
        """Every rule broken so far, in order of device and time."""
        city, stays = self._fleet.city, self._stays.all()
        found = [
            Break(i, rule_id, None, kind, from_us, to_us, None)
            for (rule_id, kind), state in self._states.items()
            for i, from_us, to_us in state.all()
        ]
        for layer, rule_id, subjects in (
            ("schools", "schools", city.people["school_exclusion"] == 1),
            ("victims", "victim", city.people["no_contact"] == 1),
        ):
            found += [
                Break(s.device, rule_id, s.zone, "zone", s.from_us, s.to_us, s.deepest_m)
                for s in stays
                if city.zones[s.zone].layer == layer and subjects[s.device]
            ]
        found += self._curfew_breaks(stays)
        return sorted(found, key=lambda entry: (entry.device, entry.from_us, entry.kind))

    def _curfew_breaks(self, stays: list[Stay]) -> list[Break]:
        """Curfew windows less the stays at home."""
        city = self._fleet.city
        at_home: dict[int, list[tuple[int, int]]] = {}
        zone_of: dict[int, int] = {}
        homes = {f"home-{device_id}": i for i, device_id in enumerate(city.device_ids)}
        for k, zone in enumerate(city.zones):
            if zone.layer == "homes":
                zone_of[homes[zone.id]] = k
        for stay in stays:
            if city.zones[stay.zone].layer == "homes":
                until_us = self._end_us if stay.to_us is None else stay.to_us
                at_home.setdefault(stay.device, []).append((stay.from_us, until_us))
        found = []
        for i, home in zone_of.items():
            for window in _curfews(city, i, self._start_us, self._end_us):
                for from_us, to_us in _less(window, at_home.get(i, [])):
                    open_end = to_us == self._end_us
                    found.append(
                        Break(
                            i,
                            f"home-curfew-{city.device_ids[i]}",
                            home,
                            "curfew",
                            from_us,
                            None if open_end else to_us,
                            None,
                        )
                    )
        return found

    def _keep(
        self,
        devices: NDArray[np.int32],
        time_us: NDArray[np.int64],
        lon: NDArray[np.float64],
        lat: NDArray[np.float64],
        seq: NDArray[np.int64],
    ) -> None:
        """Keep rows of the track until they are written."""
        if not len(devices):
            return
        wearers = self._fleet.wearers[devices]
        self._rows.append(
            (
                devices,
                time_us[devices],
                lon[devices],
                lat[devices],
                self._fleet.devices["boot"][devices],
                seq,
                wearers["around"].astype(np.int8),
                wearers["mode"].astype(np.int8),
            )
        )
        self._row_count += len(devices)

    def _write_track(self) -> None:
        if not self._rows:
            return
        device, time_us, lon, lat, boot, seq, around, mode = (
            np.concatenate(column) for column in zip(*self._rows, strict=True)
        )
        self._rows, self._row_count = [], 0
        none = seq < 0
        columns = [
            pa.DictionaryArray.from_arrays(pa.array(device), self._ids),
            pa.array(time_us),
            pa.array(lon),
            pa.array(lat),
            pa.array(boot),
            pa.array(np.where(none, 0, seq).astype(np.uint32), mask=none),
            pa.DictionaryArray.from_arrays(pa.array(around), pa.array(AROUND)),
            pa.DictionaryArray.from_arrays(pa.array(mode), pa.array(_MODES)),
        ]
        self._track.write_table(pa.Table.from_arrays(columns, schema=TRACK))


class _State:
    """Intervals in which a yes-or-no of each device holds."""

    def __init__(self, count: int) -> None:
        self._now = np.zeros(count, np.bool_)
        self._since_us = np.zeros(count, np.int64)
        self._done: list[tuple[int, int, int | None]] = []

    def add(self, time_us: NDArray[np.int64], now: NDArray[np.bool_]) -> None:
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


class _Stays:
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


def _curfews(city: City, i: int, start_us: int, end_us: int) -> list[tuple[int, int]]:
    """The curfew windows of device i within a stretch of time, UTC microseconds."""
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
        window = max(int(begins.timestamp() * 1e6), start_us), min(int(ends.timestamp() * 1e6), end_us)
        if window[0] < window[1]:
            windows.append(window)
        day += timedelta(days=1)
    return windows


def _less(window: tuple[int, int], taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
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
