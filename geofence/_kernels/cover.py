"""Which zones cover which pings, from the cell index."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geofence._kernels.exact import OUTSIDE, locate, side
from geofence._kernels.geodesy import arc_m, ecef, to_mm
from geofence._kernels.lists import IS_GRID, IS_ZONE
from geofence._kernels.raster import CIRCLE, COVER, EDGES
from geofence._kernels.tree import STACK, nearest_chord

__all__ = ["cover"]

BLOCK = 2048  # words of a block and its pings stay in the first-level cache between the two passes


@njit(cache=True, nogil=True)
def _asked(
    x, y, zone, edges, zone_edge, is_area, reach_mm, pieces, zone_piece, spheres, levels, zone_level, scratch
):
    """Whether a zone covers a position, answered from the zone's own columns."""
    if is_area[zone] and locate(edges, zone_edge[zone], zone_edge[zone + 1], x, y) != OUTSIDE:
        return True
    reach = reach_mm[zone]
    if reach == 0:
        return False
    px, py, pz = ecef(float(x), float(y))
    chord = nearest_chord(
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
        reach / 1000.0 + 1.0,
        scratch,
    )
    return chord < math.inf and to_mm(arc_m(chord)) <= reach


@njit(cache=True, nogil=True)
def _in_cell_of(lists, at, x, y):
    """Whether a polygon covers a position of a cell; the entry's second word is at ``at``.

    Parity of the crossings of the segment to the reference, see raster.reference_state. The reference lies
    to the left
    of every edge, so a position to the left of an edge crosses nothing of it: about half of them.
    """
    count = lists[at] >> 1
    inside = lists[at] & 1
    rx = np.int64(lists[at + 1])
    ry = np.int64(lists[at + 2])
    at += 3
    for _ in range(count):
        ax = np.int64(lists[at])
        ay = np.int64(lists[at + 1])
        bx = np.int64(lists[at + 2])
        by = np.int64(lists[at + 3])
        at += 4
        p = side(ax, ay, bx, by, x, y)
        if p > 0:
            continue
        if p == 0:
            if min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by):
                return True
            continue
        if (side(x, y, rx, ry, ax, ay) >= 0) != (side(x, y, rx, ry, bx, by) >= 0):
            inside = 1 - inside
    return inside == 1


@njit(cache=True, nogil=True)
def cover(
    lon_e7,
    lat_e7,
    first_ping,
    cells,
    lists,
    kx,
    ky,
    col0,
    row0,
    cols,
    rows,
    edges,
    zone_edge,
    is_area,
    reach_mm,
    pieces,
    zone_piece,
    spheres,
    levels,
    zone_level,
):
    """Pairs of ping and zone, by ping, then zone.

    lon_e7, lat_e7 : int32 (n,)
    first_ping     : added to every ping's number
    cells, lists   : int32, see geofence._kernels.lists
    kx .. rows     : the top grid, see geofence._kernels.raster
    others         : the zones' own columns, for entries that ask them

    Returns int64 (2, room) and how many of its columns are used.
    """
    n = len(lon_e7)
    room = n + n // 4 + 16
    found = np.empty((2, room), np.int64)
    used = 0
    word = np.empty(BLOCK, np.int32)
    ping = np.empty(BLOCK, np.int32)
    scratch = np.empty((STACK, 3), np.float64)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        # First pass: one word for each ping, those of no zone dropped without a branch.
        busy = 0
        for i in range(start, stop):
            col = (lon_e7[i] >> kx) - col0
            row = (lat_e7[i] >> ky) - row0
            at = row * cols + col if 0 <= col < cols and 0 <= row < rows else 0
            w = cells[at] if 0 <= col < cols and 0 <= row < rows else np.int32(0)
            word[busy] = w
            ping[busy] = i
            busy += int(w != 0)
        for b in range(busy):
            w = word[b]
            i = int(ping[b])
            if used == room:
                room = 2 * room
                longer = np.empty((2, room), np.int64)
                longer[:, :used] = found[:, :used]
                found = longer
            if w & 3 == IS_ZONE:
                found[0, used] = first_ping + i
                found[1, used] = w >> 2
                used += 1
                continue
            x = np.int64(lon_e7[i])
            y = np.int64(lat_e7[i])
            while w & 3 == IS_GRID:
                g = w >> 2
                col = (x >> lists[g + 1]) & ((1 << lists[g + 3]) - 1)
                row = (y >> lists[g + 2]) & ((1 << lists[g + 4]) - 1)
                w = cells[lists[g] + (row << lists[g + 3]) + col]
            if w == 0:
                continue
            if w & 3 == IS_ZONE:
                found[0, used] = first_ping + i
                found[1, used] = w >> 2
                used += 1
                continue
            at = w >> 2
            count = lists[at]
            at += 1
            if used + count > room:
                room = 2 * room + count
                longer = np.empty((2, room), np.int64)
                longer[:, :used] = found[:, :used]
                found = longer
            for _ in range(count):
                head = lists[at]
                kind = head & 3
                at += 1
                if kind == COVER:
                    hit = True
                elif kind == EDGES:
                    hit = _in_cell_of(lists, at, x, y)
                    at += 3 + 4 * (lists[at] >> 1)
                elif kind == CIRCLE:
                    px, py, pz = ecef(float(x), float(y))
                    cx, cy, cz = ecef(float(lists[at]), float(lists[at + 1]))
                    d2 = (px - cx) ** 2 + (py - cy) ** 2 + (pz - cz) ** 2
                    hit = to_mm(arc_m(math.sqrt(d2))) <= lists[at + 2]
                    at += 3
                else:
                    hit = _asked(
                        x,
                        y,
                        head >> 2,
                        edges,
                        zone_edge,
                        is_area,
                        reach_mm,
                        pieces,
                        zone_piece,
                        spheres,
                        levels,
                        zone_level,
                        scratch,
                    )
                found[0, used] = first_ping + i
                found[1, used] = head >> 2
                used += int(hit)
    return found, used
