"""What is measured: seeded sets of zones and pings, as Ringfence and as shapely geometries on the same grid.

Why each stands:

city       what the product is asked every day: the outlines that a city's zones have, in their usual mix
counties   real polygons that share borders and leave no gap: every ping is in exactly one, every border is
           two zones' border; from Key West to Alaska
one_coast  one border of 100,000 vertices, rough at every scale, as a coast or a river is
wild_city  the hard case of a city: each vertex at a random distance from the middle, so a border is several
           times as long as that of any zone one would draw, and a third of the pings are near one
one_burst  the hard case of one zone: 100,000 needles side by side; no grid tells them apart
charlotte  real zones of a real city, where the shared data is present
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from benchmarks.counties import county_features
from geofence import ZoneSet

CITY_E7 = (-808_400_000, 352_200_000)
SPAN_E7 = 5_000_000  # half a degree: about 45 by 55 km
PER_M = 90.0  # counts of 1e-7 degree in a metre along a meridian
SQUASH = 1.22  # a degree of longitude is that much shorter there
CHARLOTTE = Path(__file__).parent.parent.parent / "shared/data/charlotte"
LOWER_48 = (-1_248_000_000, 244_000_000, -669_000_000, 494_000_000)

Ring = list[tuple[int, int]]


@dataclass(frozen=True)
class WorkSet:
    """zones: built from features; shapes: polygons in 1e-7 degree; lon_e7, lat_e7: int32 pings."""

    name: str
    zones: ZoneSet
    shapes: np.ndarray
    lon_e7: np.ndarray
    lat_e7: np.ndarray


def city(seed: int, pings: int, zones: int = 1000) -> WorkSet:
    """Of 1,000 zones: 350 blocks and parcels (rectangles of 60 to 400 m, turned), 250 school grounds (6 to 16
    corners, 100 to 600 m), 250 neighbourhoods (smooth, 50 to 500 vertices, 0.5 to 3 km), 140 parks and lakes
    (smooth, 30 to 200 vertices, 0.2 to 2 km, each third with a hole), 10 districts (2,000 to 8,000 vertices,
    5 to 12 km).
    """
    rng = np.random.default_rng(seed)
    polygons = []
    for i in range(zones):
        centre = np.array(CITY_E7) + rng.integers(-SPAN_E7 // 2, SPAN_E7 // 2, 2)
        kind = i % 100
        if kind < 35:
            rings = [_block(rng, centre, _between(rng, 60, 400))]
        elif kind < 60:
            rings = [_grounds(rng, centre, _between(rng, 100, 600), int(rng.integers(6, 17)))]
        elif kind < 85:
            rings = [blob(rng, centre, _between(rng, 500, 3_000), int(rng.integers(50, 501)))]
        elif kind < 99:
            size = _between(rng, 200, 2_000)
            rings = [blob(rng, centre, size, int(rng.integers(30, 201)))]
            if i % 3 == 0:
                rings.append(blob(rng, centre, size * 0.25, 24))
        else:
            rings = [blob(rng, centre, _between(rng, 5_000, 12_000), int(rng.integers(2_000, 8_001)))]
        polygons.append([rings])
    return _set(f"{zones} city zones", polygons, *_pings(rng, pings, CITY_E7, SPAN_E7 // 2))


def counties(seed: int, pings: int) -> WorkSet:
    """The counties of the United States; pings anywhere in the box of the lower 48 states."""
    rng = np.random.default_rng(seed)
    polygons = [
        [[_on_grid(ring) for ring in rings] for rings in feature["geometry"]["coordinates"]]
        for feature in county_features()
    ]
    west, south, east, north = LOWER_48
    x = rng.integers(west, east, pings, dtype=np.int32)
    y = rng.integers(south, north, pings, dtype=np.int32)
    return _set("US counties", polygons, x, y)


def one_coast(seed: int, pings: int, vertices: int = 100_000) -> WorkSet:
    """One island of many vertices, 45 km across; its coast is rough at every scale."""
    rng = np.random.default_rng(seed)
    angle = 2 * math.pi * np.arange(vertices) / vertices
    reach = np.full(vertices, 1.0)
    for octave in range(1, 13):
        for waves in rng.integers(2**octave, 2 ** (octave + 1), 4):
            reach += 0.25 / waves * np.cos(waves * angle + rng.uniform(0, 2 * math.pi))
    ring = _ring(np.array(CITY_E7), 2_000_000 * reach, angle)
    return _set(f"one coast of {vertices} vertices", [[[ring]]], *_pings(rng, pings, CITY_E7, 2_600_000))


def wild_city(seed: int, pings: int, zones: int = 1000) -> WorkSet:
    """Stars of 5 to 200 vertices, 100 m to 3 km across, an eighth of them with a hole."""
    rng = np.random.default_rng(seed)
    polygons = []
    for i in range(zones):
        centre = np.array(CITY_E7) + rng.integers(-SPAN_E7 // 2, SPAN_E7 // 2, 2)
        size = math.exp(rng.uniform(math.log(5_000), math.log(150_000)))
        outer = star(rng, centre, size, int(rng.integers(5, 200)))
        hole = [star(rng, centre, size * 0.15, 8)] if i % 8 == 0 else []
        polygons.append([[outer, *hole]])
    return _set(f"{zones} wild stars", polygons, *_pings(rng, pings, CITY_E7, SPAN_E7 // 2))


def one_burst(seed: int, pings: int, vertices: int = 100_000) -> WorkSet:
    """One star of many vertices; half of the pings are in its box's inside."""
    rng = np.random.default_rng(seed)
    ring = star(rng, np.array(CITY_E7), 2_000_000, vertices, wild=0.05)
    return _set(f"one burst of {vertices} vertices", [[[ring]]], *_pings(rng, pings, CITY_E7, 2_200_000))


def charlotte(seed: int, pings: int) -> WorkSet | None:
    """Charlotte's neighbourhoods, precincts and parks; None where the data is absent."""
    files = [
        CHARLOTTE / f"{name}.geojson" for name in ("neighborhood_profile_areas", "voting_precincts", "parks")
    ]
    if not all(file.is_file() for file in files):
        return None
    polygons: list[list[list[Ring]]] = []
    for file in files:
        for feature in json.loads(file.read_text())["features"]:
            geometry = feature["geometry"]
            if geometry is None or not geometry["type"].endswith("Polygon"):
                continue
            parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
            polygons.append([[_on_grid(ring) for ring in rings] for rings in parts])
    rng = np.random.default_rng(seed)
    every = np.concatenate([np.array(ring) for parts in polygons for rings in parts for ring in rings])
    (west, south), (east, north) = every.min(axis=0), every.max(axis=0)
    x = rng.integers(west, east, pings).astype(np.int32)
    y = rng.integers(south, north, pings).astype(np.int32)
    return _set("Charlotte", polygons, x, y)


def star(rng: np.random.Generator, centre: np.ndarray, size: float, points: int, wild: float = 0.5) -> Ring:
    """A ring, closed, that a ray from its centre crosses once."""
    angle = 2 * math.pi * (np.arange(points) + rng.uniform(0.1, 0.9, points)) / points
    return _ring(centre, size * rng.uniform(1 - wild, 1.0, points), angle)


def blob(rng: np.random.Generator, centre: np.ndarray, across_m: float, points: int) -> Ring:
    """A smooth outline with a few bays, surveyed to a metre."""
    angle = 2 * math.pi * np.arange(points) / points
    reach = np.ones(points)
    for waves in range(2, 8):
        reach += rng.uniform(0, 0.5) / waves * np.cos(waves * angle + rng.uniform(0, 2 * math.pi))
    reach *= across_m / 2 * PER_M
    return _ring(centre, reach + rng.uniform(-PER_M / 2, PER_M / 2, points), angle)


def _block(rng: np.random.Generator, centre: np.ndarray, long_m: float) -> Ring:
    """A rectangle, turned."""
    half = np.array([long_m, long_m * rng.uniform(0.3, 1.0)]) / 2 * PER_M
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    return _turned(rng, centre, corners)


def _grounds(rng: np.random.Generator, centre: np.ndarray, across_m: float, corners: int) -> Ring:
    """An outline of straight sides and a few corners."""
    angle = 2 * math.pi * (np.arange(corners) + rng.uniform(0.2, 0.8, corners)) / corners
    reach = across_m / 2 * PER_M * rng.uniform(0.75, 1.0, corners)
    return _turned(rng, centre, np.stack([reach * np.cos(angle), 0.7 * reach * np.sin(angle)], axis=1))


def _turned(rng: np.random.Generator, centre: np.ndarray, corners: np.ndarray) -> Ring:
    turn = rng.uniform(0, math.pi)
    matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return _closed(centre + corners @ matrix * [SQUASH, 1.0])


def _ring(centre: np.ndarray, reach: np.ndarray, angle: np.ndarray) -> Ring:
    return _closed(np.stack([centre[0] + reach * np.cos(angle), centre[1] + reach * np.sin(angle)], axis=1))


def _closed(points: np.ndarray) -> Ring:
    ring = np.rint(np.concatenate([points, points[:1]])).astype(np.int64)
    return [(int(x), int(y)) for x, y in ring]


def _on_grid(ring: list[list[float]]) -> Ring:
    return [(int(x), int(y)) for x, y in np.rint(np.array(ring)[:, :2] * 1e7).astype(np.int64)]


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Any size between two, small ones as often as large ones for each doubling."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _pings(
    rng: np.random.Generator, n: int, centre: tuple[int, int], half: int
) -> tuple[np.ndarray, np.ndarray]:
    x = rng.integers(centre[0] - half, centre[0] + half, n, dtype=np.int32)
    y = rng.integers(centre[1] - half, centre[1] + half, n, dtype=np.int32)
    return x, y


def _set(name: str, zones: list[list[list[Ring]]], x: np.ndarray, y: np.ndarray) -> WorkSet:
    """zones: polygons of rings. Invalid ones (rings that cross) are left out on both sides."""
    shapes = np.array(
        [
            shapely.Polygon(parts[0][0], parts[0][1:])
            if len(parts) == 1
            else shapely.MultiPolygon([(rings[0], rings[1:]) for rings in parts])
            for parts in zones
        ]
    )
    keep = shapely.is_valid(shapes)
    features: list[dict[str, Any]] = [
        {
            "type": "Feature",
            "properties": {"id": f"z{i}"},
            "geometry": {
                "type": "MultiPolygon",
                "coordinates": [[[[a / 1e7, b / 1e7] for a, b in ring] for ring in rings] for rings in parts],
            },
        }
        for i, parts in enumerate(zones)
        if keep[i]
    ]
    return WorkSet(
        name, ZoneSet.from_geojson({"type": "FeatureCollection", "features": features}), shapes[keep], x, y
    )
