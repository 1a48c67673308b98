"""The kernels run as plain Python, so that an index out of bounds is an error; and what warm() promises."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = """
import numpy as np
from geofence import ZoneSet
from geofence.zone_rehearsal import warm
from tests import naive
from tests.geofence.zone_shapes import collection, feature, line, point, star, telling_positions, with_holes

np.seterr(all="raise")  # an overflow of int64 is an error as well
warm()
rng = np.random.default_rng(1)
centre = (-808_400_000, 352_200_000)
polygons = [[star(rng, centre, 3_000, 12)], [with_holes(centre, 2_000)]]
zones = ZoneSet.from_geojson(collection(
    *(feature(f"z{i}", p) for i, p in enumerate(polygons)),
    line("l", [[-80.84, 35.22], [-80.8395, 35.2203]], 15), point("c", -80.84, 35.22, 20),
))
x, y = telling_positions(rng, polygons[0], 12)
found = set(map(tuple, zones.covering_e7(x, y).T.tolist()))
for i in range(len(x)):
    for z, p in enumerate(polygons):
        assert ((i, z) in found) == naive.covers(p, (int(x[i]), int(y[i])))
ping, zone, mm = zones.near(x, y, 50_000)
assert np.array_equal(zones.distance_mm(x[ping], y[ping], zone), mm)
print("agreed", len(x), len(ping))
"""


def test_the_kernels_without_the_compiler():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("agreed")
