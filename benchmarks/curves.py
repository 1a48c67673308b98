"""What covering costs as its work grows: ``python -m benchmarks.curves``.

zones     : 100 to 1,000,000 zones (half of them circles) over the same area; nanoseconds a ping, and for the
            index bytes a zone and seconds to build
vertices  : one polygon of 10 to 1,000,000 vertices; nanoseconds a ping, bytes a vertex, seconds to build
cores     : the same question by 1, 2, … threads at once; pings a second of wall time
roofline  : what streaming the pings and reading one word at random for each costs on this machine, and how
            near covering is

Processor time but for ``cores``; medians over rounds. Writes benchmarks/results/curves.{json,svg,txt}.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from benchmarks.__main__ import RESULTS, about
from benchmarks.curve_chart import svg
from geofence import ZoneSet

SEED = 20_261_124
CENTRE_E7 = np.array((-808_400_000, 352_200_000))
WORD_TABLE_BYTES = 8 << 20  # as large as the cells of an index may become


def features(rng: np.random.Generator, count: int, span_e7: int) -> list[dict[str, Any]]:
    """Half circles of 50 to 300 m, half rounded outlines of 8 to 40 vertices and the same sizes."""
    made = []
    for i in range(count):
        lon, lat = (CENTRE_E7 + rng.integers(-span_e7, span_e7, 2)) / 1e7
        radius_m = float(rng.uniform(50, 300))
        properties: dict[str, Any] = {"id": f"z{i}"}
        geometry: dict[str, Any] = {"type": "Point", "coordinates": [lon, lat]}
        if i % 2:
            geometry = {
                "type": "Polygon",
                "coordinates": [outline(rng, lon, lat, radius_m, int(rng.integers(8, 40)))],
            }
        else:
            properties["radius_m"] = radius_m
        made.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return made


def outline(
    rng: np.random.Generator, lon: float, lat: float, radius_m: float, vertices: int
) -> list[list[float]]:
    """A closed ring around a place, its radius waving by a fifth."""
    angle = np.linspace(0, 2 * math.pi, vertices, endpoint=False)
    reach = radius_m / 111_000 * (1 + 0.2 * np.sin(angle * rng.integers(2, 6) + rng.uniform(0, 6)))
    ring = np.stack([lon + reach * np.cos(angle), lat + reach * np.sin(angle)], axis=1).round(7).tolist()
    return [*ring, ring[0]]


def pings(rng: np.random.Generator, count: int, span_e7: int) -> tuple[np.ndarray, np.ndarray]:
    lon, lat = (CENTRE_E7[:, None] + rng.integers(-span_e7, span_e7, (2, count))).astype(np.int32)
    return lon, lat


def median_ns(ask: Callable[[], Any], count: int, rounds: int) -> float:
    """Nanoseconds of processor time for each of ``count``."""
    ask()
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        ask()
        taken.append(time.process_time() - began)
    return statistics.median(taken) / count * 1e9


def covering_ns(loaded: ZoneSet, count: int, rounds: int, span_e7: int) -> float:
    """Nanoseconds of processor time for each ping spread over the span."""
    lon, lat = pings(np.random.default_rng(SEED + 1), count, span_e7)
    return median_ns(lambda: loaded.covering_e7(lon, lat), count, rounds)


def built(loaded: ZoneSet) -> tuple[float, int]:
    """Seconds of processor time to build the index, and the bytes of all that a question reads."""
    began = time.process_time()
    block = loaded.whole
    index = block.index
    spent = time.process_time() - began
    columns = block.columns
    return spent, index.nbytes + sum(getattr(columns, name).nbytes for name in columns.__slots__)


def by_zones(most: int, count: int, rounds: int) -> list[dict[str, Any]]:
    rows = []
    for zones in (10**k for k in range(2, round(math.log10(most)) + 1)):
        rng = np.random.default_rng(SEED)
        span_e7 = 5_000_000 if zones <= 10_000 else 50_000_000  # a city; from 100,000 zones on a region
        loaded = ZoneSet.from_geojson(
            {"type": "FeatureCollection", "features": features(rng, zones, span_e7)}
        )
        build_s, nbytes = built(loaded)
        ns = covering_ns(loaded, count, rounds, span_e7)
        rows.append({"zones": zones, "ns_per_ping": ns, "bytes_per_zone": nbytes / zones, "build_s": build_s})
        print(
            f"{zones:>9,} zones      {ns:7.1f} ns a ping  {nbytes / zones:8.0f} bytes a zone "
            f"{build_s:8.3f} s to build"
        )
    return rows


def by_vertices(most: int, count: int, rounds: int) -> list[dict[str, Any]]:
    rows = []
    for vertices in (10**k for k in range(1, round(math.log10(most)) + 1)):
        rng = np.random.default_rng(SEED)
        lon, lat = CENTRE_E7 / 1e7
        ring = outline(rng, float(lon), float(lat), 20_000, vertices)
        loaded = ZoneSet.from_geojson(
            {
                "type": "Feature",
                "properties": {"id": "z"},
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
        )
        build_s, nbytes = built(loaded)
        ns = covering_ns(loaded, count, rounds, 2_500_000)
        rows.append(
            {
                "vertices": vertices,
                "ns_per_ping": ns,
                "bytes_per_vertex": nbytes / vertices,
                "build_s": build_s,
            }
        )
        print(
            f"{vertices:>9,} vertices   {ns:7.1f} ns a ping  {nbytes / vertices:8.0f} bytes each   "
            f"{build_s:8.3f} s to build"
        )
    return rows


def by_cores(count: int, rounds: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(SEED)
    loaded = ZoneSet.from_geojson({"type": "FeatureCollection", "features": features(rng, 1000, 5_000_000)})
    lon, lat = pings(rng, count, 5_000_000)
    loaded.covering_e7(lon[:10], lat[:10])
    rows = []
    for threads in range(1, (os.cpu_count() or 1) + 1):
        walls = []
        for _ in range(rounds):
            began = time.perf_counter()
            loaded.covering_e7(lon, lat, threads=threads)
            walls.append(time.perf_counter() - began)
        rate = count / statistics.median(walls)
        rows.append({"threads": threads, "pings_per_s": rate})
        print(f"{threads:>9} threads    {rate / 1e6:7.1f} M pings/s of wall time")
    return rows


@njit
def _stream(lon: Any, lat: Any) -> int:
    total = 0
    for i in range(len(lon)):
        total += lon[i] ^ lat[i]
    return total


@njit
def _one_read(lon: Any, lat: Any, words: Any) -> int:
    """The least that a grid must do: a word at a place that follows from the ping."""
    total = 0
    mask = len(words) - 1
    for i in range(len(lon)):
        total += words[(lon[i] * 2_654_435 + lat[i] * 40_503) & mask]
    return total


def roofline(count: int, rounds: int) -> dict[str, float]:
    rng = np.random.default_rng(SEED)
    lon, lat = pings(rng, count, 5_000_000)
    words = rng.integers(0, 1 << 30, WORD_TABLE_BYTES // 4, dtype=np.int32)
    far = ZoneSet.from_geojson({"type": "FeatureCollection", "features": features(rng, 1000, 5_000_000)})
    found = {
        "stream_ns": median_ns(lambda: _stream(lon, lat), count, rounds),
        "one_read_ns": median_ns(lambda: _one_read(lon, lat, words), count, rounds),
        "covering_ns": median_ns(lambda: far.covering_e7(lon, lat), count, rounds),
    }
    print(
        f"roofline: streaming {found['stream_ns']:.2f} ns a ping, with one random read in 8 MB "
        f"{found['one_read_ns']:.2f} ns, covering 1,000 zones {found['covering_ns']:.2f} ns"
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 100,000 zones and vertices")
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the results")
    options = parser.parse_args()
    most, count, rounds = (100_000, 500_000, 5) if options.quick else (1_000_000, 2_000_000, 9)
    report: dict[str, Any] = {
        "about": about(),
        "seed": SEED,
        "quick": options.quick,
        "by_zones": by_zones(most, count, rounds),
        "by_vertices": by_vertices(most, count, rounds),
        "by_cores": by_cores(4 * count, rounds),
        "roofline": roofline(2 * count, rounds),
    }
    options.out.mkdir(exist_ok=True, parents=True)
    (options.out / "curves.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "curves.svg").write_text(svg(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
