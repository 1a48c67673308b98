"""A world to be judged: weeks of a simulated fleet, its samples day by day, and what truly happened.

`firmware_sim`'s own machines are stepped in process, with no broker between. Samples are taken as the devices
took them: an upload that comes late, out of order or never is another test's affair, and would be the same
for every way of judging.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from firmware_sim.city import City
from firmware_sim.codec import KIND_PHONE, NO_FIX, RECORD
from firmware_sim.device import TICK_S
from firmware_sim.fleet import Fleet
from firmware_sim.gnss import map_of
from firmware_sim.scenario import Behaviour, build, load
from firmware_sim.stays import Stay, Stays

__all__ = ["BUSY", "UNKNOWN_M", "Day", "FixStore", "Fixes", "World"]

DAY_S: Final = 86_400
START_S: Final = 1_780_027_200  # 2026-05-29 00:00 in Ohio
UNKNOWN_M: Final = np.float32(-1.0)

# Events per wearer and day: an ordinary town breaks so few rules that a share of 99.5 % could not be told
# from one of 98 %. False violations do not depend on it: they happen on lawful minutes.
BUSY: Final = Behaviour(
    curfew=0.12,
    brief=0.12,
    deep=0.12,
    passing=0.3,
    victim=0.4,
    strap_cut=0.002,
    flat_battery=0.01,
    shielding=0.005,
    handover=0.003,
)


@dataclass(frozen=True, slots=True, eq=False)
class Day:
    """One day's samples, by device and then time.

    until_s  : UTC seconds at which the day ends
    device   : int32 (n,)
    start    : int64 (devices + 1,)  device i has rows start[i]:start[i + 1]
    boot     : uint16 (n,)
    record   : RECORD (n,)
    x, y     : float32 (n,)  the true position, metres east and north of the city's centre
    """

    until_s: int
    device: NDArray[np.int32]
    start: NDArray[np.int64]
    boot: NDArray[np.uint16]
    record: NDArray[Any]
    x: NDArray[np.float32]
    y: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Fixes:
    """One device's fixes, in order of time; pings without a position are left out.

    time_us    : int64 (n,)
    lon, lat   : float64 (n,)  degrees, as sent
    accuracy_m : float32 (n,)  as claimed; -1: unknown
    error_m    : float32 (n,)  how far off it truly was
    true_lon, true_lat : float64 (n,)  degrees
    """

    time_us: NDArray[np.int64]
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    accuracy_m: NDArray[np.float32]
    error_m: NDArray[np.float32]
    true_lon: NDArray[np.float64]
    true_lat: NDArray[np.float64]


@dataclass(slots=True, eq=False)
class World:
    """A scenario with its people, for some days.

    busy : wearers break rules at the rates of `BUSY`, not at the scenario's own
    """

    scenario: str
    seed: int
    devices: int
    days: int
    busy: bool = True
    city: City = field(init=False)
    _stays: Stays = field(init=False)

    def __post_init__(self) -> None:
        plan = load(self.scenario)
        # nothing staged at the start: months have no opening scene
        plan = dataclasses.replace(plan, opening=type(plan.opening)())
        if self.busy:
            plan = dataclasses.replace(plan, behaviour=BUSY)
        self.city = build(plan, self.devices, self.seed)

    @property
    def worn(self) -> NDArray[np.bool_]:
        """Devices that send positions, bool (devices,)."""
        return np.asarray(self.city.kind != KIND_PHONE)

    @property
    def device_months(self) -> float:
        """Months of 30 days, of the devices that send positions."""
        return float(self.worn.sum()) * self.days / 30.0

    @property
    def start_us(self) -> int:
        """When everyone has been seen once: each device has its own moment within the first tick."""
        return (START_S + TICK_S) * 1_000_000

    @property
    def end_us(self) -> int:
        return (START_S + self.days * DAY_S) * 1_000_000

    def __iter__(self) -> Iterator[Day]:
        """Live through the days, once; `stays` knows the truth afterwards."""
        fleet = Fleet(self.city, self.seed, START_S)
        self._stays = Stays(self.city, self.worn)
        for _ in range(self.days):
            yield self._day(fleet)

    def stays(self) -> list[Stay]:
        """Who was truly in which zone from when to when, once the days are over."""
        return self._stays.all()

    def _day(self, fleet: Fleet) -> Day:
        due: list[NDArray[np.int32]] = []
        samples: list[NDArray[Any]] = []
        boots: list[NDArray[np.uint16]] = []
        xs: list[NDArray[np.float64]] = []
        ys: list[NDArray[np.float64]] = []
        phase_us = fleet.phase_ms.astype(np.int64) * 1000
        for _ in range(DAY_S // TICK_S):
            burst = fleet.step()
            x, y = fleet.wearers["x"], fleet.wearers["y"]
            self._stays.add(burst.now_s * 1_000_000 + phase_us, *self.city.to_degrees(x, y))
            due.append(burst.due)
            samples.append(burst.samples)
            boots.append(fleet.devices["boot"][burst.due])
            xs.append(x[burst.due])
            ys.append(y[burst.due])
        device = np.concatenate(due)
        order = np.argsort(device.astype(np.uint16), kind="stable")  # 16 bits: by radix
        device = device[order]
        return Day(
            until_s=fleet.now_s,
            device=device,
            start=np.searchsorted(device, np.arange(self.devices + 1)),
            boot=np.concatenate(boots)[order],
            record=np.concatenate(samples or [np.zeros(0, RECORD)])[order],
            x=np.concatenate(xs)[order].astype(np.float32),
            y=np.concatenate(ys)[order].astype(np.float32),
        )


@dataclass(slots=True, eq=False)
class _Kept:
    """What is kept of a day for the ways that judge a device as a whole: 24 bytes for each fix."""

    start: NDArray[np.int64]
    time_ms: NDArray[np.int64]
    lon_e7: NDArray[np.int32]
    lat_e7: NDArray[np.int32]
    accuracy_m: NDArray[np.float32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]


class FixStore:
    """Collects the fixes of days, and gives each device's as one series."""

    def __init__(self, city: City) -> None:
        self._city = city
        self._days: list[_Kept] = []
        self._sky = map_of(city)[0]
        self.count = 0

    def add(self, day: Day) -> None:
        """Keep a day's fixes."""
        fixed = day.record["lat_e7"] != NO_FIX
        record, device = day.record[fixed], day.device[fixed]
        claimed = record["accuracy_dm"]
        self._days.append(
            _Kept(
                start=np.searchsorted(device, np.arange(len(self._city) + 1)),
                time_ms=record["time_ms"].astype(np.int64),
                lon_e7=record["lon_e7"].copy(),
                lat_e7=record["lat_e7"].copy(),
                accuracy_m=np.where(claimed == 65_535, UNKNOWN_M, claimed * np.float32(0.1)).astype(
                    np.float32
                ),
                x=day.x[fixed],
                y=day.y[fixed],
            )
        )
        self.count += len(record)

    def of(self, device: int) -> Fixes:
        """All fixes of one device."""

        def column(name: str) -> NDArray[Any]:
            return np.concatenate(
                [getattr(d, name)[d.start[device] : d.start[device + 1]] for d in self._days]
            )

        sky, x, y = self._sky, column("x").astype(np.float64), column("y").astype(np.float64)
        lon, lat = column("lon_e7") * 1e-7, column("lat_e7") * 1e-7
        off_x = (lon - sky["lon"]) * sky["metres_per_lon"] - x
        off_y = (lat - sky["lat"]) * sky["metres_per_lat"] - y
        true_lon, true_lat = self._city.to_degrees(x, y)
        return Fixes(
            time_us=column("time_ms") * 1000,
            lon=lon,
            lat=lat,
            accuracy_m=column("accuracy_m"),
            error_m=np.hypot(off_x, off_y).astype(np.float32),
            true_lon=true_lon,
            true_lat=true_lat,
        )
