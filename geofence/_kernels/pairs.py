"""Distances of (ping, zone) pairs, and which pairs lie within reach."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geofence._kernels.exact import OUTSIDE, locate, segments_touch
from geofence._kernels.geodesy import arc_m, chord_to_piece2, ecef, to_mm
from geofence._kernels.tree import nearest_chord

__all__ = ["cross_zones", "pair_distances", "signed_m", "within_reach", "zone_side"]

NO_FIX = -2_147_483_648
MAX_LON = 2_140_000_000
MAX_LAT = 900_000_000
FULL_TURN = 3_600_000_000
ALIAS_FROM = (
    1_460_000_000  # a longitude this far from 0 has a second name, one turn away, within +-214 degrees
)


@njit(cache=True, nogil=True)
def zone_side(edges, first, last, touches_pole, x, y):
    """locate() for a position under both of its longitudes; at a pole all longitudes are one place."""
    if y == MAX_LAT or y == -MAX_LAT:
        return 1 if (touches_pole & (1 if y > 0 else 2)) != 0 else 0
    found = locate(edges, first, last, x, y)
    if found == OUTSIDE and abs(x) >= ALIAS_FROM:
        found = locate(edges, first, last, x - FULL_TURN if x > 0 else x + FULL_TURN, y)
    return found


@njit(cache=True, nogil=True)
def signed_m(
    edges, zone_edge, is_area, reach_mm, pieces, zone_piece, spheres, levels, zone_level, pole, zone, x, y
):
    """Signed distance, metres and whole millimetres (as float64, exact), of one position and one zone.

    Rounded so that a position is covered exactly when its millimetres are 0 or less.
    """
    px, py, pz = ecef(float(x), float(y))
    metres = arc_m(
        nearest_chord(
            pieces,
            zone_piece[zone],
            zone_piece[zone + 1],
            spheres,
            levels,
            zone_level[zone],
            zone_level[zone + 1],
            float(x),
            float(y),
            px,
            py,
            pz,
            math.inf,
        )
    )
    side = 0
    if is_area[zone]:
        side = zone_side(edges, zone_edge[zone], zone_edge[zone + 1], pole[zone], x, y)
        if side == 1:
            metres = 0.0
    mm = to_mm(metres)
    if is_area[zone]:
        if side == 0:
            mm = max(mm, 1)
        elif side == 2:
            mm = -mm
            metres = -metres
    return metres - reach_mm[zone] / 1000.0, mm - reach_mm[zone]


@njit(cache=True, nogil=True)
def pair_distances(
    lon_e7,
    lat_e7,
    zone,
    edges,
    zone_edge,
    is_area,
    reach_mm,
    pieces,
    zone_piece,
    spheres,
    levels,
    zone_level,
    pole,
    metres,
    mm,
):
    """Signed distances of pairs.

    lon_e7, lat_e7 : int32 (n,)
    zone           : int32 (n,)
    metres         : float64 (n,)  written; NaN where there is no fix
    mm             : int32 (n,)    written; saturates at +-2,000,000,000, also where there is no fix
    """
    for i in range(len(lon_e7)):
        x = int(lon_e7[i])
        y = int(lat_e7[i])
        if abs(x) > MAX_LON or abs(y) > MAX_LAT:
            metres[i] = math.nan
            mm[i] = 2_000_000_000
            continue
        m, k = signed_m(
            edges,
            zone_edge,
            is_area,
            reach_mm,
            pieces,
            zone_piece,
            spheres,
            levels,
            zone_level,
            pole,
            zone[i],
            x,
            y,
        )
        metres[i] = m
        mm[i] = k


@njit(cache=True, nogil=True)
def within_reach(
    lon_e7,
    lat_e7,
    reach,
    edges,
    zone_edge,
    is_area,
    reach_mm,
    pieces,
    zone_piece,
    spheres,
    levels,
    zone_level,
    pole,
):
    """All pairs with a signed distance of at most ``reach`` mm, by ping, then zone."""
    ping = [np.int64(0) for _ in range(0)]
    zone = [np.int32(0) for _ in range(0)]
    distance = [np.int32(0) for _ in range(0)]
    for i in range(len(lon_e7)):
        x = int(lon_e7[i])
        y = int(lat_e7[i])
        if abs(x) > MAX_LON or abs(y) > MAX_LAT:
            continue
        for z in range(len(zone_edge) - 1):
            _, mm = signed_m(
                edges,
                zone_edge,
                is_area,
                reach_mm,
                pieces,
                zone_piece,
                spheres,
                levels,
                zone_level,
                pole,
                z,
                x,
                y,
            )
            if mm <= reach:
                ping.append(np.int64(i))
                zone.append(np.int32(z))
                distance.append(np.int32(mm))
    return np.array(ping, np.int64), np.array(zone, np.int32), np.array(distance, np.int32)


@njit(cache=True, nogil=True)
def cross_zones(
    ax, ay, bx, by, edges, zone_edge, is_area, reach_mm, pieces, zone_piece, spheres, levels, zone_level, pole
):
    """All pairs of a straight track a->b and a zone that it touches, by track, then zone."""
    segment = [np.int64(0) for _ in range(0)]
    zone = [np.int32(0) for _ in range(0)]
    for i in range(len(ax)):
        x0 = int(ax[i])
        y0 = int(ay[i])
        x1 = int(bx[i])
        y1 = int(by[i])
        if max(abs(x0), abs(x1)) > MAX_LON or max(abs(y0), abs(y1)) > MAX_LAT:
            continue
        for z in range(len(zone_edge) - 1):
            if _touches(
                x0,
                y0,
                x1,
                y1,
                z,
                edges,
                zone_edge,
                is_area,
                reach_mm,
                pieces,
                zone_piece,
                spheres,
                levels,
                zone_level,
                pole,
            ):
                segment.append(np.int64(i))
                zone.append(np.int32(z))
    return np.array(segment, np.int64), np.array(zone, np.int32)


@njit(cache=True, nogil=True)
def _touches(
    x0,
    y0,
    x1,
    y1,
    z,
    edges,
    zone_edge,
    is_area,
    reach_mm,
    pieces,
    zone_piece,
    spheres,
    levels,
    zone_level,
    pole,
):
    for x, y in ((x0, y0), (x1, y1)):
        _, mm = signed_m(
            edges,
            zone_edge,
            is_area,
            reach_mm,
            pieces,
            zone_piece,
            spheres,
            levels,
            zone_level,
            pole,
            z,
            x,
            y,
        )
        if mm <= 0:
            return True
    # the short way round, then the same track under its other longitudes
    if x1 - x0 > FULL_TURN // 2:
        x1 -= FULL_TURN
    elif x0 - x1 > FULL_TURN // 2:
        x1 += FULL_TURN
    for turn in range(-1, 2):
        u0 = x0 + turn * FULL_TURN
        u1 = x1 + turn * FULL_TURN
        if max(u0, u1) < -MAX_LON or min(u0, u1) > MAX_LON:
            continue
        for e in range(zone_edge[z], zone_edge[z + 1]):
            if segments_touch(
                u0, y0, u1, y1, int(edges[e, 0]), int(edges[e, 1]), int(edges[e, 2]), int(edges[e, 3])
            ):
                return True
    if reach_mm[z] > 0:
        # The two don't cross, so their least distance is at an end of one of them.
        for e in range(zone_edge[z], zone_edge[z + 1]):
            for k in range(2):
                vx = float(edges[e, 2 * k])
                vy = float(edges[e, 2 * k + 1])
                px, py, pz = ecef(vx, vy)
                steps = 1 + max(abs(x1 - x0), abs(y1 - y0)) // 2_500_000
                dx = (x1 - x0) / steps
                dy = (y1 - y0) / steps
                for s in range(steps):
                    d = chord_to_piece2(x0 + s * dx, y0 + s * dy, dx, dy, vx, vy, px, py, pz)
                    if to_mm(arc_m(math.sqrt(d))) <= reach_mm[z]:
                        return True
    return False
