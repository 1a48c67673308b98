"""Divide the cells of an index, and write their words. See geofence._kernels.lists for what is written.

The index is made level by level, the top grid first. A cell of a level is a row of entries, as
geofence._kernels.raster describes them, their first column being the cell's number in its level. ``settle``
writes the words of cells that are not divided further; ``divide`` makes the next level of those that are.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from geofence._kernels.exact import BOUNDARY, INSIDE, side
from geofence._kernels.geodesy import chord_of_arc_m, ecef
from geofence._kernels.lists import CHAIN, MIXED, NODE, NODE_BITS, NODE_WORDS
from geofence._kernels.raster import (
    ASK,
    CIRCLE,
    COVER,
    EDGES,
    ENTRY_COLUMNS,
    SLACK_M,
    WHOLE,
    half_diagonal_m,
    reference_state,
    room1,
    room2,
    touches,
    write_entry,
)
from geofence._kernels.tree import STACK, nearest_chord

__all__ = ["divide", "rehash", "settle"]

ALIGNED_WORDS = 8  # a record of one edge has 8 words: it never straddles two lines of the cache
LONGEST_SHARED = 8  # longer lines of edges are not compared: few cells, and comparing takes the square of it
REFERENCES = 64
NO_STATE = -1
MASK = (1 << 38) - 1  # hashes stay below 2**38, so that hash * 1000003 + word stays below 2**59


@njit(cache=True, nogil=True)
def rehash(table, size):
    """The table of records, larger: int64 (size, 2), place (0: free) and hash; size is a power of two."""
    larger = np.zeros((size, 2), np.int64)
    for i in range(len(table)):
        if table[i, 0] != 0:
            j = (table[i, 1] ^ (table[i, 1] >> 17)) & (size - 1)
            while larger[j, 0] != 0:
                j = (j + 1) & (size - 1)
            larger[j, 0] = table[i, 0]
            larger[j, 1] = table[i, 1]
    return larger


@njit(cache=True, nogil=True)
def _place_of(made, length, aligned, words, used, table):
    """The place of a record, which is stored if it is new; and how many words are used then."""
    h = np.int64(length)
    for k in range(length):
        h = (h * 1000003 + (np.int64(made[k]) & 0xFFFFFFFF)) & MASK
    size = len(table)
    j = (h ^ (h >> 17)) & (size - 1)
    while table[j, 0] != 0:
        if table[j, 1] == h:
            p = table[j, 0]
            same = p + length <= used and p % aligned == 0
            k = 0
            while same and k < length:
                same = words[p + k] == made[k]
                k += 1
            if same:
                return p, used
        j = (j + 1) & (size - 1)
    p = (used + aligned - 1) // aligned * aligned
    for k in range(length):
        words[p + k] = made[k]
    table[j, 0] = p
    table[j, 1] = h
    return p, p + length


@njit(cache=True, nogil=True)
def _set_of(zones, count, made, words, used, table):
    """The word of a set of zones; the same for the same set. made: scratch."""
    if count == 0:
        return np.int64(0), used
    made[0] = count
    for k in range(count):
        made[1 + k] = zones[k]
    place, used = _place_of(made, 1 + count, 1, words, used, table)
    return place << 2, used


@njit(cache=True, nogil=True)
def _one_chain(entries, first, last, pool, edges):
    """Whether all entries of a cell that have edges have the same ones, in whatever direction and order."""
    model = -1
    for i in range(first, last):
        if entries[i, 2] != EDGES:
            continue
        if model < 0:
            model = i
            continue
        count = entries[i, 4]
        if count != entries[model, 4] or count > LONGEST_SHARED:
            return False
        for q in range(entries[i, 3], entries[i, 3] + count):
            e = pool[q]
            found = False
            for r in range(entries[model, 3], entries[model, 3] + count):
                m = pool[r]
                if (
                    edges[e, 0] == edges[m, 0]
                    and edges[e, 1] == edges[m, 1]
                    and edges[e, 2] == edges[m, 2]
                    and edges[e, 3] == edges[m, 3]
                ) or (
                    edges[e, 0] == edges[m, 2]
                    and edges[e, 1] == edges[m, 3]
                    and edges[e, 2] == edges[m, 0]
                    and edges[e, 3] == edges[m, 1]
                ):
                    found = True
            if not found:
                return False
    return True


@njit(cache=True, nogil=True)
def _write_edges(made, at, entry, pool, edges):
    """The edges of an entry, turned so that its reference lies to their left."""
    rx = entry[6]
    ry = entry[7]
    for k in range(entry[3], entry[3] + entry[4]):
        e = pool[k]
        ax = np.int64(edges[e, 0])
        ay = np.int64(edges[e, 1])
        bx = np.int64(edges[e, 2])
        by = np.int64(edges[e, 3])
        if side(ax, ay, bx, by, rx, ry) < 0:
            ax, ay, bx, by = bx, by, ax, ay
        made[at] = ax
        made[at + 1] = ay
        made[at + 2] = bx
        made[at + 3] = by
        at += 4
    return at


@njit(cache=True, nogil=True)
def _chain(entries, first, last, pool, edges, zones, made, words, used, table):
    """The word of a cell whose entries are covers and one line of edges."""
    model = first
    while entries[model, 2] != EDGES:
        model += 1
    rx = entries[model, 6]
    ry = entries[model, 7]
    outcome = np.zeros(3, np.int64)  # flipped, on, same
    for which in range(3):
        n = 0
        for i in range(first, last):
            member = True
            if entries[i, 2] == EDGES and which != 1:
                state = entries[i, 5]
                if i != model:
                    # on no edge's line, so it is never on the border
                    at_model = reference_state(
                        edges, pool, entries[i, 3], entries[i, 4], entries[i, 6], entries[i, 7], state, rx, ry
                    )
                    state = np.int64(at_model == INSIDE)
                member = (state != 0) == (which == 2)
            if member:
                zones[n] = entries[i, 1]
                n += 1
        outcome[which], used = _set_of(zones, n, made, words, used, table)
    count = entries[model, 4]
    made[0] = count
    made[2] = outcome[1]
    if count > 1:
        made[1] = outcome[0]
        made[3] = outcome[2]
        made[4] = rx
        made[5] = ry
        length = _write_edges(made, 6, entries[model], pool, edges)
    else:
        # No vertex lies in the cell, so the edge crosses all of it: its line's sides are all that matters.
        e = pool[entries[model, 3]]
        ax = np.int64(edges[e, 0])
        ay = np.int64(edges[e, 1])
        bx = np.int64(edges[e, 2])
        by = np.int64(edges[e, 3])
        if (bx, by) < (ax, ay):
            ax, ay, bx, by = bx, by, ax, ay
        left = side(ax, ay, bx, by, rx, ry) > 0
        made[1] = outcome[0] if left else outcome[2]
        made[3] = outcome[2] if left else outcome[0]
        made[4] = ax
        made[5] = ay
        made[6] = bx
        made[7] = by
        length = 8
    place, used = _place_of(made, length, ALIGNED_WORDS, words, used, table)
    return (place << 2) | CHAIN, used


@njit(cache=True, nogil=True)
def settle(entries, begins, where, divided, pool, edges, reach_mm, levels, zone_level, words, used, table):
    """Write the words of the cells of a level.

    entries, begins : int64, as sort_entries made them
    where           : int64 (s,)   the place of each cell's word
    divided         : bool (s,)    cells to leave out
    pool            : int32        the edges of entries, by number
    reach_mm .. zone_level : of zones, see divide
    words, used     : int32 (w,), and how many are used; written
    table           : of records, see rehash; it has room for 4 more for each cell; written

    Returns words, which may have grown, and used.
    """
    zones = np.empty(16, np.int64)
    made = np.empty(64, np.int32)
    for s in range(len(where)):
        first = begins[s]
        last = begins[s + 1]
        if first == last or divided[s]:
            continue
        covers = 0
        bordered = 0
        asked = 0
        length = 8
        for i in range(first, last):
            kind = entries[i, 2]
            covers += int(kind == COVER)
            bordered += int(kind == EDGES)
            asked += int(kind == CIRCLE or kind == ASK)
            length += 5 + 4 * max(entries[i, 4], 0)
        if length > len(made):
            made = np.empty(2 * length, np.int32)
            zones = np.empty(2 * length, np.int64)
        words = room1(words, used, 4 * length + 32)
        if bordered > 0 and asked == 0 and _one_chain(entries, first, last, pool, edges):
            word, used = _chain(entries, first, last, pool, edges, zones, made, words, used, table)
            words[where[s]] = word
            continue
        n = 0
        for i in range(first, last):
            if entries[i, 2] == COVER:
                zones[n] = entries[i, 1]
                n += 1
        base, used = _set_of(zones, n, made, words, used, table)
        if covers == last - first:
            words[where[s]] = base
            continue
        made[0] = base >> 2
        made[1] = last - first - n
        at = 2
        for i in range(first, last):
            kind = entries[i, 2]
            if kind == COVER:
                continue
            made[at] = (entries[i, 1] << 2) | kind
            at += 1
            if kind == CIRCLE:
                made[at] = levels[zone_level[entries[i, 1]]]
                made[at + 1] = reach_mm[entries[i, 1]]
                at += 2
            else:
                made[at] = (entries[i, 4] << 1) | entries[i, 5]
                at += 1
                if entries[i, 4] > 0:
                    made[at] = entries[i, 6]
                    made[at + 1] = entries[i, 7]
                    at = _write_edges(made, at + 2, entries[i], pool, edges)
        place, used = _place_of(made, at, 1, words, used, table)
        words[where[s]] = (place << 2) | MIXED
    return words, used


@njit(cache=True, nogil=True)
def _find_reference(pool, first, count, edges, west, south, wide, high):
    """A place of a cell on the line of none of some edges: found, x, y."""
    for attempt in range(REFERENCES):
        # the middle first, then scattered: steps of 7/16 and 5/16 of the cell and an odd unit visit all of it
        x = west + (wide // 2 + attempt * (wide * 7 // 16 + 1)) % wide
        y = south + (high // 2 + attempt * (high * 5 // 16 + 1)) % high
        free = True
        for k in range(first, first + count):
            e = pool[k]
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
            return True, x, y
    return False, west, south


@njit(cache=True, nogil=True)
def _divide_edges(entry, pool, edges, west, south, kx, ky, made, n, new_pool, pool_used, state):
    """Entries of a polygon in the 16 parts of a cell; the columns of ``made`` are an entry's.

    kx, ky : of the parts
    state  : int64 (16,), scratch: what a part without edges is, NO_STATE for one with edges

    A part has its closed box. Two of them side by side and without edges have their common side without
    edges, so one is inside if the other is.
    """
    side_parts = 1 << NODE_BITS
    wide = 1 << kx
    high = 1 << ky
    zone = entry[1]
    first = entry[3]
    count = entry[4]
    for part in range(NODE_WORDS):
        col = part & (side_parts - 1)
        row = part >> NODE_BITS
        w = west + (col << kx)
        s = south + (row << ky)
        new_pool = room1(new_pool, pool_used, count)
        touching = 0
        for k in range(first, first + count):
            e = pool[k]
            if touches(
                np.int64(edges[e, 0]),
                np.int64(edges[e, 1]),
                np.int64(edges[e, 2]),
                np.int64(edges[e, 3]),
                w,
                s,
                w + wide,
                s + high,
            ):
                new_pool[pool_used + touching] = e
                touching += 1
        if touching == 0:
            if col > 0 and state[part - 1] != NO_STATE:
                state[part] = state[part - 1]
            elif row > 0 and state[part - side_parts] != NO_STATE:
                state[part] = state[part - side_parts]
            else:
                state[part] = reference_state(
                    edges, pool, first, count, entry[6], entry[7], entry[5], w + wide // 2, s + high // 2
                )
            if state[part] == INSIDE:
                write_entry(made, n, part, zone, COVER, 0, 0, 0, 0, 0)
                n += 1
            continue
        state[part] = NO_STATE
        found, x, y = _find_reference(new_pool, pool_used, touching, edges, w, s, wide, high)
        inside = 0
        if found:
            inside = reference_state(edges, pool, first, count, entry[6], entry[7], entry[5], x, y)
        # BOUNDARY can't be: the edge would touch the part and have the place on its line
        if found and inside != BOUNDARY:
            write_entry(made, n, part, zone, EDGES, pool_used, touching, int(inside == INSIDE), x, y)
            pool_used += touching
        else:
            write_entry(made, n, part, zone, ASK, 0, WHOLE, 0, 0, 0)
        n += 1
    return n, new_pool, pool_used


@njit(cache=True, nogil=True)
def _divide_reach(
    entry,
    pool,
    edges,
    west,
    south,
    kx,
    ky,
    made,
    n,
    new_pool,
    pool_used,
    state,
    reach_mm,
    pieces,
    zone_piece,
    spheres,
    levels,
    zone_level,
    scratch,
):
    """Entries of a circle, a corridor or a polygon with a buffer in the 16 parts of a cell."""
    zone = entry[1]
    own = n
    if entry[4] > 0:
        n, new_pool, pool_used = _divide_edges(
            entry, pool, edges, west, south, kx, ky, made, n, new_pool, pool_used, state
        )
    own_end = n
    reach = chord_of_arc_m(reach_mm / 1000.0)
    for part in range(NODE_WORDS):
        w = float(west + ((part & ((1 << NODE_BITS) - 1)) << kx))
        b = float(south + ((part >> NODE_BITS) << ky))
        e = w + float((1 << kx) - 1)
        t = b + float((1 << ky) - 1)
        x = 0.5 * (w + e)
        y = 0.5 * (b + t)
        px, py, pz = ecef(x, y)
        far = reach + half_diagonal_m(w, b, e, t) + SLACK_M
        chord = nearest_chord(
            pieces,
            zone_piece[zone],
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
            far,
            scratch,
        )
        has_own = own < own_end and made[own, 0] == part
        if chord <= 2.0 * reach - far:
            kind = COVER
        elif chord <= far:
            kind = CIRCLE if entry[2] == CIRCLE else ASK
        else:
            own += int(has_own)  # nothing but the polygon itself
            continue
        if has_own:
            if made[own, 2] == EDGES or kind == COVER:
                made[own, 2] = kind
            own += 1
        else:
            write_entry(made, n, part, zone, kind, 0, 0, 0, 0, 0)
            n += 1
    return n, new_pool, pool_used


@njit(cache=True, nogil=True)
def divide(
    entries,
    begins,
    where,
    corner,
    chosen,
    pool,
    edges,
    reach_mm,
    pieces,
    zone_piece,
    spheres,
    levels,
    zone_level,
    kx,
    ky,
    words,
    used,
):
    """Make the next level of some cells of a level: each gets a node of 16 words.

    entries .. where    : the level, see settle
    corner              : int64 (s, 2)  the cells' western and southern limits
    chosen              : int64 (c,)    which cells, ascending
    reach_mm            : int32 (z,)
    pieces .. zone_level : the border tree, see geofence._kernels.tree
    kx, ky              : of the new level's cells
    words, used         : written

    Returns words and used; entries, begins, where, corner, pool of the new level; its cells that have no
    entry are left out.
    """
    parts = NODE_WORDS
    new_entries = np.empty((max(1024, 8 * len(chosen)), ENTRY_COLUMNS), np.int64)
    n_new = 0
    new_begins = np.empty(parts * len(chosen) + 1, np.int64)
    new_where = np.empty(parts * len(chosen), np.int64)
    new_corner = np.empty((parts * len(chosen), 2), np.int64)
    cells = 0
    new_pool = np.empty(max(1024, 8 * len(chosen)), np.int32)
    pool_used = 0
    made = np.empty((1024, ENTRY_COLUMNS), np.int64)
    state = np.empty(parts, np.int64)
    scratch = np.empty((STACK, 3), np.float64)
    fill = np.empty(parts + 1, np.int64)
    for c in range(len(chosen)):
        s = chosen[c]
        west = corner[s, 0]
        south = corner[s, 1]
        used = (used + NODE_WORDS - 1) // NODE_WORDS * NODE_WORDS
        words = room1(words, used, NODE_WORDS)
        node = used
        used += NODE_WORDS
        for part in range(parts):
            words[node + part] = 0
        words[where[s]] = (node << 2) | NODE
        n = 0
        for i in range(begins[s], begins[s + 1]):
            made = room2(made, n, parts)
            kind = entries[i, 2]
            zone = entries[i, 1]
            if kind == COVER:
                for part in range(parts):
                    write_entry(made, n, part, zone, COVER, 0, 0, 0, 0, 0)
                    n += 1
            elif kind == EDGES:
                n, new_pool, pool_used = _divide_edges(
                    entries[i], pool, edges, west, south, kx, ky, made, n, new_pool, pool_used, state
                )
            elif entries[i, 4] == WHOLE:
                for part in range(parts):
                    write_entry(made, n, part, zone, ASK, 0, WHOLE, 0, 0, 0)
                    n += 1
            else:
                n, new_pool, pool_used = _divide_reach(
                    entries[i],
                    pool,
                    edges,
                    west,
                    south,
                    kx,
                    ky,
                    made,
                    n,
                    new_pool,
                    pool_used,
                    state,
                    reach_mm[zone],
                    pieces,
                    zone_piece,
                    spheres,
                    levels,
                    zone_level,
                    scratch,
                )
        # in order of part; the zones are in order already
        for part in range(parts + 1):
            fill[part] = 0
        for i in range(n):
            fill[made[i, 0] + 1] += 1
        for part in range(parts):
            fill[part + 1] += fill[part]
        new_entries = room2(new_entries, n_new, n)
        first_cell = cells
        for part in range(parts):
            if fill[part + 1] > fill[part]:
                new_begins[cells] = n_new + fill[part]
                new_where[cells] = node + part
                new_corner[cells, 0] = west + ((part & ((1 << NODE_BITS) - 1)) << kx)
                new_corner[cells, 1] = south + ((part >> NODE_BITS) << ky)
                cells += 1
        cell = first_cell
        for part in range(parts):
            if fill[part + 1] == fill[part]:
                continue
            at = n_new + fill[part]
            for i in range(n):
                if made[i, 0] == part:
                    new_entries[at] = made[i]
                    new_entries[at, 0] = cell
                    at += 1
            cell += 1
        n_new += n
    new_begins[cells] = n_new
    return (
        words,
        used,
        new_entries[:n_new].copy(),
        new_begins[: cells + 1].copy(),
        new_where[:cells].copy(),
        new_corner[:cells].copy(),
        new_pool[:pool_used].copy(),
    )
