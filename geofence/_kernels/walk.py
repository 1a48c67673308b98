"""The zones in the cells that straight tracks pass through."""

from __future__ import annotations

import numpy as np
from numba import njit

from geofence._kernels.lists import CHAIN, NODE, NODE_BITS, SET
from geofence._kernels.raster import CIRCLE, room2

__all__ = ["walk_tracks"]

MAX_LON = 2_140_000_000
MAX_LAT = 900_000_000
FULL_TURN = 3_600_000_000
HALF_TURN = 1_800_000_000


@njit(cache=True, nogil=True)
def _add(track, zone, used, t, z):
    if used == len(track):
        longer = np.empty(2 * used, np.int64)
        longer[:used] = track
        track = longer
        longer = np.empty(2 * used, np.int64)
        longer[:used] = zone
        zone = longer
    track[used] = t
    zone[used] = z
    return track, zone, used + 1


@njit(cache=True, nogil=True)
def _add_set(track, zone, used, t, words, at):
    for k in range(at + 1, at + 1 + words[at]):
        track, zone, used = _add(track, zone, used, t, words[k])
    return track, zone, used


@njit(cache=True, nogil=True)
def walk_tracks(ax, ay, bx, by, words, kx, ky, col0, row0, cols, rows):
    """Candidates of tracks: int64 track, int64 zone, and how many are used; with repetitions, by track.

    ax, ay, bx, by : int32 (t,)  the tracks' ends, 1e-7 degree; the short way round
    others         : a cell index, see geofence._kernels.lists
    """
    track = np.empty(1024, np.int64)
    zone = np.empty(1024, np.int64)
    used = 0
    stack = np.empty((4096, 6), np.int64)
    for t in range(len(ax)):
        x0 = np.int64(ax[t])
        y0 = np.int64(ay[t])
        x1 = np.int64(bx[t])
        y1 = np.int64(by[t])
        if max(abs(x0), abs(x1)) > MAX_LON or max(abs(y0), abs(y1)) > MAX_LAT:
            continue
        if x1 - x0 > HALF_TURN:
            x1 -= FULL_TURN
        elif x0 - x1 > HALF_TURN:
            x1 += FULL_TURN
        for turn in range(-1, 2):
            u0 = x0 + turn * FULL_TURN
            u1 = x1 + turn * FULL_TURN
            if max(u0, u1) < -MAX_LON or min(u0, u1) > MAX_LON:
                continue
            # a grid to walk: its first word, shifts, first column and row, and whether it is a node
            stack[0] = (0, kx, ky, col0, row0, 0)
            depth = 1
            while depth > 0:
                depth -= 1
                base = stack[depth, 0]
                gx = stack[depth, 1]
                gy = stack[depth, 2]
                gc = stack[depth, 3]
                gr = stack[depth, 4]
                width = cols
                height = rows
                if stack[depth, 5] != 0:
                    width = height = 1 << NODE_BITS
                south = min(y0, y1)
                north = max(y0, y1)
                for row in range(max((south >> gy) - gr, 0), min((north >> gy) - gr, height - 1) + 1):
                    west = min(u0, u1)
                    east = max(u0, u1)
                    if y0 != y1:
                        # the track's part in this row, one count wider on either side (products: see exact)
                        low = max(south, (row + gr) << gy)
                        high = min(north, (row + gr + 1) << gy)
                        p = u0 + (u1 - u0) * (low - y0) // (y1 - y0)
                        q = u0 + (u1 - u0) * (high - y0) // (y1 - y0)
                        west = max(west, min(p, q) - 1)
                        east = min(east, max(p, q) + 1)
                    for col in range(max((west >> gx) - gc, 0), min((east >> gx) - gc, width - 1) + 1):
                        w = np.int64(words[base + row * width + col])
                        at = w >> 2
                        if w == 0:
                            continue
                        if w & 3 == NODE:
                            if depth == len(stack):
                                stack = room2(stack, depth, 1)
                            stack[depth, 0] = at
                            stack[depth, 1] = gx - NODE_BITS
                            stack[depth, 2] = gy - NODE_BITS
                            stack[depth, 3] = (col + gc) << NODE_BITS
                            stack[depth, 4] = (row + gr) << NODE_BITS
                            stack[depth, 5] = 1
                            depth += 1
                        elif w & 3 == SET:
                            track, zone, used = _add_set(track, zone, used, t, words, at)
                        elif w & 3 == CHAIN:
                            track, zone, used = _add_set(track, zone, used, t, words, words[at + 2] >> 2)
                        else:
                            track, zone, used = _add_set(track, zone, used, t, words, words[at])
                            count = words[at + 1]
                            at += 2
                            for _ in range(count):
                                track, zone, used = _add(track, zone, used, t, words[at] >> 2)
                                kind = words[at] & 3
                                at += 1
                                if kind == CIRCLE:
                                    at += 2
                                else:
                                    n = words[at] >> 1
                                    at += 1
                                    if n > 0:
                                        at += 2 + 4 * n
    return track, zone, used
