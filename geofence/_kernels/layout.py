"""Laying a batch out: which private zones are measured for which ping."""

from __future__ import annotations

from numba import njit

from geofence._kernels.fixes import USED

__all__ = ["fill_own", "own_counts"]


@njit(cache=True, nogil=True)
def own_counts(device, bits, devices, own_start):
    """Where each ping's distances begin; returns how many there are in all.

    device    : int32 (n,);  bits: uint8 (n,);  devices: DEVICE
    own_start : int64 (n+1,)  written
    """
    total = 0
    for i in range(len(device)):
        own_start[i] = total
        if bits[i] & USED:
            row = devices[device[i]]
            total += row.pair_stop - row.pair
    own_start[len(device)] = total
    return total


@njit(cache=True, nogil=True)
def fill_own(device, lon_e7, lat_e7, own_start, devices, pairs, lon, lat, zone):
    """The position and the zone of each distance to ask for.

    lon, lat, zone : int32 (m,)  written
    """
    for i in range(len(device)):
        first = devices[device[i]].pair
        begin = own_start[i]
        for k in range(own_start[i + 1] - begin):
            lon[begin + k] = lon_e7[i]
            lat[begin + k] = lat_e7[i]
            zone[begin + k] = pairs[first + k].zone
