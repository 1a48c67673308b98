"""What is measured: seeded sets of zones and pings, as Ringfence and as shapely geometries on the same
grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely

from geofence import ZoneSet

CITY_E7 = (-808_400_000, 352_200_000)
SPAN_E7 = 5_000_000  # half a degree: about 45 by 55 km


@dataclass(frozen=True)
class WorkSet:
    """zones: built from features; shapes: polygons in 1e-7 degree; lon_e7, lat_e7: int32 pings."""

    name: str
    zones: ZoneSet
    shapes: np.ndarray
    lon_e7: np.ndarray
    lat_e7: np.ndarray


def city(seed: int, pings: int, zones: int = 1000) -> WorkSet:
    """Mixed polygons of a city: 5 to 200 vertices, 100 m to 3 km across, and an eighth of them with a
    hole.
    """
    rng = np.random.default_rng(seed)
    rings = []
    for i in range(zones):
        centre = np.array(CITY_E7) + rng.integers(-SPAN_E7 // 2, SPAN_E7 // 2, 2)
        size = math.exp(rng.uniform(math.log(5_000), math.log(150_000)))
        outer = star(rng, centre, size, int(rng.integers(5, 200)))
        hole = [star(rng, centre, size * 0.15, 8)] if i % 8 == 0 else []
        rings.append([outer, *hole])
    return _set(f"{zones} city polygons", rings, *_pings(rng, pings, CITY_E7, SPAN_E7 // 2))


def one_large(seed: int, pings: int, vertices: int = 100_000) -> WorkSet:
    """One polygon of many vertices; half of the pings are in its box's inside."""
    rng = np.random.default_rng(seed)
    ring = star(rng, np.array(CITY_E7), 2_000_000, vertices, wild=0.05)
    return _set(f"one polygon of {vertices} vertices", [[ring]], *_pings(rng, pings, CITY_E7, 2_200_000))


def tessellation(seed: int, pings: int, zones: int = 3000) -> WorkSet:
    """Polygons that share borders and leave no gap, over a country: as counties do (Voronoi cells, 1,000
    vertices more).
    """
    rng = np.random.default_rng(seed)
    extent = shapely.box(-1_240_000_000, 250_000_000, -670_000_000, 490_000_000)
    points = shapely.multipoints(rng.uniform([-1.24e9, 2.5e8], [-6.7e8, 4.9e8], (zones, 2)))
    cells = shapely.get_parts(shapely.voronoi_polygons(points, extend_to=extent))
    cells = shapely.intersection(cells, extent)
    rings = [[[tuple(p) for p in np.rint(shapely.get_coordinates(cell)).astype(np.int64)]] for cell in cells]
    x = rng.integers(-1_240_000_000, -670_000_000, pings, dtype=np.int32)
    y = rng.integers(250_000_000, 490_000_000, pings, dtype=np.int32)
    return _set(f"{zones} adjacent polygons", rings, x, y)


def star(
    rng: np.random.Generator, centre: np.ndarray, size: float, points: int, wild: float = 0.5
) -> list[tuple[int, int]]:
    """A ring, closed, that a ray from its centre crosses once."""
    angle = 2 * math.pi * (np.arange(points) + rng.uniform(0.1, 0.9, points)) / points
    reach = size * rng.uniform(1 - wild, 1.0, points)
    ring = np.stack([centre[0] + reach * np.cos(angle), centre[1] + reach * np.sin(angle)], axis=1)
    ring = np.rint(np.concatenate([ring, ring[:1]])).astype(np.int64)
    return [(int(x), int(y)) for x, y in ring]


def _pings(
    rng: np.random.Generator, n: int, centre: tuple[int, int], half: int
) -> tuple[np.ndarray, np.ndarray]:
    x = rng.integers(centre[0] - half, centre[0] + half, n, dtype=np.int32)
    y = rng.integers(centre[1] - half, centre[1] + half, n, dtype=np.int32)
    return x, y


def _set(name: str, polygons: list[list[list[tuple[int, int]]]], x: np.ndarray, y: np.ndarray) -> WorkSet:
    shapes = np.array([shapely.Polygon(rings[0], rings[1:]) for rings in polygons])
    keep = shapely.is_valid(shapes)
    features = [
        {
            "type": "Feature",
            "properties": {"id": f"z{i}"},
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[a / 1e7, b / 1e7] for a, b in ring] for ring in rings],
            },
        }
        for i, rings in enumerate(polygons)
        if keep[i]
    ]
    zones = ZoneSet.from_geojson({"type": "FeatureCollection", "features": features})
    return WorkSet(name, zones, shapes[keep], x, y)
