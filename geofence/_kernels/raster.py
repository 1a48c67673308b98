"""Build the cell index: which zones concern which cells, and with which edges.

Rasterising turns zones into entries of the top grid, one for each (cell, zone) that matters:

COVER   every position of the cell is in the zone
EDGES   some edges touch the cell; with the state of a reference position inside the cell
CIRCLE  the rim of a circle crosses the cell
ASK     a corridor's or a buffer's rim crosses the cell: measure; with the polygon's own edges that touch the
        cell, as for EDGES, or with WHOLE edges: no reference position was found, look at all of them

How a cell is divided further is told in geofence._kernels.nodes.

Cells are half-open boxes whose size is a power of two, aligned to multiples of it, so that a cell is a shift.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geofence._kernels.exact import BOUNDARY, INSIDE, side
from geofence._kernels.geodesy import RADIANS_PER_E7, chord_of_arc_m, ecef
from geofence._kernels.tree import STACK, nearest_chord

__all__ = [
    "ASK",
    "CIRCLE",
    "COVER",
    "EDGES",
    "ENTRY_COLUMNS",
    "SLACK_M",
    "WHOLE",
    "grow_boxes",
    "half_diagonal_m",
    "rasterise_areas",
    "rasterise_reaches",
    "reach_box",
    "reference_state",
    "room1",
    "room2",
    "touches",
    "write_entry",
]

COVER = 0
EDGES = 1
CIRCLE = 2
ASK = 3
WHOLE = -1
ENTRY_COLUMNS = (
    8  # cell, zone, kind, first in the pool of edges, how many, state of the reference, its x, its y
)

SLACK_M = 0.01  # far above the rounding of any distance here, far below what a cell list notices
MAX_RADIUS_M = 6_400_000.0  # no radius of curvature of the ellipsoid is larger
TRIES = 48


@njit(cache=True, nogil=True)
def room2(array, used, more):
    """The array, or a copy twice as long, with room for ``more`` rows after ``used``."""
    if used + more <= len(array):
        return array
    longer = np.empty((2 * (used + more), array.shape[1]), array.dtype)
    longer[:used] = array[:used]
    return longer


@njit(cache=True, nogil=True)
def room1(array, used, more):
    if used + more <= len(array):
        return array
    longer = np.empty(2 * (used + more), array.dtype)
    longer[:used] = array[:used]
    return longer


@njit(cache=True, nogil=True)
def _x_at(ax, ay, bx, by, y):
    """The longitude, rounded down, at which the line a->b (not level) crosses a latitude on it. All int64.

    (bx - ax) * (y - ay) is at most 1.8e9 * 1.8e9 = 3.24e18: edges are at most 180 degrees either way.
    """
    return ax + (bx - ax) * (y - ay) // (by - ay)


@njit(cache=True, nogil=True)
def reference_state(edges, pool, first, count, rx, ry, inside, x, y):
    """OUTSIDE, BOUNDARY or INSIDE of a position in the cell of a reference position; all int64.

    The segment from the position to the reference stays in the cell, so the cell's edges are all it can
    cross. It crosses an edge if the ends of each lie strictly on either side of the other; an end of an edge
    on the segment's line counts as lying to its left, so a border through a vertex is counted once. The
    reference lies on no edge's line.
    """
    for k in range(first, first + count):
        e = np.int64(pool[k])
        ax = np.int64(edges[e, 0])
        ay = np.int64(edges[e, 1])
        bx = np.int64(edges[e, 2])
        by = np.int64(edges[e, 3])
        p = side(ax, ay, bx, by, x, y)
        if p == 0:
            if min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by):
                return BOUNDARY
            continue
        if p == side(ax, ay, bx, by, rx, ry):
            continue
        if (side(x, y, rx, ry, ax, ay) >= 0) != (side(x, y, rx, ry, bx, by) >= 0):
            inside = 1 - inside
    return INSIDE if inside else 0


@njit(cache=True, nogil=True)
def _row_line(edges, keys, first, last, low, size):
    """A latitude in a row of cells on which no edge of the row lies level: the middle, or near it."""
    middle = low + size // 2
    for shift in range(min(size, TRIES)):
        y = middle + (shift // 2 + 1 if shift & 1 else -(shift // 2))
        if y < low or y >= low + size:
            continue
        free = True
        for k in range(first, last):
            e = keys[k] & 0xFFFFFFFF
            if np.int64(edges[e, 1]) == y and np.int64(edges[e, 3]) == y:
                free = False
                break
        if free:
            return y
    return middle


@njit(cache=True, nogil=True)
def _reference_x(edges, keys, first, last, low, size, y):
    """A longitude in the cell at which (x, y) lies on the line of none of its edges; -2**62: none was
    found.
    """
    middle = low + size // 2
    for attempt in range(TRIES):
        x = middle + ((attempt + 1) // 2) * (1 if attempt & 1 else -1) * max(1, size // 61)
        if x < low or x >= low + size:
            continue
        free = True
        for k in range(first, last):
            e = keys[k] & 0xFFFFFFFF
            if (
                side(
                    np.int64(edges[e, 0]),
                    np.int64(edges[e, 1]),
                    np.int64(edges[e, 2]),
                    np.int64(edges[e, 3]),
                    x,
                    y,
                )
                == 0
            ):
                free = False
                break
        if free:
            return x
    return -(1 << 62)


@njit(cache=True, nogil=True)
def touches(ax, ay, bx, by, west, south, east, north):
    """Whether a segment has a place in common with a closed box. Exact; all int64.

    A segment and a box that are apart have a separating line along a side of the box or along the segment.
    Callers ask only where the segment's box comes within a cell of the box, so a difference is at most
    180 degrees and the width of a cell: products as in geofence._kernels.exact.
    """
    if max(ax, bx) < west or min(ax, bx) > east or max(ay, by) < south or min(ay, by) > north:
        return False
    s = side(ax, ay, bx, by, west, south)
    if s == 0:
        return True
    return not (
        s == side(ax, ay, bx, by, east, south)
        and s == side(ax, ay, bx, by, west, north)
        and s == side(ax, ay, bx, by, east, north)
    )


@njit(cache=True, nogil=True)
def rasterise_areas(edges, zones, zone_edge, kx, ky, col0, row0, cols, rows):
    """Entries of polygons in a grid that reaches past them on every side.

    edges      : int32 (m, 4)   ax, ay, bx, by
    zones      : int64 (s,)     which zones
    zone_edge  : int64 (z+1,)   zone z has edges zone_edge[z]:zone_edge[z+1]
    kx, ky     : cells are 2**kx wide and 2**ky high
    col0, row0 : the first cell's column and row, counted from 0 degrees
    cols, rows : the grid's size in cells

    Returns entries int64 (n, ENTRY_COLUMNS), the cell numbered row * cols + col, and the pool int32 they
    refer to.
    """
    entries = np.empty((1024, ENTRY_COLUMNS), np.int64)
    used = 0
    out = np.empty(4096, np.int32)
    out_used = 0
    keys = np.empty(4096, np.int64)
    wide = 1 << kx
    high = 1 << ky
    for s in range(len(zones)):
        zone = zones[s]
        n = 0
        for e in range(zone_edge[zone], zone_edge[zone + 1]):
            ax = np.int64(edges[e, 0])
            ay = np.int64(edges[e, 1])
            bx = np.int64(edges[e, 2])
            by = np.int64(edges[e, 3])
            if ay > by:
                ax, ay, bx, by = bx, by, ax, ay
            # A cell has its closed box: an edge on the line between two cells touches both.
            r_first = max(((ay - 1) >> ky) - row0, 0)
            r_last = min((by >> ky) - row0, rows - 1)
            for row in range(r_first, r_last + 1):
                if ay == by:
                    west = min(ax, bx)
                    east = max(ax, bx)
                else:
                    # One unit more on each side: rounding down must not lose a cell.
                    low = (row + row0) << ky
                    u = _x_at(ax, ay, bx, by, min(max(ay, low), by))
                    v = _x_at(ax, ay, bx, by, max(min(by, low + high), ay))
                    west = min(u, v) - 1
                    east = max(u, v) + 1
                    west = max(west, min(ax, bx))
                    east = min(east, max(ax, bx))
                c_first = max(((west - 1) >> kx) - col0, 0)
                c_last = min((east >> kx) - col0, cols - 1)
                if c_last >= c_first:
                    keys = room1(keys, n, c_last - c_first + 1)
                    for col in range(c_first, c_last + 1):
                        keys[n] = ((row * cols + col) << 32) | e
                        n += 1
        mine = np.sort(keys[:n])
        k = 0
        while k < n:  # rows without edges are outside
            row = (mine[k] >> 32) // cols
            row_first = k
            while k < n and (mine[k] >> 32) // cols == row:
                k += 1
            row_last = k
            low = (row + row0) << ky
            y = _row_line(edges, mine, row_first, row_last, low, high)
            inside = 0
            next_col = 0
            i = row_first
            while i < row_last:
                cell = mine[i] >> 32
                j = i
                while j < row_last and mine[j] >> 32 == cell:
                    j += 1
                col = cell - row * cols
                if inside and col > next_col:
                    entries = room2(entries, used, col - next_col)
                    for c in range(next_col, col):
                        write_entry(entries, used, row * cols + c, zone, COVER, 0, 0, 0, 0, 0)
                        used += 1
                edge_west = (col + col0) << kx
                out = room1(out, out_used, j - i)
                touching = 0
                for q in range(i, j):
                    e = mine[q] & 0xFFFFFFFF
                    if touches(
                        np.int64(edges[e, 0]),
                        np.int64(edges[e, 1]),
                        np.int64(edges[e, 2]),
                        np.int64(edges[e, 3]),
                        edge_west,
                        low,
                        edge_west + wide,
                        low + high,
                    ):
                        out[out_used + touching] = e
                        touching += 1
                x = edge_west + wide // 2  # any place will do where no edge touches
                if touching:
                    x = _reference_x(edges, mine, i, j, edge_west, wide, y)
                west_of_reference = 0
                crossings = 0
                for q in range(i, j):
                    e = mine[q] & 0xFFFFFFFF
                    ax = np.int64(edges[e, 0])
                    ay = np.int64(edges[e, 1])
                    bx = np.int64(edges[e, 2])
                    by = np.int64(edges[e, 3])
                    if ay > by:
                        ax, ay, bx, by = bx, by, ax, ay
                    if ay <= y < by:
                        at = _x_at(ax, ay, bx, by, y)
                        if (at >> kx) - col0 == col:
                            crossings += 1
                            if at < x:
                                west_of_reference += 1
                state = (inside + west_of_reference) & 1
                entries = room2(entries, used, 1)
                if touching == 0:
                    if state:
                        write_entry(entries, used, cell, zone, COVER, 0, 0, 0, 0, 0)
                        used += 1
                elif x > -(1 << 62):
                    write_entry(entries, used, cell, zone, EDGES, out_used, touching, state, x, y)
                    out_used += touching
                    used += 1
                else:
                    write_entry(entries, used, cell, zone, ASK, 0, WHOLE, 0, 0, 0)
                    used += 1
                inside = (inside + crossings) & 1
                next_col = col + 1
                i = j
            if inside and next_col < cols:
                entries = room2(entries, used, cols - next_col)
                for c in range(next_col, cols):
                    write_entry(entries, used, row * cols + c, zone, COVER, 0, 0, 0, 0, 0)
                    used += 1
    return entries[:used].copy(), out[:out_used].copy()


@njit(cache=True, nogil=True)
def write_entry(entries, i, cell, zone, kind, first, count, state, x, y):
    entries[i, 0] = cell
    entries[i, 1] = zone
    entries[i, 2] = kind
    entries[i, 3] = first
    entries[i, 4] = count
    entries[i, 5] = state
    entries[i, 6] = x
    entries[i, 7] = y


@njit(cache=True, nogil=True)
def rasterise_reaches(
    zones,
    reach_mm,
    is_circle,
    pieces,
    zone_piece,
    spheres,
    levels,
    zone_level,
    kx,
    ky,
    col0,
    row0,
    cols,
    rows,
):
    """Entries of circles, corridors and buffers in a grid: the cells that lie within reach of their geometry.

    zones    : int32 (s,)    the zones to enter
    reach_mm : int32 (z,)    of all zones
    others   : columns of the border tree, see geofence._kernels.tree

    A block of cells is split until it lies wholly within reach, wholly out of it, or is one cell. Its extent
    is
    bounded by the length of the path from its middle to a corner, in space, so the bounds hold at the poles
    too.
    """
    entries = np.empty((1024, ENTRY_COLUMNS), np.int64)
    used = 0
    stack = np.empty((256, 4), np.int64)
    scratch = np.empty((STACK, 3), np.float64)
    for s in range(len(zones)):
        zone = zones[s]
        reach = chord_of_arc_m(reach_mm[zone] / 1000.0)
        first = zone_piece[zone]
        box = reach_box(pieces, first, zone_piece[zone + 1], reach)
        c_first = max((box[0] >> kx) - col0, 0)
        c_last = min((box[2] >> kx) - col0, cols - 1)
        r_first = max((box[1] >> ky) - row0, 0)
        r_last = min((box[3] >> ky) - row0, rows - 1)
        if c_first > c_last or r_first > r_last:
            continue
        stack[0] = (c_first, r_first, c_last + 1, r_last + 1)
        depth = 1
        while depth > 0:
            depth -= 1
            c0, r0, c1, r1 = stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3]
            west = float((c0 + col0) << kx)
            east = float(((c1 + col0) << kx) - 1)
            south = float((r0 + row0) << ky)
            north = float(((r1 + row0) << ky) - 1)
            x = 0.5 * (west + east)
            y = 0.5 * (south + north)
            px, py, pz = ecef(x, y)
            extent = half_diagonal_m(west, south, east, north)
            chord = nearest_chord(
                pieces,
                first,
                zone_piece[zone + 1],
                spheres,
                levels,
                zone_level[zone],
                zone_level[zone + 1],
                x,
                y,
                px,
                py,
                pz,
                reach + extent + SLACK_M,
                scratch,
            )
            if chord > reach + extent + SLACK_M:
                continue
            within = chord + extent + SLACK_M <= reach
            if not within and (c1 - c0 > 1 or r1 - r0 > 1):
                cm = (c0 + c1 + 1) // 2 if c1 - c0 > 1 else c1
                rm = (r0 + r1 + 1) // 2 if r1 - r0 > 1 else r1
                stack[depth] = (c0, r0, cm, rm)
                depth += 1
                if cm < c1:
                    stack[depth] = (cm, r0, c1, rm)
                    depth += 1
                if rm < r1:
                    stack[depth] = (c0, rm, cm, r1)
                    depth += 1
                if cm < c1 and rm < r1:
                    stack[depth] = (cm, rm, c1, r1)
                    depth += 1
                continue
            kind = COVER
            if not within:
                kind = CIRCLE if is_circle[zone] else ASK
            entries = room2(entries, used, (c1 - c0) * (r1 - r0))
            for row in range(r0, r1):
                for col in range(c0, c1):
                    write_entry(entries, used, row * cols + col, zone, kind, 0, 0, 0, 0, 0)
                    used += 1
    return entries[:used].copy()


@njit(cache=True, nogil=True)
def half_diagonal_m(west, south, east, north):
    """At least the distance from the middle of a box to any place in it."""
    nearest_equator = 0.0 if south <= 0.0 <= north else min(abs(south), abs(north))
    widest = math.cos(nearest_equator * RADIANS_PER_E7) + 1e-9
    dx = 0.5 * (east - west + 2.0) * RADIANS_PER_E7 * MAX_RADIUS_M * widest
    dy = 0.5 * (north - south + 2.0) * RADIANS_PER_E7 * MAX_RADIUS_M
    return math.sqrt(dx * dx + dy * dy)


@njit(cache=True, nogil=True)
def reach_box(pieces, first, last, reach_m):
    """West, south, east, north (int64) of the places within reach of some pieces, in -180..180.

    All longitudes where the box would reach past the antimeridian or close to a pole.
    """
    west = south = math.inf
    east = north = -math.inf
    for i in range(first, last):
        west = min(west, pieces[i, 0], pieces[i, 0] + pieces[i, 2])
        east = max(east, pieces[i, 0], pieces[i, 0] + pieces[i, 2])
        south = min(south, pieces[i, 1], pieces[i, 1] + pieces[i, 3])
        north = max(north, pieces[i, 1], pieces[i, 1] + pieces[i, 3])
    # The chord is shorter than the arc, and 6,335 km is the smallest radius of curvature; 2 % more covers
    # both.
    dy = 1.02 * reach_m / 6_335_000.0 / RADIANS_PER_E7 + 10.0
    south = max(south - dy, -900_000_000.0)
    north = min(north + dy, 900_000_000.0)
    farthest = max(abs(south), abs(north))
    if farthest < 890_000_000.0:
        # At most this wide: the meridians' distance shrinks towards the pole.
        dx = dy / math.cos(farthest * RADIANS_PER_E7) + 10.0
        if west - dx >= -1_800_000_000.0 and east + dx <= 1_800_000_000.0:
            return int(west - dx), int(south), int(east + dx), int(north)
    return -1_800_000_000, int(south), 1_800_000_000, int(north)


@njit(cache=True, nogil=True)
def grow_boxes(boxes, is_area, reach_mm, pieces, zone_piece):
    """Let each zone's box hold what lies within its reach.

    boxes : int64 (z, 4)  west, south, east, north; written. Only polygons keep longitudes past +-180 degrees
    """
    for z in range(len(boxes)):
        if reach_mm[z] == 0:
            continue
        reach = chord_of_arc_m(reach_mm[z] / 1000.0)
        west, south, east, north = reach_box(pieces, zone_piece[z], zone_piece[z + 1], reach)
        if is_area[z]:
            west = min(west, boxes[z, 0])
            south = min(south, boxes[z, 1])
            east = max(east, boxes[z, 2])
            north = max(north, boxes[z, 3])
        boxes[z, 0] = west
        boxes[z, 1] = south
        boxes[z, 2] = east
        boxes[z, 3] = north
