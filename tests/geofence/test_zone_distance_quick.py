"""The quick distance that ``near`` trusts lies within the bound it states of the defined one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geofence._kernels.geodesy import arc_m, chord_to_piece2, ecef
from geofence._kernels.near_plane import COLUMNS, LANES, arc_of_chord2, error_m, fill_planes, quick_chord2

METRES_A_COUNT = 0.0111
LONGEST_E7 = 2_500_000.0  # of a piece, see geodesy.PIECE_E7


def _cases(n, south, north, farthest_m, rng):
    """Positions, and for each a piece of any length that passes at any distance and slant."""
    y = np.floor(rng.uniform(south, north, n) * 1e7)
    x = np.floor(rng.uniform(-179.0, 179.0, n) * 1e7)
    east = METRES_A_COUNT * np.cos(np.radians(y / 1e7))
    away = 10 ** rng.uniform(-3.0, math.log10(farthest_m), n)
    bearing = rng.uniform(0.0, 2.0 * math.pi, n)
    length = 10 ** rng.uniform(-1.5, 4.5, n)
    across = bearing + math.pi / 2.0 * (1.0 + 1e-3 * rng.normal(size=n))
    slant = np.where(rng.random(n) < 0.3, rng.uniform(0.0, 2.0 * math.pi, n), across)
    dx, dy = length * np.cos(slant) / east, length * np.sin(slant) / METRES_A_COUNT
    shorter = np.maximum(1.0, np.maximum(np.abs(dx), np.abs(dy)) / LONGEST_E7)
    dx, dy = np.floor(dx / shorter), np.floor(dy / shorter)
    begun = rng.uniform(-0.1, 1.1, n)
    ax = np.floor(x + away * np.cos(bearing) / east - begun * dx)
    ay = np.floor(y + away * np.sin(bearing) / METRES_A_COUNT - begun * dy)
    return x, y, np.stack([ax, ay, dx, dy])


@pytest.mark.parametrize("farthest_m", [100, 5_000, 50_000])
@pytest.mark.parametrize("south", [-75, -1, 35, 60, 70])
def test_the_quick_distance_keeps_its_bound(south, farthest_m):
    rng = np.random.default_rng([south + 90, farthest_m])
    x, y, pieces = _cases(4_000, south, south + 5, farthest_m, rng)
    border = np.pad(pieces, ((0, 0), (0, LANES)))
    planes = np.empty((COLUMNS, len(y)))
    fill_planes(y, len(y), planes)
    scratch = np.empty(2 * LANES)
    compared = 0
    for i in range(len(y)):
        if max(abs(pieces[1, i]), abs(pieces[1, i] + pieces[3, i])) > 8.5e8:
            continue
        defined = arc_m(math.sqrt(chord_to_piece2(*pieces[:, i], x[i], y[i], *ecef(x[i], y[i]))))
        quick = arc_of_chord2(quick_chord2(border, i, i + 1, x[i], y[i], planes, i, scratch))
        if quick > 50_000.0:
            continue
        assert abs(quick - defined) <= error_m(quick, planes[8, i])
        compared += 1
    assert compared > 2_000


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_the_nearest_of_many_pieces_is_the_least_of_each(count):
    rng = np.random.default_rng(count)
    x, y, pieces = _cases(count, 40, 41, 1_000, rng)
    pieces[0] += x[0] - x  # all around one position
    pieces[1] += y[0] - y
    border = np.full((4, count + LANES), 7.0)  # what comes after the last piece says nothing
    border[:, :count] = pieces
    planes = np.empty((COLUMNS, 1))
    fill_planes(y[:1], 1, planes)
    scratch = np.empty(count + LANES)
    each = [quick_chord2(border, i, i + 1, x[0], y[0], planes, 0, scratch) for i in range(count)]
    assert quick_chord2(border, 0, count, x[0], y[0], planes, 0, scratch) == min(each)
