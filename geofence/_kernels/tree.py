"""The nearest piece of a zone's border: a tree of spheres over consecutive pieces.

Each piece lies in a sphere in space; FANOUT spheres in a row lie in a larger one, up to a single sphere. A
sphere is
never nearer than its centre's distance less its radius, at the poles and across the antimeridian too, so
skipping by it is safe, and the least distance is the same whatever is skipped.

spheres    : float64 (k, 4)   centre x, y, z and radius, metres; level by level, the pieces' own spheres first
levels     : int64 (l,)       where each level of each zone begins in spheres
zone_level : int64 (z+1,)     zone z has levels zone_level[z]:zone_level[z+1]; the last of them only marks
                              the end
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from geofence._kernels.geodesy import RADIANS_PER_E7, chord_to_piece2, ecef

__all__ = ["FANOUT", "STACK", "build_spheres", "nearest_chord", "sphere_bound"]

FANOUT = 8
STACK = FANOUT * 12  # 12 levels of 8 hold 6.9e10 pieces
MAX_RADIUS_M = 6_400_000.0  # no radius of curvature of the ellipsoid is larger
SLACK_M = 1e-6  # far above the rounding of a chord (1e-9 m)


@njit(cache=True, nogil=True)
def build_spheres(pieces, zone_piece):
    """Spheres, levels and zone_level of all zones."""
    zones = len(zone_piece) - 1
    nodes = 0
    marks = 0
    for z in range(zones):
        n = zone_piece[z + 1] - zone_piece[z]
        nodes += n
        marks += 2
        while n > 1:
            n = (n + FANOUT - 1) // FANOUT
            nodes += n
            marks += 1
    spheres = np.empty((nodes, 4), np.float64)
    levels = np.empty(marks, np.int64)
    zone_level = np.empty(zones + 1, np.int64)
    at = 0
    mark = 0
    for z in range(zones):
        zone_level[z] = mark
        levels[mark] = at
        mark += 1
        for i in range(zone_piece[z], zone_piece[z + 1]):
            _piece_sphere(pieces[i, 0], pieces[i, 1], pieces[i, 2], pieces[i, 3], spheres, at)
            at += 1
        n = zone_piece[z + 1] - zone_piece[z]
        below = levels[mark - 1]
        while n > 1:
            levels[mark] = at
            mark += 1
            for i in range((n + FANOUT - 1) // FANOUT):
                _join(spheres, below + i * FANOUT, below + min(n, (i + 1) * FANOUT), at)
                at += 1
            n = (n + FANOUT - 1) // FANOUT
            below = levels[mark - 1]
        levels[mark] = at
        mark += 1
    zone_level[zones] = mark
    return spheres, levels, zone_level


@njit(cache=True, nogil=True)
def _piece_sphere(ax, ay, dx, dy, spheres, at):
    """Around a piece's middle, as far as the path along it to an end can be."""
    x, y, z = ecef(ax + 0.5 * dx, ay + 0.5 * dy)
    south = min(ay, ay + dy)
    north = max(ay, ay + dy)
    nearest_equator = 0.0 if south <= 0.0 <= north else min(abs(south), abs(north))
    widest = math.cos(nearest_equator * RADIANS_PER_E7) + 1e-9
    u = 0.5 * dx * RADIANS_PER_E7 * widest
    v = 0.5 * dy * RADIANS_PER_E7
    spheres[at, 0] = x
    spheres[at, 1] = y
    spheres[at, 2] = z
    spheres[at, 3] = MAX_RADIUS_M * math.sqrt(u * u + v * v) + SLACK_M


@njit(cache=True, nogil=True)
def _join(spheres, first, last, at):
    x = y = z = 0.0
    for i in range(first, last):
        x += spheres[i, 0]
        y += spheres[i, 1]
        z += spheres[i, 2]
    n = float(last - first)
    x /= n
    y /= n
    z /= n
    radius = 0.0
    for i in range(first, last):
        ex = spheres[i, 0] - x
        ey = spheres[i, 1] - y
        ez = spheres[i, 2] - z
        radius = max(radius, math.sqrt(ex * ex + ey * ey + ez * ez) + spheres[i, 3])
    spheres[at, 0] = x
    spheres[at, 1] = y
    spheres[at, 2] = z
    spheres[at, 3] = radius + SLACK_M


@njit(cache=True, nogil=True)
def sphere_bound(spheres, i, px, py, pz):
    ex = spheres[i, 0] - px
    ey = spheres[i, 1] - py
    ez = spheres[i, 2] - pz
    return math.sqrt(ex * ex + ey * ey + ez * ez) - spheres[i, 3] - SLACK_M


@njit(cache=True, nogil=True)
def nearest_chord(
    pieces, first, last, spheres, levels, level_first, level_last, x, y, px, py, pz, limit, stack
):
    """The chord, metres, from a position to the nearest of a zone's pieces; infinite if all are farther than
    ``limit``.

    x, y, px, py, pz        : float64  the position, 1e-7 degree, and the same in space, metres
    first, last             : the zone's pieces
    level_first, level_last : zone_level[z], zone_level[z + 1]
    stack                   : float64 (STACK, 3), scratch: a node, its height and its bound
    """
    best2 = limit * limit if limit < 1e9 else math.inf
    best = limit
    found = False
    if last - first == 1:
        return math.sqrt(
            chord_to_piece2(
                pieces[first, 0], pieces[first, 1], pieces[first, 2], pieces[first, 3], x, y, px, py, pz
            )
        )
    if last == first:
        return math.inf
    # Depth first, the nearest child on top.
    top_level = level_last - 2 - level_first
    stack[0, 0] = levels[level_first + top_level]
    stack[0, 1] = top_level
    stack[0, 2] = 0.0
    depth = 1
    while depth > 0:
        depth -= 1
        if stack[depth, 2] > best:
            continue
        h = int(stack[depth, 1])
        i = int(stack[depth, 0])
        if h == 0:
            k = first + i - levels[level_first]
            d2 = chord_to_piece2(pieces[k, 0], pieces[k, 1], pieces[k, 2], pieces[k, 3], x, y, px, py, pz)
            if d2 <= best2:
                best2 = d2
                best = math.sqrt(d2)
                found = True
            continue
        below = levels[level_first + h - 1]
        begin = below + (i - levels[level_first + h]) * FANOUT
        end = min(begin + FANOUT, levels[level_first + h])
        base = depth
        for c in range(begin, end):
            b = sphere_bound(spheres, c, px, py, pz)
            if b > best:
                continue
            at = depth
            while at > base and stack[at - 1, 2] < b:
                stack[at, 0] = stack[at - 1, 0]
                stack[at, 1] = stack[at - 1, 1]
                stack[at, 2] = stack[at - 1, 2]
                at -= 1
            stack[at, 0] = c
            stack[at, 1] = h - 1
            stack[at, 2] = b
            depth += 1
    return best if found else math.inf
