"""Build the index of ``near``: which pieces of which borders can be the nearest to some position of a cell.

A block of cells is halved with the pieces that are left in it until it is one cell. What is left there are
the pieces whose Voronoi cells meet it, and few others: two or three, wherever the border is.

A list: how many zones, and for each zone << 2 | kind, then
PIECES  how many runs, and of each its first piece and the one after its last
CIRCLE  x, y of the centre
TREE    nothing: the pieces are many or far away, use the tree of spheres
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geofence._kernels.exact import OUTSIDE
from geofence._kernels.geodesy import chord_of_arc_m, ecef
from geofence._kernels.lists import IS_LIST
from geofence._kernels.near_thin import QUARTER_TURN, corners_of, segment_of, thin
from geofence._kernels.raster import (
    CIRCLE,
    ENTRY_COLUMNS,
    SLACK_M,
    half_diagonal_m,
    reach_box,
    room1,
    room2,
    write_entry,
)
from geofence._kernels.sides import side_from_index
from geofence._kernels.tree import FANOUT, STACK, nearest_chord, sphere_bound

__all__ = ["MAX_PIECES", "PIECES", "TREE", "pack_near", "rasterise_near"]

PIECES = 0
TREE = 3
MAX_PIECES = 1000  # by vectors these cost what the tree does
FAR_M = 200_000.0  # near_plane is no bound for what is farther away


@njit(cache=True, nogil=True)
def rasterise_near(
    zones,
    limit_mm,
    boxes,
    is_circle,
    is_area,
    reach_mm,
    pieces,
    zone_piece,
    spheres,
    levels,
    zone_level,
    side_cells,
    side_lists,
    side_kx,
    side_ky,
    side_col0,
    side_row0,
    side_cols,
    side_rows,
    kx,
    ky,
    col0,
    row0,
    cols,
    rows,
):
    """Entries (see raster) of the zones within ``limit_mm`` of the cells of a grid, and int32 their pool of
    runs.

    zones   : int32 (s,)
    boxes   : int64 (z, 4)  of all that each zone covers
    side_*  : a cell index of the polygons without their buffers

    An entry of pieces has the place of its runs in the pool and how many there are, and how many pieces.
    """
    entries = np.empty((1024, ENTRY_COLUMNS), np.int64)
    used = 0
    pool = np.empty(4096, np.int32)
    pool_used = 0
    stack = np.empty((256, 7), np.int64)
    scratch = np.empty((STACK, 3), np.float64)
    corners = np.empty((5, 3), np.float64)
    arena = np.empty(4096, np.int32)
    segments = np.empty((1024, 8), np.float64)
    bounds = np.empty((1024, 9), np.float64)
    for s in range(len(zones)):
        zone = zones[s]
        limit = chord_of_arc_m((reach_mm[zone] + limit_mm) / 1000.0)
        first = zone_piece[zone]
        last = zone_piece[zone + 1]
        if first == last:
            continue
        west, south, east, north = reach_box(pieces, first, last, limit)
        # (what lies around a pole is inside of a border that comes nowhere near it)
        south = min(south, boxes[zone, 1])
        north = max(north, boxes[zone, 3])
        c_first = max((west >> kx) - col0, 0)
        c_last = min((east >> kx) - col0, cols - 1)
        r_first = max((south >> ky) - row0, 0)
        r_last = min((north >> ky) - row0, rows - 1)
        if c_first > c_last or r_first > r_last:
            continue
        x, y, extent = _middle(c_first, r_first, c_last + 1, r_last + 1, kx, ky, col0, row0)
        px, py, pz = ecef(x, y)
        chord = nearest_chord(
            pieces,
            first,
            last,
            spheres,
            levels,
            zone_level[zone],
            zone_level[zone + 1],
            x,
            y,
            px,
            py,
            pz,
            math.inf,
            scratch,
        )
        arena, count = _gather(
            spheres,
            levels,
            zone_level[zone],
            zone_level[zone + 1],
            px,
            py,
            pz,
            chord + 2.0 * extent + SLACK_M,
            arena,
        )
        segments = room2(segments, 0, count)
        bounds = room2(bounds, 0, count)
        for i in range(count):
            segment_of(pieces, first + arena[i], segments, i)
            # the pieces in hand are numbered as the segments; sphere_bound's order is that of the pieces
            bounds[i, 8] = first + arena[i]
            arena[i] = i
        numbers = bounds[:count, 8].copy()
        stack[0] = (c_first, r_first, c_last + 1, r_last + 1, 0, 0, count)
        depth = 1
        while depth > 0:
            depth -= 1
            c0, r0, c1, r1, deep, begin, count = (
                stack[depth, 0],
                stack[depth, 1],
                stack[depth, 2],
                stack[depth, 3],
                stack[depth, 4],
                stack[depth, 5],
                stack[depth, 6],
            )
            single = c1 - c0 == 1 and r1 - r0 == 1
            sag = corners_of(c0, r0, c1, r1, kx, ky, col0, row0, corners)
            arena = room1(arena, begin + count, count)
            mine = begin + count
            count, least, most = thin(segments, arena, begin, count, mine, corners, sag, bounds, single)
            if deep == 0 and least - sag - SLACK_M > limit:
                if not is_area[zone]:
                    continue
                x, y, _ = _middle(c0, r0, c1, r1, kx, ky, col0, row0)
                if (
                    side_from_index(
                        zone,
                        int(x),
                        int(y),
                        side_cells,
                        side_lists,
                        side_kx,
                        side_ky,
                        side_col0,
                        side_row0,
                        side_cols,
                        side_rows,
                    )
                    == OUTSIDE
                ):
                    continue
                deep = 1
            if not single:
                cm = (c0 + c1 + 1) // 2 if c1 - c0 > 1 else c1
                rm = (r0 + r1 + 1) // 2 if r1 - r0 > 1 else r1
                stack[depth] = (c0, r0, cm, rm, deep, mine, count)
                depth += 1
                if cm < c1:
                    stack[depth] = (cm, r0, c1, rm, deep, mine, count)
                    depth += 1
                if rm < r1:
                    stack[depth] = (c0, rm, cm, r1, deep, mine, count)
                    depth += 1
                if cm < c1 and rm < r1:
                    stack[depth] = (cm, rm, c1, r1, deep, mine, count)
                    depth += 1
                continue
            entries = room2(entries, used, 1)
            cell = r0 * cols + c0
            if is_circle[zone]:
                write_entry(entries, used, cell, zone, CIRCLE, 0, 0, 0, 0, 0)
            elif count > MAX_PIECES or most > FAR_M:
                write_entry(entries, used, cell, zone, TREE, 0, 0, 0, 0, 0)
            else:
                pool = room1(pool, pool_used, 2 * count)
                runs = _as_runs(arena, mine, count, numbers, pool, pool_used)
                write_entry(entries, used, cell, zone, PIECES, pool_used, runs, count, 0, 0)
                pool_used += 2 * runs
            used += 1
    return entries[:used].copy(), pool[:pool_used].copy()


@njit(cache=True, nogil=True)
def _middle(c0, r0, c1, r1, kx, ky, col0, row0):
    """The middle of a block of cells, whole counts as float64, and at least the distance from there to any
    place of it, metres.
    """
    w = float((c0 + col0) << kx)
    e = float(((c1 + col0) << kx) - 1)
    b = float((r0 + row0) << ky)
    t = float(((r1 + row0) << ky) - 1)
    # (a block of cells may reach past a pole)
    y = min(max(math.floor(0.5 * (b + t)), -QUARTER_TURN), QUARTER_TURN)
    return math.floor(0.5 * (w + e)), y, half_diagonal_m(w, b, e, t)


@njit(cache=True, nogil=True)
def _gather(spheres, levels, level_first, level_last, px, py, pz, limit, found):
    """The numbers of the pieces whose spheres come within ``limit``, counted from the zone's first,
    ascending; and how many there are.
    """
    node = np.empty(8 * 12, np.int64)
    height = np.empty(8 * 12, np.int64)
    top = level_last - 2 - level_first
    node[0] = levels[level_first + top]
    height[0] = top
    depth = 1
    count = 0
    while depth > 0:
        depth -= 1
        i = node[depth]
        h = height[depth]
        if sphere_bound(spheres, i, px, py, pz) > limit:
            continue
        if h == 0:
            found = room1(found, count, 1)
            found[count] = i - levels[level_first]
            count += 1
            continue
        below = levels[level_first + h - 1]
        begin = below + (i - levels[level_first + h]) * FANOUT
        for c in range(min(begin + FANOUT, levels[level_first + h]) - 1, begin - 1, -1):
            node[depth] = c
            height[depth] = h - 1
            depth += 1
    return found, count


@njit(cache=True, nogil=True)
def _as_runs(arena, begin, count, numbers, pool, at):
    """Write runs of consecutive pieces, first and one after the last; how many."""
    runs = 0
    for i in range(begin, begin + count):
        p = int(numbers[arena[i]])
        if runs > 0 and pool[at + 2 * runs - 1] == p:
            pool[at + 2 * runs - 1] = p + 1
        else:
            pool[at + 2 * runs] = p
            pool[at + 2 * runs + 1] = p + 1
            runs += 1
    return runs


@njit(cache=True, nogil=True)
def pack_near(entries, begins, pool, centres, base, heavy):
    """Words of cells (see lists) and the lists in this module's form; and the cells with more than ``heavy``
    zones.
    """
    n_cells = len(begins) - 1
    cells = np.zeros(n_cells, np.int32)
    words = n_cells
    n_heavy = 0
    for c in range(n_cells):
        if begins[c + 1] - begins[c] > heavy:
            n_heavy += 1
    for i in range(len(entries)):
        words += 3 + 2 * entries[i, 4]
    lists = np.empty(words, np.int32)
    too_heavy = np.empty(n_heavy, np.int64)
    n_heavy = 0
    used = 0
    for c in range(n_cells):
        first = begins[c]
        last = begins[c + 1]
        if first == last:
            continue
        if last - first > heavy:
            too_heavy[n_heavy] = c
            n_heavy += 1
            continue
        cells[c] = ((base + used) << 2) | IS_LIST
        lists[used] = last - first
        used += 1
        for i in range(first, last):
            kind = entries[i, 2]
            zone = entries[i, 1]
            lists[used] = (zone << 2) | kind
            used += 1
            if kind == PIECES:
                lists[used] = entries[i, 4]
                used += 1
                for k in range(entries[i, 3], entries[i, 3] + 2 * entries[i, 4]):
                    lists[used] = pool[k]
                    used += 1
            elif kind == CIRCLE:
                lists[used] = centres[zone, 0]
                lists[used + 1] = centres[zone, 1]
                used += 2
    return cells, lists[:used].copy(), too_heavy
