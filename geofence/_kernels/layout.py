"""Laying a batch out: which private zones must be measured for which ping, and which tracks be followed."""

from __future__ import annotations

from numba import njit

from geofence._kernels.fixes import FROM_NETWORK, NETWORK, USED, at_most_mm
from geofence._kernels.stretch import reach_of

__all__ = ["own_counts", "own_zones", "questions", "tracks_in_question"]

LAT_MM = 11.05  # at least so much is one count of latitude, anywhere
# One count of longitude at the equator, less a twentieth: the chord of up to 60 degrees bends by no more.
LON_MM = 10.4
SIXTY_DEGREES_E7 = 600_000_000
TURN_E7 = 3_600_000_000
NO_FIX = -(1 << 31)
FARTHEST_MM = 2_000_000_000.0


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
def _at_least_mm(lon, lat, box, cosine, reach_mm):
    """A lower bound of the distance from a position to what lies within reach_mm of a box; quick."""
    south = max(box[1] - lat, lat - box[3], 0)
    # a turn either way: zones may run past the antimeridian
    west = box[0] - lon
    east = lon - box[2]
    away = max(west, east, 0)
    away = min(away, max(west + TURN_E7, east - TURN_E7, 0), max(west - TURN_E7, east + TURN_E7, 0))
    by_lat = LAT_MM * south
    by_lon = LON_MM * cosine * min(away, SIXTY_DEGREES_E7) if south < 10_000_000 else 0.0
    return min(max(by_lat, by_lon) - reach_mm, FARTHEST_MM)


@njit(cache=True, nogil=True)
def own_zones(
    device,
    lon_e7,
    lat_e7,
    error_mm,
    own_start,
    devices,
    duties,
    pairs,
    rules,
    boxes,
    cosines,
    reaches,
    own_mm,
    at,
):
    """Bound the distance to each private zone; list those for which the bound does not say enough.

    own_mm  : int32 (m,)  written: a lower bound, where it shows that the zone counts as far away
    at      : int64 (m,)  written: places in own_mm that must be measured exactly, ascending
    boxes   : int64 (z, 4)  west, south, east, north of each zone, 1e-7 degree
    cosines : float64 (z,)  at most the cosine of any latitude within a degree of the box
    reaches : float64 (z,)  how far beyond its box the zone reaches, mm
    Returns how many must be measured.
    """
    count = 0
    for i in range(len(device)):
        base = own_start[i]
        if own_start[i + 1] == base:
            continue
        row = devices[device[i]]
        reach = reach_of(error_mm[i])
        for u in range(row.duty, row.duty_stop):
            duty = duties[u]
            rule = rules[duty.rule]
            for p in range(duty.first, duty.stop):
                k = base + p - row.pair
                if rule.sense > 0:
                    zone = pairs[p].zone
                    bound = _at_least_mm(lon_e7[i], lat_e7[i], boxes[zone], cosines[zone], reaches[zone])
                    if bound > reach + rule.offset_mm:
                        own_mm[k] = int(bound)
                        continue
                at[count] = k
                count += 1
    return count


@njit(cache=True, nogil=True)
def questions(device, lon_e7, lat_e7, own_start, devices, pairs, at, count, lon, lat, zone):
    """Position and zone of each distance that ``own_zones`` listed.

    lon, lat, zone : int32 (count,)  written
    """
    i = 0
    for q in range(count):
        k = at[q]
        while own_start[i + 1] <= k:
            i += 1
        lon[q] = lon_e7[i]
        lat[q] = lat_e7[i]
        zone[q] = pairs[devices[device[i]].pair + k - own_start[i]].zone


@njit(cache=True, nogil=True)
def tracks_in_question(
    device,
    lon_e7,
    lat_e7,
    bits,
    error_mm,
    from_lon,
    from_lat,
    gap_us,
    longest_us,
    hit_start,
    hit_mm,
    offset_mm,
    devices,
    which,
):
    """Which tracks since the last believed fix may pass through a shared zone; returns how many.

    A track that touches a zone is at least as long as the distances from both its ends to that zone.
    devices : DEVICE       ``nearest_mm`` is read and written
    which   : int64 (n,)   written: the pings, ascending
    """
    count = 0
    for i in range(len(lon_e7)):
        if not bits[i] & USED:
            continue
        nearest = reach_of(error_mm[i]) + offset_mm
        for h in range(hit_start[i], hit_start[i + 1]):
            nearest = min(nearest, hit_mm[h])
        row = devices[device[i]]
        before = row.nearest_mm
        row.nearest_mm = nearest
        if bits[i] & (NETWORK | FROM_NETWORK) or from_lon[i] == NO_FIX:
            continue
        if gap_us[i] <= 0 or gap_us[i] > longest_us:
            continue
        if lon_e7[i] == from_lon[i] and lat_e7[i] == from_lat[i]:
            continue
        if before + nearest <= at_most_mm(from_lon[i], from_lat[i], lon_e7[i], lat_e7[i]):
            which[count] = i
            count += 1
    return count
