"""The battery: drains with use and cold, is charged at home in the evening, or forgotten until the device
is off.

An ankle monitor holds about three days, a wristband one and a half. A wristband is charged on the arm by a
clip-on pack, or, by those who take it off to charge, in a cradle: then its strap is open (`strap`). That is
allowed in `CRADLE_HOURS`. Its wearer begins early enough and puts it on again in time, but for a battery that
is nearly empty: that one goes into the cradle at any hour, until it holds enough for the night.
"""

# ruff: noqa: PLR0917 (kernels take columns)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit

from firmware_sim._random import draws, exponential, seed_streams, uniform
from firmware_sim.agenda import AGENDA
from firmware_sim.city import PERSON
from firmware_sim.codec import KIND_WRIST
from firmware_sim.wearer import REST, WEARER

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CRADLE_HOURS", "POWER", "new_batteries", "step", "temperature_c", "warm"]

POWER: Final = np.dtype(
    [
        ("rng", "u8"),
        ("level_pct", "f8"),
        ("charge_below_pct", "f8"),  # the wearer's habit
        ("forgets_until_s", "i8"),
        ("charging", "u1"),
        ("takes_off", "u1"),  # a wristband whose wearer charges it in a cradle
        ("docked", "u1"),  # it lies in the cradle
        ("on", "u1"),
        ("booted", "u1"),  # the device started in this tick
    ]
)

CRADLE_HOURS: Final = (18, 22)  # local hours in which a wristband may be off the arm to charge
_DOCK_UNTIL_H: Final = 21.0  # later nobody begins
_UNDOCK_H: Final = 21.9
_EMPTY_PCT: Final = 15.0  # charged at once
_ENOUGH_PCT: Final = 30.0  # for the night
_ANKLE_PCT_PER_H: Final = 1.4
_WRIST_PCT_PER_H: Final = 2.6
_MOVING_FACTOR: Final = 1.6
_CHARGE_PCT_PER_H: Final = 45.0
_FULL_PCT: Final = 98.0
_START_PCT: Final = 5.0  # the device starts again once it holds so much
_COLD_BELOW_C: Final = 15.0  # a lithium cell gives less below; 1 % more drain for each degree
_CRASH_PER_S: Final = 1.0 / (30 * 86_400)  # the watchdog reboots it once a month


def new_batteries(kinds: NDArray[np.uint8], seed: int, taken_off: float = 0.0) -> NDArray[Any]:
    """Batteries at 45 to 100 %: POWER (n,); ``taken_off`` is the share of wristbands charged in a cradle."""
    batteries = np.zeros(len(kinds), POWER)
    batteries["rng"] = seed_streams(seed, "power", len(kinds))
    drawn = draws(seed, "battery", len(kinds), 2)
    batteries["level_pct"] = 45.0 + 55.0 * drawn[:, 0]
    batteries["charge_below_pct"] = np.where(kinds == KIND_WRIST, 70.0, 50.0) + 15.0 * drawn[:, 1]
    batteries["takes_off"] = (kinds == KIND_WRIST) & (draws(seed, "cradle", len(kinds), 1)[:, 0] < taken_off)
    batteries["on"] = 1
    return batteries


def temperature_c(hour: float, day_of_year: int) -> float:
    """Outdoors in Ohio: 11 on the average, 13 more or less by season, 5 by hour (coarse; NOAA normals)."""
    season = -np.cos(2 * np.pi * (day_of_year - 15) / 365.25)
    return float(11.0 + 13.0 * season - 5.0 * np.cos(2 * np.pi * (hour - 3.0) / 24.0))


@njit(nogil=True, cache=True)
def step(
    now_s: int,
    elapsed_s: float,
    hour: float,
    outside_c: float,
    forgetful: float,
    kinds: NDArray[np.uint8],
    people: NDArray[Any],
    agendas: NDArray[Any],
    wearers: NDArray[Any],
    batteries: NDArray[Any],
) -> None:
    """Drain or charge every battery.

    now_s     : UTC seconds
    elapsed_s : since the last call
    hour      : 0..24, local
    outside_c : degrees Celsius
    forgetful : flat batteries per device and day
    kinds     : uint8 (n,)
    people    : PERSON (n,)
    agendas   : AGENDA (n,)
    wearers   : WEARER (n,)
    batteries : POWER (n,)  written
    """
    cold = 1.0 + 0.01 * max(0.0, _COLD_BELOW_C - outside_c)
    for i in range(len(batteries)):
        battery = batteries[i]
        wearer = wearers[i]
        battery.booted = 0
        u = uniform(battery)
        if u < forgetful * elapsed_s / 86_400.0:
            battery.forgets_until_s = now_s + int(86_400 * (2.5 + exponential(battery)))
        elif battery.on and u > 1.0 - _CRASH_PER_S * elapsed_s:
            battery.booted = 1
        resting = wearer.mode == REST
        at_home = resting and not wearer.left_behind and agendas[i].stop[agendas[i].at] == people[i].home
        if battery.charging:
            late = battery.takes_off and hour >= _UNDOCK_H and battery.level_pct >= _ENOUGH_PCT
            if not at_home or battery.level_pct >= _FULL_PCT or late:
                battery.charging = 0
        elif at_home and now_s >= battery.forgets_until_s:
            habit = battery.level_pct < battery.charge_below_pct and hour >= CRADLE_HOURS[0]
            if battery.takes_off and hour >= _DOCK_UNTIL_H:
                habit = False
            if habit or battery.level_pct < _EMPTY_PCT:
                battery.charging = 1
        battery.docked = battery.charging and battery.takes_off
        if battery.charging:
            battery.level_pct = min(100.0, battery.level_pct + _CHARGE_PCT_PER_H * elapsed_s / 3600.0)
            if not battery.on and battery.level_pct >= _START_PCT:
                battery.on = 1
                battery.booted = 1
        elif battery.on:
            rate = _WRIST_PCT_PER_H if kinds[i] == KIND_WRIST else _ANKLE_PCT_PER_H
            if not resting:
                rate *= _MOVING_FACTOR * cold
            battery.level_pct -= rate * elapsed_s / 3600.0
            if battery.level_pct <= 0.0:
                battery.level_pct = 0.0
                battery.on = 0


def warm() -> None:
    """Compile this module's kernel."""
    step(
        0,
        0.0,
        0.0,
        0.0,
        0.0,
        np.zeros(0, np.uint8),
        np.zeros(0, PERSON),
        np.zeros(0, AGENDA),
        np.zeros(0, WEARER),
        np.zeros(0, POWER),
    )
