"""Distances of (ping, zone) pairs, and the zones that tracks touch."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geofence._kernels.exact import BOUNDARY, INSIDE, OUTSIDE, locate, segments_touch
from geofence._kernels.geodesy import PIECE_E7, arc_m, chord_to_piece2, ecef, to_mm
from geofence._kernels.sides import side_from_index
from geofence._kernels.tree import STACK, nearest_chord

__all__ = ["pair_distances", "tracks_touch", "tracks_touch_circles"]

MAX_LON = 2_140_000_000
MAX_LAT = 900_000_000
FULL_TURN = 3_600_000_000
HALF_TURN = 1_800_000_000
ALIAS_FROM = 1_460_000_000
MARGIN_E7 = 1_000
SATURATED_MM = 2_000_000_000
NORTH = 1
SOUTH = 2


@njit(cache=True, nogil=True)
def _side(edges, zone_edge, poles, sides, zone, x, y):
    """OUTSIDE, BOUNDARY or INSIDE of a polygon, buffers aside; at a pole all longitudes are one place."""
    if y == MAX_LAT and poles[zone] & NORTH:
        return BOUNDARY
    if y == -MAX_LAT and poles[zone] & SOUTH:
        return BOUNDARY
    found = side_from_index(zone, x, y, *sides)
    if found >= 0:
        return found
    found = locate(edges, zone_edge[zone], zone_edge[zone + 1], x, y)
    if found == OUTSIDE:
        other = x - FULL_TURN if x > 0 else x + FULL_TURN
        if abs(other) <= MAX_LON:
            found = locate(edges, zone_edge[zone], zone_edge[zone + 1], other, y)
    return found


@njit(cache=True, nogil=True)
def _signed(columns, poles, sides, zone, x, y, scratch):
    """Signed distance in metres, and in whole millimetres so that 0 or less means: the zone covers the
    position.
    """
    edges, zone_edge, is_area, reach_mm, pieces, zone_piece, spheres, levels, zone_level = columns
    fx = float(x)
    fy = float(y)
    px, py, pz = ecef(fx, fy)
    chord = nearest_chord(
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
        math.inf,
        scratch,
    )
    metres = arc_m(chord)
    mm = to_mm(metres)
    if is_area[zone]:
        found = _side(edges, zone_edge, poles, sides, zone, x, y)
        if found == OUTSIDE:
            mm = max(mm, 1)
        else:
            mm = -mm
            metres = -metres  # on the border it is 0 already, but for a seam of the map, which is none
    mm -= reach_mm[zone]
    return metres - reach_mm[zone] / 1000.0, max(-SATURATED_MM, min(SATURATED_MM, mm))


@njit(cache=True, nogil=True)
def pair_distances(lon_e7, lat_e7, zone, columns, poles, sides, metres, mm):
    """Signed distances of pairs.

    lon_e7, lat_e7 : int32 (n,)
    zone           : int32 (n,)
    columns        : ZoneColumns.for_distance
    poles          : uint8 (z,)    which poles each polygon touches
    sides          : the words, lists and grid of a cell index without buffers
    metres         : float64 (n,)  written; NaN where there is no fix
    mm             : int32 (n,)    written; saturates at +-2,000,000,000; that, positive, where there is no
                                   fix
    """
    scratch = np.empty((STACK, 3), np.float64)
    for i in range(len(lon_e7)):
        x = np.int64(lon_e7[i])
        y = np.int64(lat_e7[i])
        if abs(x) > MAX_LON or abs(y) > MAX_LAT:
            metres[i] = math.nan
            mm[i] = SATURATED_MM
        else:
            metres[i], mm[i] = _signed(columns, poles, sides, zone[i], x, y, scratch)


@njit(cache=True, nogil=True)
def tracks_touch(ax, ay, bx, by, track, zone, columns, boxes, poles, sides, touch):
    """Whether straight tracks touch zones, pair by pair.

    ax, ay, bx, by : int32 (t,)    the tracks' ends, 1e-7 degree
    track, zone    : int64 (n,)    the pairs
    boxes          : int64 (z, 4)  of all that each zone covers
    touch          : bool (n,)     written; false where an end is no fix

    A track goes the short way round. It touches a zone if an end is covered, if it crosses an edge, or if an
    end of an edge lies within the zone's reach of it: two segments that don't cross are nearest at an end of
    one of them.
    """
    edges = columns[0]
    zone_edge = columns[1]
    is_area = columns[2]
    reach_mm = columns[3]
    scratch = np.empty((STACK, 3), np.float64)
    for i in range(len(track)):
        t = track[i]
        z = zone[i]
        x0 = np.int64(ax[t])
        y0 = np.int64(ay[t])
        x1 = np.int64(bx[t])
        y1 = np.int64(by[t])
        touch[i] = False
        if max(abs(x0), abs(x1)) > MAX_LON or max(abs(y0), abs(y1)) > MAX_LAT:
            continue
        if _apart(x0, y0, x1, y1, boxes[z, 0], boxes[z, 1], boxes[z, 2], boxes[z, 3]):
            continue
        if is_area[z] and reach_mm[z] == 0:
            # no distance is needed: without a buffer a polygon covers what lies on its side
            covered = (
                _side(edges, zone_edge, poles, sides, z, x0, y0) != OUTSIDE
                or _side(edges, zone_edge, poles, sides, z, x1, y1) != OUTSIDE
            )
        else:
            _, start_mm = _signed(columns, poles, sides, z, x0, y0, scratch)
            covered = start_mm <= 0
            if not covered:
                _, stop_mm = _signed(columns, poles, sides, z, x1, y1, scratch)
                covered = stop_mm <= 0
        if covered:
            touch[i] = True
            continue
        x1 = _short_way(x0, x1)
        first = zone_edge[z]
        last = zone_edge[z + 1]
        touch[i] = _crosses(edges, first, last, x0, y0, x1, y1) or (
            reach_mm[z] > 0 and _passes(edges, first, last, reach_mm[z], x0, y0, x1, y1)
        )


@njit(cache=True, nogil=True)
def tracks_touch_circles(ax, ay, bx, by, track, zone, boxes, touch):
    """``tracks_touch`` of circles, from their centres and radii alone.

    boxes : BOX (z,), see geofence.boxes
    touch : bool (n,)  written; left as it is where the zone is no circle
    """
    centre = np.empty((1, 4), np.int32)
    for i in range(len(track)):
        box = boxes[zone[i]]
        if not box.is_circle:
            continue
        t = track[i]
        x0 = np.int64(ax[t])
        y0 = np.int64(ay[t])
        x1 = np.int64(bx[t])
        y1 = np.int64(by[t])
        touch[i] = False
        if max(abs(x0), abs(x1)) > MAX_LON or max(abs(y0), abs(y1)) > MAX_LAT:
            continue
        qx, qy, qz = ecef(float(box.west), float(box.south))
        for end in range(2):
            px, py, pz = ecef(float(x1 if end else x0), float(y1 if end else y0))
            chord = math.sqrt((px - qx) * (px - qx) + (py - qy) * (py - qy) + (pz - qz) * (pz - qz))
            if to_mm(arc_m(chord)) <= box.reach_mm:
                touch[i] = True
        if not touch[i]:
            centre[0, 0] = centre[0, 2] = box.west
            centre[0, 1] = centre[0, 3] = box.south
            touch[i] = _passes(centre, 0, 1, box.reach_mm, x0, y0, _short_way(x0, x1), y1)


@njit(cache=True, nogil=True)
def _short_way(x0, x1):
    """x1 under the name that is not more than half a turn from x0."""
    if x1 - x0 > HALF_TURN:
        return x1 - FULL_TURN
    if x0 - x1 > HALF_TURN:
        return x1 + FULL_TURN
    return x1


@njit(cache=True, nogil=True)
def _apart(x0, y0, x1, y1, west, south, east, north):
    """Whether the boxes of a track and of all that a zone covers are clearly apart. All int64.

    Then they share no place: the track is straight in longitude and latitude, so it stays in its box. Places
    with a second name (past +-146 degrees) and the poles, where all longitudes are one place, are left to the
    exact answer; so is what is less than MARGIN_E7 apart, which is far more than boxes are rounded by.
    """
    if max(abs(x0), abs(x1)) >= ALIAS_FROM or max(y0, y1) == MAX_LAT or min(y0, y1) == -MAX_LAT:
        return False
    if west <= -ALIAS_FROM or east >= ALIAS_FROM:
        return False
    return (
        max(x0, x1) < west - MARGIN_E7
        or min(x0, x1) > east + MARGIN_E7
        or max(y0, y1) < south - MARGIN_E7
        or min(y0, y1) > north + MARGIN_E7
    )


@njit(cache=True, nogil=True)
def _crosses(edges, first, last, x0, y0, x1, y1):
    """Whether a track shares a place with an edge, under any of its longitudes. All int64."""
    for turn in range(-1, 2):
        u0 = x0 + turn * FULL_TURN
        u1 = x1 + turn * FULL_TURN
        if max(u0, u1) < -MAX_LON or min(u0, u1) > MAX_LON:
            continue
        for e in range(first, last):
            ex = np.int64(edges[e, 0])
            fx = np.int64(edges[e, 2])
            # Beside each other in longitude they can't touch; else all lies within 2 * 428 degrees of
            # longitude, so
            # no product exceeds 1.8e9 * 4.28e9 (see exact).
            if max(u0, u1) < min(ex, fx) or min(u0, u1) > max(ex, fx):
                continue
            if segments_touch(u0, y0, u1, y1, ex, np.int64(edges[e, 1]), fx, np.int64(edges[e, 3])):
                return True
    return False


@njit(cache=True, nogil=True)
def _passes(edges, first, last, reach_mm, x0, y0, x1, y1):
    """Whether an end of an edge lies within reach of a track."""
    steps = 1 + max(abs(x1 - x0), abs(y1 - y0)) // PIECE_E7
    dx = (x1 - x0) / steps
    dy = (y1 - y0) / steps
    for e in range(first, last):
        for k in range(2):
            x = float(edges[e, 2 * k])
            y = float(edges[e, 2 * k + 1])
            px, py, pz = ecef(x, y)
            for s in range(steps):
                d2 = chord_to_piece2(x0 + s * dx, y0 + s * dy, dx, dy, x, y, px, py, pz)
                if to_mm(arc_m(math.sqrt(d2))) <= reach_mm:
                    return True
    return False


assert INSIDE > BOUNDARY > OUTSIDE
