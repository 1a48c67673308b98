"""Which zones lie within reach of which pings, and how far away, from the lists of near_lists.

Pings go through in blocks that stay in the first-level cache, one pass after the other:

1. one read of the grid for each ping; those near no zone are dropped
2. the first word of each list and the terms of each latitude, so that the processor waits for many reads at
   once
3. the distances: quickly (near_plane), and as they are defined (geodesy) where the quick way is too coarse to
   tell the millimetre
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geofence._kernels.geodesy import arc_m, chord_to_piece2, ecef, to_mm
from geofence._kernels.lists import IS_GRID
from geofence._kernels.near_lists import MAX_PIECES, PIECES
from geofence._kernels.near_plane import (
    COLUMNS,
    FLAT_LAT,
    LANES,
    arc_of_chord2,
    error_m,
    fill_planes,
    quick_chord2,
)
from geofence._kernels.raster import CIRCLE, room1
from geofence._kernels.tree import STACK, nearest_chord

__all__ = ["near"]

BLOCK = 512
FULL_TURN = 3_600_000_000
HALF_TURN = 1_800_000_000
QUICK_M2 = 50_000.0 * 50_000.0  # beyond it the quick way knows no error
SATURATED_MM = 2_000_000_000


@njit(cache=True, nogil=True)
def near(
    lon_e7,
    lat_e7,
    limit_mm,
    inside,
    cells,
    lists,
    kx,
    ky,
    col0,
    row0,
    cols,
    rows,
    border,
    is_area,
    reach_mm,
    pieces,
    zone_piece,
    spheres,
    levels,
    zone_level,
):
    """All pairs whose signed distance is at most ``limit_mm``, by ping, then zone.

    lon_e7, lat_e7 : int32 (n,)
    inside         : int64 (2, k)  ping and zone where a polygon, without its buffer, covers a ping; by ping,
                                   then zone
    border         : float64 (4, p + LANES)  the pieces by columns, see near_plane

    Returns ping int64, zone int32, signed distance int32 mm.
    """
    n = len(lon_e7)
    out_ping = np.empty(n + 16, np.int64)
    out_zone = np.empty(n + 16, np.int32)
    out_mm = np.empty(n + 16, np.int32)
    used = 0
    scratch = np.empty((STACK, 3), np.float64)
    queue = np.empty(BLOCK, np.int64)
    place = np.empty(BLOCK, np.int64)
    counts = np.empty(BLOCK, np.int64)
    lons = np.empty(BLOCK, np.float64)
    lats = np.empty(BLOCK, np.float64)
    planes = np.empty((COLUMNS, BLOCK), np.float64)
    chords2 = np.empty(MAX_PIECES + LANES, np.float64)
    centre = np.zeros((4, LANES), np.float64)
    k_inside = 0
    n_inside = inside.shape[1]
    for begin in range(0, n, BLOCK):
        waiting = _look_up(
            lon_e7,
            lat_e7,
            begin,
            min(n, begin + BLOCK),
            cells,
            lists,
            kx,
            ky,
            col0,
            row0,
            cols,
            rows,
            queue,
            place,
            lons,
            lats,
        )
        pairs = 0
        for j in range(waiting):
            counts[j] = lists[place[j]]
            pairs += counts[j]
        out_ping = room1(out_ping, used, pairs)
        out_zone = room1(out_zone, used, pairs)
        out_mm = room1(out_mm, used, pairs)
        fill_planes(lats, waiting, planes)
        for j in range(waiting):
            i = queue[j]
            fx = lons[j]
            fy = lats[j]
            flat = abs(fy) <= FLAT_LAT
            while k_inside < n_inside and inside[0, k_inside] < i:
                k_inside += 1
            at = place[j] + 1
            for _ in range(counts[j]):
                head = lists[at]
                kind = head & 3
                zone = head >> 2
                at += 1
                while k_inside < n_inside and inside[0, k_inside] == i and inside[1, k_inside] < zone:
                    k_inside += 1
                within = (
                    is_area[zone]
                    and k_inside < n_inside
                    and inside[0, k_inside] == i
                    and inside[1, k_inside] == zone
                )
                reach = np.int64(reach_mm[zone])
                # With half a millimetre more nothing that rounds to the limit is lost; a metre is easier to
                # believe.
                far_m = math.inf if within else (reach + limit_mm) / 1000.0 + 1.0
                mm = np.int64(-1)
                best2 = math.inf
                began = at
                if kind == PIECES:
                    runs = lists[at]
                    at += 1 + 2 * runs
                    if flat:
                        for r in range(began + 1, at, 2):
                            chord2 = quick_chord2(border, lists[r], lists[r + 1], fx, fy, planes, j, chords2)
                            best2 = min(best2, chord2)
                elif kind == CIRCLE:
                    at += 2
                    if flat:
                        centre[0, 0] = lists[began]
                        centre[1, 0] = lists[began + 1]
                        best2 = quick_chord2(centre, 0, 1, fx, fy, planes, j, chords2)
                if best2 <= QUICK_M2:
                    metres = arc_of_chord2(best2)
                    error = error_m(metres, planes[8, j])
                    if metres - error > far_m:
                        continue
                    mm = np.int64(math.floor((metres - error) * 1000.0 + 0.5))
                    if mm != np.int64(math.floor((metres + error) * 1000.0 + 0.5)):
                        mm = -1
                if mm < 0:
                    chord = _defined(
                        lists,
                        began,
                        kind,
                        zone,
                        fx,
                        fy,
                        far_m,
                        pieces,
                        zone_piece,
                        spheres,
                        levels,
                        zone_level,
                        scratch,
                    )
                    if chord == math.inf:
                        continue
                    mm = np.int64(to_mm(arc_m(chord)))
                if within:
                    mm = -mm
                elif is_area[zone]:
                    mm = max(mm, 1)  # 0 is for what a zone covers
                mm -= reach
                if mm <= limit_mm:
                    out_ping[used] = i
                    out_zone[used] = zone
                    out_mm[used] = max(mm, -SATURATED_MM)
                    used += 1
    return out_ping[:used].copy(), out_zone[:used].copy(), out_mm[:used].copy()


@njit(cache=True, nogil=True)
def _look_up(
    lon_e7, lat_e7, begin, end, cells, lists, kx, ky, col0, row0, cols, rows, queue, place, lons, lats
):
    """Queue the pings that have a list: their numbers, the places of their lists, and where they are, in
    +-180 degrees.
    """
    waiting = 0
    for i in range(begin, end):
        x = np.int64(lon_e7[i])
        y = np.int64(lat_e7[i])
        if x > HALF_TURN:
            x -= FULL_TURN
        elif x < -HALF_TURN:
            x += FULL_TURN
        col = (x >> kx) - col0
        row = (y >> ky) - row0
        if col < 0 or col >= cols or row < 0 or row >= rows:
            continue
        w = cells[row * cols + col]
        while w & 3 == IS_GRID:
            g = w >> 2
            col = (x >> lists[g + 1]) & ((1 << lists[g + 3]) - 1)
            row = (y >> lists[g + 2]) & ((1 << lists[g + 4]) - 1)
            w = cells[lists[g] + (row << lists[g + 3]) + col]
        if w == 0:
            continue
        queue[waiting] = i
        place[waiting] = w >> 2
        lons[waiting] = float(x)
        lats[waiting] = float(y)
        waiting += 1
    return waiting


@njit(cache=True, nogil=True)
def _defined(lists, at, kind, zone, fx, fy, far_m, pieces, zone_piece, spheres, levels, zone_level, scratch):
    """The chord, metres, from a position to a zone's border by the definition; infinite where that is beyond
    ``far_m`` and the tree was asked.
    """
    px, py, pz = ecef(fx, fy)
    if kind == CIRCLE:
        qx, qy, qz = ecef(float(lists[at]), float(lists[at + 1]))
        return math.sqrt((px - qx) * (px - qx) + (py - qy) * (py - qy) + (pz - qz) * (pz - qz))
    if kind == PIECES:
        best2 = math.inf
        for r in range(at + 1, at + 1 + 2 * lists[at], 2):
            for p in range(lists[r], lists[r + 1]):
                d2 = chord_to_piece2(
                    pieces[p, 0], pieces[p, 1], pieces[p, 2], pieces[p, 3], fx, fy, px, py, pz
                )
                best2 = min(best2, d2)
        return math.sqrt(best2)
    return nearest_chord(
        pieces,
        zone_piece[zone],
        zone_piece[zone + 1],
        spheres,
        levels,
        zone_level[zone],
        zone_level[zone + 1],
        fx,
        fy,
        px,
        py,
        pz,
        far_m,
        scratch,
    )
