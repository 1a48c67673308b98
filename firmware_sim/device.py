"""The firmware's main loop: which mode, when to take a sample, what to write into it.

Modes: alarm (case open, or strap open and not in the cradle: a sample every few seconds), moving, resting.
Within a tick each device has its own moment, ``phase_ms``, so that a fleet does not speak in chorus. A
device's clock drifts; a GNSS fix sets it.
"""

# ruff: noqa: PLR0917 (kernels take columns)

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import njit

from firmware_sim._random import draws, seed_streams, uniform
from firmware_sim.city import PERSON, PLACE
from firmware_sim.codec import KIND_PHONE, NO_FIX, RECORD
from firmware_sim.firmware import (
    OMITS_ACCURACY,
    OMITS_ALTITUDE,
    OMITS_MOTION,
    OMITS_SATELLITES,
    OMITS_VELOCITY,
    column,
)
from firmware_sim.gnss import GNSS, restart
from firmware_sim.power import POWER
from firmware_sim.radio import RADIO
from firmware_sim.strap import STRAP
from firmware_sim.wearer import REST, WEARER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from firmware_sim.city import City

__all__ = ["DEVICE", "TICK_S", "choose_due", "new_devices", "sample", "warm"]

TICK_S: Final = 5

DEVICE: Final = np.dtype(
    [
        ("rng", "u8"),
        ("boot", "u2"),
        ("seq", "u4"),
        ("next_sample_s", "i8"),
        ("next_upload_s", "i8"),
        ("alarm_s", "u2"),  # seconds between samples, by mode; `set_interval` changes them
        ("moving_s", "u2"),
        ("resting_s", "u2"),
        ("upload_moving_s", "u2"),
        ("upload_resting_s", "u2"),
        ("in_motion", "u1"),  # what the motion sensor said last
        ("urgent", "u1"),  # send at once
        ("asked", "u1"),  # a `locate` command came
        ("vibrates", "u1"),  # a `vibrate` command came
        ("button", "u1"),
        ("drift_ppm", "f8"),
        ("clock_set_s", "f8"),  # a GNSS fix set the clock at this time
    ]
)

_STRAP_OPEN: Final = 1 << 0
_CASE_OPEN: Final = 1 << 1
_CHARGING: Final = 1 << 2
_MOVING: Final = 1 << 3
_BEACON: Final = 1 << 4
_BUTTON: Final = 1 << 6
_BUFFERED: Final = 1 << 7
_BEACON_RANGE_M: Final = 12.0
_BUTTON_PER_SAMPLE: Final = 2e-5
_ANSWERS: Final = 0.8  # of those who feel the vibration, with the button


def new_devices(city: City, seed: int, now_s: int) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Devices that have been running, and their moments within a tick: DEVICE (n,), int32 (n,) milliseconds.

    The boot counter is drawn from the start of the run as well, so that a second run that the same
    engine sees does not repeat the first one's sequence numbers.
    """
    count, mix = len(city), city.scenario.fleet
    devices = np.zeros(count, DEVICE)
    devices["rng"] = seed_streams(seed, "device", count)
    drawn = draws(seed, "firmware", count, 3)
    devices["boot"] = (1 + (drawn[:, 0] * 40).astype(np.int64) + now_s // 60) % 65_536
    devices["alarm_s"] = mix.alarm_s
    slower = column(city.version, "slower")
    devices["moving_s"] = mix.moving_s * slower
    devices["resting_s"] = mix.resting_s * slower
    devices["upload_moving_s"] = mix.upload_moving_s * slower
    devices["upload_resting_s"] = mix.upload_resting_s * slower
    devices["drift_ppm"] = 40.0 * (drawn[:, 1] - 0.5)
    devices["clock_set_s"] = now_s
    # spread the first samples over a resting interval, upload with the first
    devices["next_sample_s"] = now_s + (drawn[:, 2] * mix.resting_s).astype(np.int64)
    phase_ms = (draws(seed, "phase", count, 1)[:, 0] * TICK_S * 1000).astype(np.int32)
    return devices, phase_ms


@njit(nogil=True, cache=True)
def choose_due(
    now_s: int,
    kinds: NDArray[np.uint8],
    wearers: NDArray[Any],
    batteries: NDArray[Any],
    straps: NDArray[Any],
    receivers: NDArray[Any],
    devices: NDArray[Any],
    due: NDArray[np.int32],
) -> int:
    """Find the devices that take a sample in this tick; returns how many.

    now_s     : UTC seconds of the tick
    kinds     : uint8 (n,)
    wearers   : WEARER (n,)
    batteries : POWER (n,)
    straps    : STRAP (n,)
    receivers : GNSS (n,)    restarted where the device booted
    devices   : DEVICE (n,)  boot, seq, next_sample_s, in_motion, urgent, button, vibrates written
    due       : int32 (n,)   the first so many are written, ascending
    """
    m = 0
    for i in range(len(devices)):
        if kinds[i] == KIND_PHONE:
            continue
        battery = batteries[i]
        if not battery.on:
            continue
        device = devices[i]
        strap = straps[i]
        in_motion = wearers[i].mode != REST and not wearers[i].left_behind
        wake = in_motion and not device.in_motion
        if battery.booted:
            device.boot += 1
            device.seq = 0
            restart(receivers[i], float(now_s))
            wake = True
        device.in_motion = in_motion
        answered = False
        if device.vibrates:
            device.vibrates = 0
            worn = not wearers[i].left_behind and not battery.docked
            answered = worn and uniform(device) < _ANSWERS
        if strap.changed or device.asked or answered:
            device.urgent = 1
            wake = True
        if not wake and now_s < device.next_sample_s:
            continue
        interval_s = device.moving_s if in_motion else device.resting_s
        if strap.reads_case_open or (strap.reads_open and not battery.docked):  # a cradle is no alarm
            interval_s = device.alarm_s
        device.next_sample_s = now_s + interval_s
        device.button = uniform(device) < _BUTTON_PER_SAMPLE or answered
        if device.button:
            device.urgent = 1
        due[m] = i
        m += 1
    return m


@njit(nogil=True, cache=True)
def sample(
    now_s: int,
    due: NDArray[np.int32],
    phase_ms: NDArray[np.int32],
    omits: NDArray[np.uint8],
    people: NDArray[Any],
    places: NDArray[Any],
    wearers: NDArray[Any],
    batteries: NDArray[Any],
    straps: NDArray[Any],
    radios: NDArray[Any],
    devices: NDArray[Any],
    records: NDArray[Any],
) -> None:
    """Fill in what the receiver did not: sequence, time, status, battery.

    now_s     : UTC seconds of the tick
    due       : int32 (m,)   devices that take a sample
    phase_ms  : int32 (n,)
    omits     : uint8 (n,)   what its firmware leaves out, OMITS_* of `firmware`
    people, places, wearers, batteries, straps, radios : PERSON, PLACE, WEARER, POWER, STRAP, RADIO (n,)
    devices   : DEVICE (n,)  seq, clock_set_s, asked written
    records   : RECORD (m,)  written, the position and the radio's part of the status stay
    """
    for j in range(len(due)):
        i = due[j]
        device = devices[i]
        wearer = wearers[i]
        record = records[j]
        time_ms = now_s * 1000 + phase_ms[i]
        if record.lat_e7 != NO_FIX and record.status >> 8 == 0:
            device.clock_set_s = now_s
        else:
            time_ms += int((now_s - device.clock_set_s) * device.drift_ppm * 1e-3)
        record.seq = device.seq
        device.seq += 1
        record.time_ms = time_ms
        status = record.status
        if straps[i].reads_open:
            status |= _STRAP_OPEN
        if straps[i].reads_case_open:
            status |= _CASE_OPEN
        if batteries[i].charging:
            status |= _CHARGING
        if device.in_motion and not omits[i] & OMITS_MOTION:
            status |= _MOVING
        home = places[people[i].home]
        near_x, near_y = wearer.x - home.x, wearer.y - home.y
        if near_x * near_x + near_y * near_y < _BEACON_RANGE_M * _BEACON_RANGE_M and not wearer.foiled:
            status |= _BEACON
        if device.button:
            status |= _BUTTON
        if not radios[i].linked:
            status |= _BUFFERED
        record.status = status
        record.battery_pct = int(batteries[i].level_pct + 0.5)
        if omits[i] & OMITS_ACCURACY:
            record.accuracy_dm = 65535
        if omits[i] & OMITS_ALTITUDE:
            record.altitude_m = -32768
        if omits[i] & OMITS_VELOCITY:
            record.speed_cmps = 65535
            record.heading_cdeg = 65535
        if omits[i] & OMITS_SATELLITES:
            record.satellites = 255
        device.asked = 0


def warm() -> None:
    """Compile this module's kernels."""
    kinds, none = np.zeros(0, np.uint8), np.zeros(0, np.int32)
    wearers, batteries, straps = np.zeros(0, WEARER), np.zeros(0, POWER), np.zeros(0, STRAP)
    devices = np.zeros(0, DEVICE)
    choose_due(0, kinds, wearers, batteries, straps, np.zeros(0, GNSS), devices, none)
    sample(
        0,
        none,
        none,
        kinds,
        np.zeros(0, PERSON),
        np.zeros(0, PLACE),
        wearers,
        batteries,
        straps,
        np.zeros(0, RADIO),
        devices,
        np.zeros(0, RECORD),
    )
