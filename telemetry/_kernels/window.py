"""Copies and jumps: what each device sent lately, exactly, and how fast it seems to have moved.

A key is (device, time_us, name, series): ``name`` and ``series`` are made in telemetry.admission from seq and
boot, or from the position. Keys are compared whole; a hash only says where to look.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = ["COPY", "NEW", "OLDER", "WINDOW", "classify", "mark_jumps", "note", "warm"]

WINDOW = 16  # keys kept of each device: more than the ten pings of a usual message

NEW = 0  # certainly not seen before
COPY = 1  # certainly seen before, in the window or earlier in this batch
OLDER = 2  # older than what the window still covers: the store knows

_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, from the golden ratio (Knuth's multiplicative hashing)
_EARTH_RADIUS_M = 6_371_008.8  # mean radius (IUGG)
_E7_TO_RADIANS = math.pi / 180 / 1e7


@njit(cache=True, nogil=True)
def classify(device, time_us, name, series, w_time, w_name, w_series, w_count, floor_us, table, verdict):
    """Say of each ping whether it is a copy.

    device        : int32 (n,)   slot
    time_us, name, series : int64 (n,)  with the device: the key
    w_time, w_name, w_series : int64 (devices, WINDOW)  keys kept
    w_count       : int8 (devices,)   how many of them
    floor_us      : int64 (devices,)  every admitted key with a later time is in the window
    table         : int32 (2**k,)     k such that it is at least twice n; -1 everywhere; written
    verdict       : uint8 (n,)        written: NEW, COPY or OLDER
    """
    mask = np.uint64(len(table) - 1)
    for i in range(len(device)):
        d = device[i]
        h = np.uint64(time_us[i]) * _MIX ^ np.uint64(name[i])
        h = (h ^ h >> np.uint64(29)) * _MIX ^ np.uint64(d) ^ np.uint64(series[i]) << np.uint64(32)
        h = (h ^ h >> np.uint64(32)) * _MIX
        at = (h >> np.uint64(32)) & mask
        verdict[i] = NEW
        while table[at] >= 0:
            j = table[at]
            if device[j] == d and time_us[j] == time_us[i] and name[j] == name[i] and series[j] == series[i]:
                verdict[i] = COPY
                break
            at = (at + np.uint64(1)) & mask
        if verdict[i] == COPY:
            continue
        table[at] = i
        for k in range(w_count[d]):
            if w_time[d, k] == time_us[i] and w_name[d, k] == name[i] and w_series[d, k] == series[i]:
                verdict[i] = COPY
                break
        if verdict[i] == NEW and time_us[i] <= floor_us[d]:
            verdict[i] = OLDER


@njit(cache=True, nogil=True)
def note(device, time_us, name, series, w_time, w_name, w_series, w_count, floor_us):
    """Keep the keys of admitted pings; of a device the newest WINDOW by time stay.

    Arguments as for ``classify``; the window and floor_us are written.
    """
    for i in range(len(device)):
        d = device[i]
        n = w_count[d]
        at = n
        if n < WINDOW:
            w_count[d] = n + 1
        else:
            at = 0
            for k in range(1, WINDOW):
                if w_time[d, k] < w_time[d, at]:
                    at = k
            if time_us[i] <= w_time[d, at]:
                floor_us[d] = max(floor_us[d], time_us[i])
                continue
            floor_us[d] = max(floor_us[d], w_time[d, at])
        w_time[d, at] = time_us[i]
        w_name[d, at] = name[i]
        w_series[d, at] = series[i]


@njit(cache=True, nogil=True)
def mark_jumps(
    order, device, time_us, lat_e7, lon_e7, radius_mm, max_mps, was_us, was_e7, was_radius_mm, jumped
):
    """Mark the fixes that no vehicle could have reached from the device's last one.

    order          : int64 (m,)   the fixes, by device and then time
    device … radius_mm : (n,)     radius: 68 %, already floored
    max_mps        : float        needing more for the way, both radii taken off twice, makes a jump
    was_us         : int64 (devices, 2)     time of the last good fix, of the last jump; < 0: none; written
    was_e7         : int32 (devices, 2, 2)  their lat and lon; written
    was_radius_mm  : int32 (devices, 2)     written
    jumped         : bool (n,)    written at ``order``

    A second fix that agrees with a jump makes it the truth: it is good, and so is what follows it. Fixes not
    newer than the last one are passed over.
    """
    for i in order:
        d = device[i]
        if time_us[i] <= max(was_us[d, 0], was_us[d, 1]):
            continue
        slot = 0
        for reference in range(2):  # a jump agrees neither with the last good fix nor with the last jump
            if was_us[d, reference] < 0:
                slot = reference
                break
            slot = 1
            if not _too_fast(
                was_e7[d, reference, 0],
                was_e7[d, reference, 1],
                was_radius_mm[d, reference],
                lat_e7[i],
                lon_e7[i],
                radius_mm[i],
                time_us[i] - was_us[d, reference],
                max_mps,
            ):
                slot = 0
                break
        jumped[i] = slot == 1
        was_us[d, slot] = time_us[i]
        was_e7[d, slot, 0] = lat_e7[i]
        was_e7[d, slot, 1] = lon_e7[i]
        was_radius_mm[d, slot] = radius_mm[i]
        if slot == 0:
            was_us[d, 1] = -1


@njit(cache=True, nogil=True)
def _too_fast(a_lat_e7, a_lon_e7, a_radius_mm, lat_e7, lon_e7, radius_mm, elapsed_us, max_mps):
    lat_a, lat_b = a_lat_e7 * _E7_TO_RADIANS, lat_e7 * _E7_TO_RADIANS
    half_lat = math.sin((lat_b - lat_a) / 2)
    half_lon = math.sin((np.int64(lon_e7) - np.int64(a_lon_e7)) * _E7_TO_RADIANS / 2)
    chord = half_lat * half_lat + math.cos(lat_a) * math.cos(lat_b) * half_lon * half_lon
    way_m = 2 * _EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, chord)))  # haversine
    slack_m = 2 * (np.int64(a_radius_mm) + np.int64(radius_mm)) / 1000
    return way_m - slack_m > max_mps * elapsed_us / 1e6


def warm() -> None:
    """Compile the kernels."""
    device, one = np.zeros(1, np.int32), np.ones(1, np.int64)
    kept, count, floor_us = np.zeros((1, WINDOW), np.int64), np.zeros(1, np.int8), np.zeros(1, np.int64)
    table, verdict = np.full(4, -1, np.int32), np.zeros(1, np.uint8)
    classify(device, one, one, one, kept, kept, kept, count, floor_us, table, verdict)
    note(device, one, one, one, kept, kept, kept, count, floor_us)
    order, jumped = np.zeros(1, np.int64), np.zeros(1, np.bool_)
    was_us, was_e7 = np.full((1, 2), -1, np.int64), np.zeros((1, 2, 2), np.int32)
    mark_jumps(order, device, one, device, device, device, 100.0, was_us, was_e7, was_e7[0], jumped)
