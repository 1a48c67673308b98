"""Which zones lie within reach of which pings, and how far away.

A second grid lists, for each cell and each zone within reach of it, the pieces of the zone's border that can
be the
nearest to some position of the cell. With d the distance from the cell's middle to the border and r that
to the cell's corners, these are the pieces within d + 2 r of the middle (the triangle inequality, twice).
A query compares them on a plane, and measures exactly those that the plane's error leaves in doubt.

An entry of a list: zone << 2 | kind, then
PIECES  how many pieces, and their numbers
CIRCLE  x, y of the centre
TREE    nothing: the pieces are many, use the tree of spheres
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geofence._kernels.exact import OUTSIDE
from geofence._kernels.geodesy import (
    E2,
    RADIANS_PER_E7,
    SEMI_MAJOR_M,
    arc_m,
    chord_of_arc_m,
    chord_to_piece2,
    ecef,
    sin_cos,
    to_mm,
)
from geofence._kernels.lists import IS_GRID, IS_LIST
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

__all__ = ["near", "pack_near", "rasterise_near"]

PIECES = 0
TREE = 3
MAX_PIECES = 48  # a longer list costs more than the tree
FLAT_M = 30_000.0  # beyond this, or nearer to a pole than FLAT_LAT, nothing is decided on a plane
FLAT_LAT = 750_000_000
FULL_TURN = 3_600_000_000
HALF_TURN = 1_800_000_000
QUARTER_TURN = 900_000_000
ALIAS_FROM = 1_460_000_000
EARTH_M = 6_335_000.0  # the smallest radius of curvature
SATURATED_MM = 2_000_000_000


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
    pieces.

    zones   : int32 (s,)
    boxes   : int64 (z, 4)  of all that each zone covers
    side_*  : a cell index of the polygons without their buffers
    """
    entries = np.empty((1024, ENTRY_COLUMNS), np.int64)
    used = 0
    pool = np.empty(4096, np.int32)
    pool_used = 0
    stack = np.empty((256, 5), np.int64)
    scratch = np.empty((STACK, 3), np.float64)
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
        stack[0] = (c_first, r_first, c_last + 1, r_last + 1, 0)
        depth = 1
        while depth > 0:
            depth -= 1
            c0, r0, c1, r1, deep = (
                stack[depth, 0],
                stack[depth, 1],
                stack[depth, 2],
                stack[depth, 3],
                stack[depth, 4],
            )
            w = float((c0 + col0) << kx)
            e = float(((c1 + col0) << kx) - 1)
            b = float((r0 + row0) << ky)
            t = float(((r1 + row0) << ky) - 1)
            x = math.floor(0.5 * (w + e))
            # (a block of cells may reach past a pole)
            y = min(max(math.floor(0.5 * (b + t)), -QUARTER_TURN), QUARTER_TURN)
            px, py, pz = ecef(x, y)
            extent = half_diagonal_m(w, b, e, t)
            single = c1 - c0 == 1 and r1 - r0 == 1
            chord = -1.0
            if deep == 0:
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
                    limit + extent + SLACK_M,
                    scratch,
                )
                if chord == math.inf:
                    if not is_area[zone]:
                        continue
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
                stack[depth] = (c0, r0, cm, rm, deep)
                depth += 1
                if cm < c1:
                    stack[depth] = (cm, r0, c1, rm, deep)
                    depth += 1
                if rm < r1:
                    stack[depth] = (c0, rm, cm, r1, deep)
                    depth += 1
                if cm < c1 and rm < r1:
                    stack[depth] = (cm, rm, c1, r1, deep)
                    depth += 1
                continue
            entries = room2(entries, used, 1)
            cell = r0 * cols + c0
            if is_circle[zone]:
                write_entry(entries, used, cell, zone, CIRCLE, 0, 0, 0, 0, 0)
                used += 1
                continue
            if deep == 1:
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
            pool = room1(pool, pool_used, MAX_PIECES)
            count = _gather(
                spheres,
                levels,
                zone_level[zone],
                zone_level[zone + 1],
                first,
                px,
                py,
                pz,
                chord + 2.0 * extent + SLACK_M,
                pool,
                pool_used,
            )
            if count < 0:
                write_entry(entries, used, cell, zone, TREE, 0, 0, 0, 0, 0)
            else:
                write_entry(entries, used, cell, zone, PIECES, pool_used, count, 0, 0, 0)
                pool_used += count
            used += 1
    return entries[:used].copy(), pool[:pool_used].copy()


@njit(cache=True, nogil=True)
def _gather(spheres, levels, level_first, level_last, first, px, py, pz, limit, pool, at):
    """Write the numbers of the pieces whose spheres come within ``limit``; how many, -1: more than
    MAX_PIECES.
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
            if count == MAX_PIECES:
                return -1
            pool[at + count] = first + i - levels[level_first]
            count += 1
            continue
        below = levels[level_first + h - 1]
        begin = below + (i - levels[level_first + h]) * FANOUT
        for c in range(min(begin + FANOUT, levels[level_first + h]) - 1, begin - 1, -1):
            node[depth] = c
            height[depth] = h - 1
            depth += 1
    return count


@njit(cache=True, nogil=True)
def pack_near(entries, begins, pool, centres, base, heavy):
    """Words of cells (see lists) and the lists in this module's form; and the cells with more than ``heavy``
    zones.
    """
    n_cells = len(begins) - 1
    cells = np.zeros(n_cells, np.int32)
    words = 0
    n_heavy = 0
    for c in range(n_cells):
        if begins[c + 1] - begins[c] > heavy:
            n_heavy += 1
    words = n_cells + 3 * len(entries)
    for i in range(len(entries)):
        words += entries[i, 4]
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
                for k in range(entries[i, 3], entries[i, 3] + entries[i, 4]):
                    lists[used] = pool[k]
                    used += 1
            elif kind == CIRCLE:
                lists[used] = centres[zone, 0]
                lists[used + 1] = centres[zone, 1]
                used += 2
    return cells, lists[:used].copy(), too_heavy


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

    Returns ping int64, zone int32, signed distance int32 mm.
    """
    n = len(lon_e7)
    room = n + 16
    out_ping = np.empty(room, np.int64)
    out_zone = np.empty(room, np.int32)
    out_mm = np.empty(room, np.int32)
    used = 0
    planar = np.empty(MAX_PIECES, np.float64)
    scratch = np.empty((STACK, 3), np.float64)
    k_inside = 0
    n_inside = inside.shape[1]
    for i in range(n):
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
        fx = float(x)
        fy = float(y)
        sin_lat, cos_lat = sin_cos(fy)
        sin_lon, cos_lon = sin_cos(fx)
        w2 = 1.0 - E2 * sin_lat * sin_lat
        normal = SEMI_MAJOR_M / math.sqrt(w2)
        px = normal * cos_lat * cos_lon
        py = normal * cos_lat * sin_lon
        pz = normal * (1.0 - E2) * sin_lat
        x_m = normal * cos_lat * RADIANS_PER_E7
        y_m = normal * (1.0 - E2) / w2 * RADIANS_PER_E7
        flat = abs(y) <= FLAT_LAT
        # how much a plane may be wrong per metre of distance, doubled: the parallels' shrinking, and the
        # bulge
        doubt = 4.0 * (1.0 + abs(sin_lat) / max(cos_lat, 1e-9)) / EARTH_M
        while k_inside < n_inside and inside[0, k_inside] < i:
            k_inside += 1
        at = w >> 2
        count = lists[at]
        at += 1
        if used + count > room:
            room = 2 * room + count
            out_ping = _longer(out_ping, used, room)
            out_zone = _longer(out_zone, used, room)
            out_mm = _longer(out_mm, used, room)
        for _ in range(count):
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
            far_m = (reach + limit_mm) / 1000.0 + 1.0
            if kind == CIRCLE:
                cx, cy, cz = ecef(float(lists[at]), float(lists[at + 1]))
                at += 2
                chord = math.sqrt((px - cx) * (px - cx) + (py - cy) * (py - cy) + (pz - cz) * (pz - cz))
            elif kind == PIECES:
                m = lists[at]
                at += 1
                least = math.inf
                if flat and m > 1:
                    for k in range(m):
                        p = lists[at + k]
                        ux = pieces[p, 0] - fx
                        if ux > HALF_TURN:
                            ux -= FULL_TURN
                        elif ux < -HALF_TURN:
                            ux += FULL_TURN
                        ux *= x_m
                        uy = (pieces[p, 1] - fy) * y_m
                        vx = pieces[p, 2] * x_m
                        vy = pieces[p, 3] * y_m
                        length2 = vx * vx + vy * vy
                        along = -(ux * vx + uy * vy)
                        if length2 > 0.0:
                            share = min(1.0, max(0.0, along / length2))
                            ux += share * vx
                            uy += share * vy
                        d2 = ux * ux + uy * uy
                        planar[k] = d2
                        least = min(least, d2)
                best2 = math.inf
                if least < FLAT_M * FLAT_M:
                    least = math.sqrt(least)
                    margin = 1.0 + doubt * least + 1e-6
                    bound = least * margin + 0.001
                    if not within and least > far_m * margin:
                        at += m
                        continue
                    bound *= bound
                    for k in range(m):
                        if planar[k] <= bound:
                            p = lists[at + k]
                            d2 = chord_to_piece2(
                                pieces[p, 0], pieces[p, 1], pieces[p, 2], pieces[p, 3], fx, fy, px, py, pz
                            )
                            best2 = min(best2, d2)
                else:
                    for k in range(m):
                        p = lists[at + k]
                        d2 = chord_to_piece2(
                            pieces[p, 0], pieces[p, 1], pieces[p, 2], pieces[p, 3], fx, fy, px, py, pz
                        )
                        best2 = min(best2, d2)
                at += m
                chord = math.sqrt(best2)
            else:
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
                    math.inf if within else far_m,
                    scratch,
                )
                if chord == math.inf:
                    continue
            mm = to_mm(arc_m(chord))
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
def _longer(column, used, room):
    longer = np.empty(room, column.dtype)
    longer[:used] = column[:used]
    return longer
