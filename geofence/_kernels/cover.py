"""Which zones cover which pings, from the cell index.

Pings go through in blocks that stay in the first-level cache, one pass after the other, so that a pass is
short, has hardly a branch to guess, and the processor can wait for many memory reads at once:

1. one read of the top grid for each ping; those of no zone are dropped
2. level by level, one read of a node for those whose cell is divided
3. the tests of those in a cell that a border crosses; each ends with a word of a set
4. the pairs are written, in order
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geofence._kernels.exact import OUTSIDE, locate, side
from geofence._kernels.geodesy import arc_m, ecef, to_mm
from geofence._kernels.lists import CHAIN, MIXED, NODE, NODE_BITS
from geofence._kernels.raster import ASK, CIRCLE
from geofence._kernels.tree import STACK, nearest_chord

__all__ = ["beyond", "cover", "parity"]

BLOCK = 2048  # a block's pings, words and queues stay in the first-level cache from pass to pass


@njit(cache=True, nogil=True)
def parity(words, at, count, rx, ry, inside, x, y):
    """OUTSIDE (0), BOUNDARY (1) or INSIDE (2) of a position in a cell.

    words[at:]     : ``count`` edges ax, ay, bx, by, the reference position rx, ry to their left
    inside         : 0, 1, the state of the reference

    Parity of the crossings of the segment to the reference, see raster.reference_state. A position to the
    left of an edge is on the reference's side and crosses nothing of it: about half of them.
    """
    for _ in range(count):
        ax = np.int64(words[at])
        ay = np.int64(words[at + 1])
        bx = np.int64(words[at + 2])
        by = np.int64(words[at + 3])
        at += 4
        p = side(ax, ay, bx, by, x, y)
        if p > 0:
            continue
        if p == 0:
            if min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by):
                return 1
            continue
        if (side(x, y, rx, ry, ax, ay) >= 0) != (side(x, y, rx, ry, bx, by) >= 0):
            inside = 1 - inside
    return 2 * inside


@njit(cache=True, nogil=True)
def _mixed(
    words,
    at,
    x,
    y,
    out,
    used,
    edges,
    zone_edge,
    reach_mm,
    pieces,
    zone_piece,
    spheres,
    levels,
    zone_level,
    scratch,
):
    """Write the zones of a MIXED record that cover a position, in order, behind their number.

    at        : the record's place
    out, used : int32, where the number goes; there is room
    others    : the zones' own columns

    Returns what is used then.
    """
    base = words[at]
    base_end = base + 1 + words[base]
    base += 1
    count = words[at + 1]
    at += 2
    begin = used
    used += 1
    known = False
    px = py = pz = 0.0
    for _ in range(count):
        zone = words[at] >> 2
        kind = words[at] & 3
        at += 1
        hit = False
        if not known and (kind == CIRCLE or kind == ASK):
            px, py, pz = ecef(float(x), float(y))
            known = True
        if kind == CIRCLE:
            # what chord_to_piece2 would find, without looking for the centre's sphere
            i = words[at]
            reach = words[at + 1]
            at += 2
            qx = spheres[i, 0]
            qy = spheres[i, 1]
            qz = spheres[i, 2]
            d = math.sqrt((px - qx) * (px - qx) + (py - qy) * (py - qy) + (pz - qz) * (pz - qz))
            # an arc is no shorter than its chord: most of those beyond are done here
            hit = 1000.0 * d <= reach + 1.0 and to_mm(arc_m(d)) <= reach
        else:
            n = words[at] >> 1
            state = np.int64(words[at] & 1)
            at += 1
            if n > 0:
                state = parity(words, at + 2, n, np.int64(words[at]), np.int64(words[at + 1]), state, x, y)
                at += 2 + 4 * n
            elif n < 0:
                state = locate(edges, zone_edge[zone], zone_edge[zone + 1], x, y)
            hit = state != OUTSIDE
        if not hit and kind == ASK and reach_mm[zone] > 0:
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
                reach_mm[zone] / 1000.0 + 1.0,
                scratch,
            )
            hit = chord < math.inf and to_mm(arc_m(chord)) <= reach_mm[zone]
        if hit:
            while base < base_end and words[base] < zone:
                out[used] = words[base]
                base += 1
                used += 1
            out[used] = zone
            used += 1
    while base < base_end:
        out[used] = words[base]
        base += 1
        used += 1
    out[begin] = used - begin - 1
    return used


@njit(cache=True, nogil=True)
def beyond(e7, limit_e7):
    """Which positions lie this far from 0 or farther: int64 (k,), ascending; those without a fix do not.

    e7       : int32 (n,)  longitudes or latitudes
    limit_e7 : int64       below 2**31

    Most batches have none, so they are counted first, in a vector loop without a memory of its own.
    """
    no_fix = np.int32(-(1 << 31))
    high = np.int32(limit_e7)
    low = np.int32(-limit_e7)
    count = 0
    for i in range(len(e7)):
        count += (e7[i] >= high) | ((e7[i] <= low) & (e7[i] != no_fix))
    found = np.empty(count, np.int64)
    count = 0
    if len(found) > 0:
        for i in range(len(e7)):
            if e7[i] >= high or (e7[i] <= low and e7[i] != no_fix):
                found[count] = i
                count += 1
    return found


@njit(cache=True, nogil=True)
def _places(lon_e7, lat_e7, kx, ky, col0, row0, cols, rows, place):
    """The place of each ping's cell in the top grid. A position beyond the grid is led to its rim, which is
    empty.

    place : uint32 (n,)  written

    No branch, and 32 bits all the way, so that the compiler makes it a loop of full vectors: with int64 and
    comparisons on both sides this and the read took 1.26 ns a ping, now 0.6. The sign's bit is flipped, so
    that a shift without sign counts cells from the west; less than the first column wraps round to a large
    number, and one comparison finds either side. Cells are less than 2**31 wide: see cellindex.fit_grid.
    """
    sign = np.uint32(1 << 31)
    lon = lon_e7.view(np.uint32)
    lat = lat_e7.view(np.uint32)
    shift_x = np.uint32(kx) & np.uint32(31)
    shift_y = np.uint32(ky) & np.uint32(31)
    first_col = np.uint32(col0 + ((1 << 31) >> kx))
    first_row = np.uint32(row0 + ((1 << 31) >> ky))
    last_col = np.uint32(cols - 1)
    last_row = np.uint32(rows - 1)
    width = np.uint32(cols)
    for j in range(len(lon)):
        col = np.uint32(np.uint32(np.uint32(lon[j] ^ sign) >> shift_x) - first_col)
        row = np.uint32(np.uint32(np.uint32(lat[j] ^ sign) >> shift_y) - first_row)
        place[j] = np.uint32(min(row, last_row) * width) + min(col, last_col)


@njit(cache=True, nogil=True)
def _read_grid(words, n, place, ping, word):
    """Read the top grid, and keep the pings whose word is not 0: their numbers, their words; how many."""
    busy = np.uint64(0)
    for j in range(n):
        w = words[np.uint64(place[j])]
        word[busy] = w
        ping[busy] = j
        busy += np.uint64(w != 0)
    return busy


@njit(cache=True, nogil=True)
def _sort_out(word, busy, node, test):
    """Which words are nodes, and which ask for a test; how many of each."""
    nodes = np.uint64(0)
    tests = np.uint64(0)
    for b in range(busy):
        kind = word[b] & 3
        node[nodes] = b
        nodes += np.uint64(kind == NODE)
        test[tests] = b
        tests += np.uint64(kind > NODE)
    return nodes, tests


@njit(cache=True, nogil=True)
def _read_nodes(lon_e7, lat_e7, words, sx, sy, ping, word, node, nodes, test, tests):
    """The words that nodes have for their pings; again, how many of them are nodes, and ask for a test."""
    mask = (1 << NODE_BITS) - 1
    more = np.uint64(0)
    for q in range(nodes):
        b = np.uint64(node[q])
        j = np.uint64(ping[b])
        part = (((lat_e7[j] >> sy) & mask) << NODE_BITS) | ((lon_e7[j] >> sx) & mask)
        w = words[np.uint64(word[b] >> 2) + np.uint64(part)]
        word[b] = w
        kind = w & 3
        node[more] = b
        more += np.uint64(kind == NODE)
        test[tests] = b
        tests += np.uint64(kind > NODE)
    return more, tests


@njit(cache=True, nogil=True)
def _test_chain(words, at, x, y):
    """The word of a set, of a CHAIN record."""
    n = words[at]
    if n == 1:
        p = side(
            np.int64(words[at + np.uint64(4)]),
            np.int64(words[at + np.uint64(5)]),
            np.int64(words[at + np.uint64(6)]),
            np.int64(words[at + np.uint64(7)]),
            x,
            y,
        )
        return words[at + np.uint64(2 + p)]
    rx = np.int64(words[at + np.uint64(4)])
    ry = np.int64(words[at + np.uint64(5)])
    return words[at + np.uint64(1 + parity(words, np.int64(at) + 6, n, rx, ry, 1, x, y))]


@njit(cache=True, nogil=True)
def _room_for(extra, used, more):
    if used + more <= len(extra):
        return extra
    longer = np.empty(2 * (used + more), np.int32)
    longer[:used] = extra[:used]
    return longer


@njit(cache=True, nogil=True)
def _count(words, extra, word, busy):
    """How many pairs the words stand for."""
    n = 0
    for b in range(busy):
        at = np.uint64(word[b] >> 2)
        n += extra[at] if word[b] & 3 == MIXED else words[at]
    return n


@njit(cache=True, nogil=True)
def _write_pairs(words, extra, ping, word, busy, start, pings, zones, used):
    """Write the pairs; how many there are then. Two zones of a set are written without asking how many it
    has: most have no more, and a guess that fails costs more than a store.
    """
    one = np.uint64(1)
    two = np.uint64(2)
    n_used = np.uint64(used)
    for b in range(busy):
        i = start + np.int64(ping[b])
        at = np.uint64(word[b] >> 2)
        if word[b] & 3 == MIXED:
            n = np.uint64(extra[at])
            for k in range(n):
                pings[n_used + k] = i
                zones[n_used + k] = extra[at + one + k]
        else:
            n = np.uint64(words[at])
            pings[n_used] = i
            pings[n_used + one] = i
            zones[n_used] = words[at + one]
            zones[n_used + one] = words[at + two]
            for k in range(two, n):
                pings[n_used + k] = i
                zones[n_used + k] = words[at + one + k]
        n_used += n
    return np.int64(n_used)


@njit(cache=True, nogil=True)
def cover(
    lon_e7,
    lat_e7,
    first_ping,
    found,
    words,
    kx,
    ky,
    col0,
    row0,
    cols,
    rows,
    edges,
    zone_edge,
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
    found          : int64 (2, room)  for the pairs; written
    words          : int32, see geofence._kernels.lists; two more may be read behind the last set
    kx .. rows     : the top grid, see geofence._kernels.raster; the cells of its rim are empty
    others         : the zones' own columns, for entries that ask them

    Returns int64 (2, room), ``found`` or a longer one, and how many of its columns are used.
    """
    used = 0
    word = np.empty(BLOCK, np.int32)
    ping = np.empty(BLOCK, np.int32)
    node = np.empty(BLOCK, np.int32)
    test = np.empty(BLOCK, np.int32)
    head = np.empty(BLOCK, np.int32)
    place = np.empty(BLOCK, np.uint32)
    extra = np.empty(BLOCK, np.int32)
    scratch = np.empty((STACK, 3), np.float64)
    for start in range(0, len(lon_e7), BLOCK):
        xs = lon_e7[start : start + BLOCK]
        ys = lat_e7[start : start + BLOCK]
        _places(xs, ys, kx, ky, col0, row0, cols, rows, place)
        busy = _read_grid(words, len(xs), place, ping, word)
        nodes, tests = _sort_out(word, busy, node, test)
        sx = kx
        sy = ky
        while nodes > 0:
            sx -= NODE_BITS
            sy -= NODE_BITS
            nodes, tests = _read_nodes(xs, ys, words, sx, sy, ping, word, node, nodes, test, tests)
        for q in range(tests):  # the line of the cache is on its way when the next loop needs it
            head[q] = words[np.uint64(word[test[q]] >> 2)]
        extra_used = 0
        for q in range(tests):
            b = test[q]
            at = np.int64(word[b] >> 2)
            x = np.int64(xs[ping[b]])
            y = np.int64(ys[ping[b]])
            if word[b] & 3 == CHAIN:
                word[b] = _test_chain(words, np.uint64(at), x, y)
                continue
            extra = _room_for(extra, extra_used, 1 + words[head[q]] + words[at + 1])
            word[b] = (extra_used << 2) | MIXED
            extra_used = _mixed(
                words,
                at,
                x,
                y,
                extra,
                extra_used,
                edges,
                zone_edge,
                reach_mm,
                pieces,
                zone_piece,
                spheres,
                levels,
                zone_level,
                scratch,
            )
        more = _count(words, extra, word, busy) + 2
        if used + more > found.shape[1]:
            longer = np.empty((2, 2 * (used + more)), np.int64)
            longer[:, :used] = found[:, :used]
            found = longer
        used = _write_pairs(words, extra, ping, word, busy, first_ping + start, found[0], found[1], used)
    return found, used
