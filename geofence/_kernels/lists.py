"""Pack a grid's entries into the words that queries read.

A cell is one int32 word. Its lowest two bits say what the rest is:

0  (the word is 0) no zone concerns the cell
1  one zone covers the whole cell: its number
2  a list: the place in ``lists`` where it begins
3  a nested grid: the place in ``lists`` of its description

A list is a count and as many entries, in order of zone. Each begins with a word of zone << 2 | kind:

COVER   nothing more
EDGES   edges << 1 | state of the reference, its x, its y, then ax, ay, bx, by of each edge, turned so that
        the reference lies to its left
CIRCLE  x, y of the centre, radius in mm
ASK     nothing more

The description of a nested grid: its first cell in ``cells``, its kx, ky, and the logarithms of its columns
                                  and rows.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from geofence._kernels.exact import side
from geofence._kernels.raster import ASK, CIRCLE, COVER, EDGES

__all__ = ["IS_GRID", "IS_LIST", "IS_ZONE", "pack", "sort_entries"]

IS_ZONE = 1
IS_LIST = 2
IS_GRID = 3


@njit(cache=True, nogil=True)
def sort_entries(entries, n_cells):
    """Entries in order of cell, then zone, one for each pair; and int64 (n_cells + 1,) where each cell's
    begin.

    Of several entries of a pair COVER stands for all, then ASK.
    """
    start = np.zeros(n_cells + 1, np.int64)
    for i in range(len(entries)):
        start[entries[i, 0] + 1] += 1
    for c in range(n_cells):
        start[c + 1] += start[c]
    place = start[:-1].copy()
    order = np.empty(len(entries), np.int64)
    for i in range(len(entries)):
        c = entries[i, 0]
        j = place[c]
        while j > start[c] and entries[order[j - 1], 1] > entries[i, 1]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = i
        place[c] += 1
    kept = np.empty_like(entries)
    begins = np.zeros(n_cells + 1, np.int64)
    n = 0
    for c in range(n_cells):
        begins[c] = n
        for k in range(start[c], start[c + 1]):
            i = order[k]
            if n > begins[c] and kept[n - 1, 1] == entries[i, 1]:
                old = kept[n - 1, 2]
                new = entries[i, 2]
                if old != COVER and (new == COVER or (new == ASK and old != ASK)):
                    kept[n - 1] = entries[i]
            else:
                kept[n] = entries[i]
                n += 1
    begins[n_cells] = n
    return kept[:n], begins


@njit(cache=True, nogil=True)
def pack(entries, begins, pool, edges, centres, reach_mm, base, heavy):
    """Words of a grid's cells and the lists they point to.

    entries, begins : as sort_entries made them
    pool, edges     : int32 (p,), int32 (m, 4)
    centres         : int32 (z, 2)   of circles
    base            : the place that the first word of the lists will have
    heavy           : lists of more words than this are left for a nested grid

    Returns cells int32, lists int32, and int64 the cells that are too heavy (their word is 0 for now).
    """
    n_cells = len(begins) - 1
    cells = np.zeros(n_cells, np.int32)
    lists = np.empty(1024, np.int32)
    used = 0
    too_heavy = np.empty(16, np.int64)
    n_heavy = 0
    previous = -1  # the last cell that got a list of covers only
    for c in range(n_cells):
        first = begins[c]
        last = begins[c + 1]
        if first == last:
            continue
        words = 1
        covers = 0
        for i in range(first, last):
            kind = entries[i, 2]
            if kind == COVER:
                words += 1
                covers += 1
            elif kind == EDGES:
                words += 4 + 4 * entries[i, 4]
            elif kind == CIRCLE:
                words += 4
            else:
                words += 1
        if covers == 1 and last - first == 1:
            cells[c] = (entries[first, 1] << 2) | IS_ZONE
            continue
        if covers == last - first:
            if previous >= 0 and begins[previous + 1] - begins[previous] == covers:
                same = True
                for k in range(covers):
                    if entries[begins[previous] + k, 1] != entries[first + k, 1]:
                        same = False
                        break
                if same:
                    cells[c] = cells[previous]
                    continue
            previous = c
        elif words > heavy:
            if n_heavy == len(too_heavy):
                longer = np.empty(2 * n_heavy, np.int64)
                longer[:n_heavy] = too_heavy
                too_heavy = longer
            too_heavy[n_heavy] = c
            n_heavy += 1
            continue
        if used + words > len(lists):
            more = np.empty(2 * (used + words), np.int32)
            more[:used] = lists[:used]
            lists = more
        cells[c] = ((base + used) << 2) | IS_LIST
        lists[used] = last - first
        used += 1
        for i in range(first, last):
            kind = entries[i, 2]
            zone = entries[i, 1]
            lists[used] = (zone << 2) | kind
            used += 1
            if kind == EDGES:
                rx = entries[i, 6]
                ry = entries[i, 7]
                lists[used] = (entries[i, 4] << 1) | entries[i, 5]
                lists[used + 1] = rx
                lists[used + 2] = ry
                used += 3
                for k in range(entries[i, 3], entries[i, 3] + entries[i, 4]):
                    e = np.int64(pool[k])
                    ax = np.int64(edges[e, 0])
                    ay = np.int64(edges[e, 1])
                    bx = np.int64(edges[e, 2])
                    by = np.int64(edges[e, 3])
                    if side(ax, ay, bx, by, rx, ry) < 0:
                        ax, ay, bx, by = bx, by, ax, ay
                    lists[used] = ax
                    lists[used + 1] = ay
                    lists[used + 2] = bx
                    lists[used + 3] = by
                    used += 4
            elif kind == CIRCLE:
                lists[used] = centres[zone, 0]
                lists[used + 1] = centres[zone, 1]
                lists[used + 2] = reach_mm[zone]
                used += 3
    return cells, lists[:used].copy(), too_heavy[:n_heavy].copy()
