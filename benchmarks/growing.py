"""What one zone more or less costs a large set: ``python -m benchmarks.growing``.

Loads circles, then adds polygons one by one, asks each new set, and takes a zone out of it. Wall time in
milliseconds, since a call may have to wait for parts that are joined aside; the peer is loading all anew.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np

from benchmarks.__main__ import about
from geofence import ZoneSet

SEED = 20_261_124
WEST, SOUTH, EAST, NORTH = -120.0, 25.0, -70.0, 49.0


def circles(rng: np.random.Generator, count: int) -> dict[str, Any]:
    places = rng.uniform((WEST, SOUTH), (EAST, NORTH), (count, 2)).round(7).tolist()
    features = [
        {
            "type": "Feature",
            "properties": {"id": f"c{i}", "radius_m": 100},
            "geometry": {"type": "Point", "coordinates": place},
        }
        for i, place in enumerate(places)
    ]
    return {"type": "FeatureCollection", "features": features}


def square(number: int) -> dict[str, Any]:
    west, south = -80 + number / 1000, 35.0
    east, north = west + 0.01, south + 0.01
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "properties": {"id": f"s{number}"}, "geometry": geometry}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growing", description=__doc__)
    parser.add_argument("--zones", type=int, default=1_000_000)
    parser.add_argument("--changes", type=int, default=300)
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    lon, lat = rng.uniform(WEST, EAST, 2000), rng.uniform(SOUTH, NORTH, 2000)
    features = circles(rng, options.zones)
    began = time.perf_counter()
    zones = ZoneSet.from_geojson(features)
    zones.covering(lon, lat)
    loading_s = time.perf_counter() - began
    taken: dict[str, list[float]] = {"one zone more": [], "the first question after": [], "one zone less": []}
    for number in range(options.changes):
        marks = [time.perf_counter()]
        zones = zones.with_zones(square(number))
        marks.append(time.perf_counter())
        zones.covering(lon, lat)
        marks.append(time.perf_counter())
        zones.without([f"c{number}"])
        marks.append(time.perf_counter())
        for name, spent_s in zip(taken, np.diff(marks), strict=True):
            taken[name].append(float(spent_s) * 1000)
    machine = about()
    print(f"{machine['processor']}, load {machine['load'][0]:.1f}; {options.zones:,} zones")
    print(f"loading all of them and the first question: {loading_s:.1f} s")
    for name, spent_ms in taken.items():
        middle, late = np.percentile(spent_ms, (50, 99))
        print(f"{name:<25} median {middle:.3f} ms, 99th percentile {late:.3f}, most {max(spent_ms):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
