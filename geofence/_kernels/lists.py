"""The words of a cell index, and the entries they are made from.

One int32 array holds everything, the top grid's cells first. A word's lowest two bits say what its rest, a
place in the array, points to:

SET    zones that cover all of the cell: how many, then their numbers in order. Word 0 is the empty set: it
       points to the top grid's first cell, which is 0, since the grid has a free rim
NODE   16 words, row by row: the cell's quarters of quarters, each 4 times narrower and lower
CHAIN  one line of edges crosses the cell, be it the border of one zone or of several that share it:
       how many edges, three words of sets for flipped, on, same; then, if it is one edge, ax, ay, bx, by
       of it, the smaller end first: a position to its right is "flipped", to its left "same"; else a
       reference position x, y in the cell and the edges, turned so that it lies to their left: whoever is
       cut off from it by an odd number of edges is "flipped"
MIXED  several borders: the place of the set that covers the cell anyway, how many entries, and these in order
       of zone. Each begins with zone << 2 | kind. EDGES and ASK go on with edges << 1 | state of the
       reference, and if there are edges with its x, its y, and the edges, turned likewise; CIRCLE with the
       number of its centre in the border tree's spheres, and its radius in mm

Equal records are stored once. A record of one edge holds nothing of the cell, so an edge costs 32 bytes
however many cells it crosses.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from geofence._kernels.raster import ASK, COVER, EDGES

__all__ = ["CHAIN", "IS_GRID", "IS_LIST", "MIXED", "NODE", "NODE_BITS", "NODE_WORDS", "SET", "sort_entries"]

SET = 0
NODE = 1
CHAIN = 2
MIXED = 3

NODE_BITS = 2
NODE_WORDS = 1 << 2 * NODE_BITS  # 64 bytes: one line of the cache

# of the words of geofence._kernels.near
IS_LIST = 2
IS_GRID = 3


@njit(cache=True, nogil=True)
def sort_entries(entries, n_cells):
    """Entries in order of cell, then zone, one for each pair; and int64 (n_cells + 1,) where each cell's
    begin.

    Of several entries of a pair COVER stands for all; ASK and EDGES become an ASK with edges.
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
                if old == EDGES and new == ASK:
                    kept[n - 1, 2] = ASK
                elif old != COVER and (new == COVER or new == EDGES):
                    kept[n - 1] = entries[i]
                    if new == EDGES and old == ASK:
                        kept[n - 1, 2] = ASK
            else:
                kept[n] = entries[i]
                n += 1
    begins[n_cells] = n
    return kept[:n], begins
