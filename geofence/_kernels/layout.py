"""Laying a batch out: which private zones must be measured for which ping, and which tracks be followed."""

from __future__ import annotations

import math

from numba import njit

from geofence._kernels.fixes import FROM_NETWORK, NETWORK, USED, at_most_mm
from geofence._kernels.geodesy import SATURATED_MM, arc_m, ecef, to_mm
from geofence._kernels.options import PLAIN
from geofence._kernels.stretch import reach_of

__all__ = ["own_counts", "own_distances", "questions", "starts_of", "tracks_in_question"]

LAT_MM = 11.05  # at least so much is one count of latitude, anywhere
# One count of longitude at the equator, less a twentieth: the chord of up to 60 degrees bends by no more.
LON_MM = 10.4
SIXTY_DEGREES_E7 = 600_000_000
TURN_E7 = 3_600_000_000
NO_FIX = -(1 << 31)
FARTHEST_MM = 2_000_000_000.0
MAX_LON = 2_140_000_000
MAX_LAT = 900_000_000


@njit(**PLAIN)
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


@njit(**PLAIN)
def _at_least_mm(lon, lat, box):
    """A lower bound of the distance from a position (int64) to a zone; quick."""
    south = max(box.south - lat, lat - box.north, 0)
    # a turn either way: zones may run past the antimeridian
    west = box.west - lon
    east = lon - box.east
    away = max(west, east, 0)
    away = min(away, max(west + TURN_E7, east - TURN_E7, 0), max(west - TURN_E7, east + TURN_E7, 0))
    by_lat = LAT_MM * south
    cosine = box.cosine_ppm / 1e6
    by_lon = LON_MM * cosine * min(away, SIXTY_DEGREES_E7) if south < 10_000_000 else 0.0
    return min(max(by_lat, by_lon) - box.reach_mm, FARTHEST_MM)


@njit(**PLAIN)
def own_distances(
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
    own_mm,
    at,
):
    """Distances to the private zones of each ping's device; lists those that are left to be measured.

    own_mm : int32 (m,)  written: circles exactly, as ``pairs.pair_distances`` does, bit for bit; of a zone
                         that it is wrong to be in and that is far away a lower bound of the distance
    at     : int64 (m,)  written: places in own_mm that are still to be measured, ascending
    boxes  : BOX (z,)
    Returns how many are left.

    Why a bound is enough: it is taken only where it is above reach + offset of the rule. There the distance
    past the line, offset - d, is below -reach, and `stretch.tell` counts everything below -reach as -reach;
    `stretch.follow` asks only whether it is positive; what is said of a transition is cut to reach + offset.
    """
    count = 0
    for i in range(len(device)):
        base = own_start[i]
        if own_start[i + 1] == base:
            continue
        row = devices[device[i]]
        reach = reach_of(error_mm[i])
        x = int(lon_e7[i])
        y = int(lat_e7[i])
        on_earth = abs(x) <= MAX_LON and abs(y) <= MAX_LAT
        px, py, pz = ecef(float(x), float(y))
        for u in range(row.duty, row.duty_stop):
            duty = duties[u]
            if duty.first == duty.stop:
                continue
            rule = rules[duty.rule]
            far_mm = float(reach + rule.offset_mm) if rule.sense > 0 else math.inf
            for p in range(duty.first, duty.stop):
                k = base + p - row.pair
                box = boxes[pairs[p].zone]
                bound = _at_least_mm(x, y, box)
                if bound > far_mm:
                    own_mm[k] = int(bound)
                elif box.is_circle and on_earth:
                    qx, qy, qz = ecef(float(box.west), float(box.south))
                    dx, dy, dz = px - qx, py - qy, pz - qz
                    mm = to_mm(arc_m(math.sqrt(dx * dx + dy * dy + dz * dz))) - box.reach_mm
                    own_mm[k] = max(-SATURATED_MM, min(SATURATED_MM, mm))
                else:
                    at[count] = k
                    count += 1
    return count


@njit(**PLAIN)
def questions(device, lon_e7, lat_e7, own_start, devices, pairs, at, count, lon, lat, zone):
    """Position and zone of each distance that ``own_distances`` listed.

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


@njit(**PLAIN)
def starts_of(ping, starts):
    """Where the pairs of each ping begin.

    ping   : int64 (m,)    ascending, below n
    starts : int64 (n+1,)  written
    """
    at = 0
    for i in range(len(starts)):
        while at < len(ping) and ping[at] < i:
            at += 1
        starts[i] = at


@njit(**PLAIN)
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
    hit_zone,
    hit_mm,
    offset_mm,
    devices,
    which,
    pair_ping,
    pair_zone,
):
    """Which tracks since the last believed fix may pass through which shared zones.

    A track that touches a zone is at least as long as the distance from either end to it, and as both
    together where it is touched on the way. So a track no longer than what was measured around its end can
    only touch what was found there, and no farther away than its length; a longer one is to be followed.

    devices              : DEVICE        ``nearest_mm`` is read and written
    which                : int64 (n,)    written: pings whose tracks are to be followed, ascending
    pair_ping, pair_zone : int64 (h,)    written: pings and zones of which to ask, by ping, then zone
    Returns how many of the first and of the second.
    """
    count = 0
    pairs = 0
    for i in range(len(lon_e7)):
        if not bits[i] & USED:
            continue
        measured = reach_of(error_mm[i]) + offset_mm
        nearest = measured
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
        length = at_most_mm(from_lon[i], from_lat[i], lon_e7[i], lat_e7[i])
        if before + nearest > length:
            continue
        if length > measured:
            which[count] = i
            count += 1
            continue
        for h in range(hit_start[i], hit_start[i + 1]):
            if hit_mm[h] <= length:
                pair_ping[pairs] = i
                pair_zone[pairs] = hit_zone[h]
                pairs += 1
    return count, pairs
