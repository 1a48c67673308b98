"""Polygons to test with, as rings of whole 1e-7 degrees, closed."""

from __future__ import annotations

import math

import numpy as np


def close(points):
    return [tuple(int(v) for v in p) for p in points] + [tuple(int(v) for v in points[0])]


def star(rng, centre, radius, points):
    angle = 2 * math.pi * (np.arange(points) + rng.uniform(0.1, 0.9, points)) / points
    reach = radius * rng.uniform(0.2, 1.0, points)
    ring = np.stack([centre[0] + reach * np.cos(angle), centre[1] + reach * np.sin(angle)], axis=1)
    return [close(np.rint(ring))]


def comb(centre, size, teeth):
    x0, y0 = centre
    step = size // (2 * teeth)
    ring = [(x0, y0)]
    for k in range(teeth):
        ring += [
            (x0 + 2 * k * step + step, y0),
            (x0 + 2 * k * step + step, y0 + size),
            (x0 + 2 * k * step + 2 * step, y0 + size),
            (x0 + 2 * k * step + 2 * step, y0),
        ]
    ring += [(x0 + 2 * teeth * step, y0 - size // 10), (x0, y0 - size // 10)]
    clean = [p for i, p in enumerate(ring) if i == 0 or p != ring[i - 1]]
    return [close(clean)]


def spiral(centre, size, turns):
    t = np.linspace(0.15, 1, 40 * turns)
    outer = np.stack(
        [size * t * np.cos(2 * math.pi * turns * t), size * t * np.sin(2 * math.pi * turns * t)], 1
    )
    inner = outer[::-1] * (1 - 0.4 / (turns * np.maximum(t[::-1], 0.3)))[:, None]
    return [close(np.rint(np.concatenate([outer, inner]) + np.array(centre)))]


def box(x0, y0, x1, y1):
    return close([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def with_holes(centre, size):
    x, y = centre
    third = size // 3
    return [
        box(x, y, x + size, y + size),
        box(x + third, y + third, x + 2 * third, y + 2 * third)[::-1],
        close(
            [(x, y + size // 2), (x + third // 2, y + size // 2 + 7), (x + third // 2, y + size // 2 - 7)]
        ),  # touches the rim
    ]


def feature(zone_id, polygons, **properties):
    coordinates = [[[[x / 1e7, y / 1e7] for x, y in ring] for ring in rings] for rings in polygons]
    kind = "MultiPolygon" if len(polygons) > 1 else "Polygon"
    return {
        "type": "Feature",
        "properties": {"id": zone_id, **properties},
        "geometry": {"type": kind, "coordinates": coordinates if len(polygons) > 1 else coordinates[0]},
    }


def point(zone_id, lon, lat, radius_m, **properties):
    return {
        "type": "Feature",
        "properties": {"id": zone_id, "radius_m": radius_m, **properties},
        "geometry": {"type": "Point", "coordinates": [lon, lat]},
    }


def line(zone_id, positions, radius_m, **properties):
    return {
        "type": "Feature",
        "properties": {"id": zone_id, "radius_m": radius_m, **properties},
        "geometry": {"type": "LineString", "coordinates": positions},
    }


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def telling_positions(rng, polygons, n):
    """Positions where an answer may go wrong: vertices, places on edges, both a unit beside, and anywhere in
    the box.
    """
    vertices = np.array([p for rings in polygons for ring in rings for p in ring], np.int64)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    anywhere = rng.integers(low - 5, high + 6, (n, 2))
    picked = vertices[rng.integers(0, len(vertices), n)]
    ring_points = [np.array(ring, np.int64) for rings in polygons for ring in rings]
    a = np.concatenate([r[:-1] for r in ring_points])
    b = np.concatenate([r[1:] for r in ring_points])
    e = rng.integers(0, len(a), n)
    parts = np.gcd(*np.abs(b[e] - a[e]).T)  # places of the grid that lie exactly on the edge
    share = (rng.random(n) * (parts + 1)).astype(np.int64)
    exactly = a[e] + (b[e] - a[e]) // np.maximum(parts, 1)[:, None] * share[:, None]
    beside = np.concatenate([picked, exactly]) + rng.integers(-1, 2, (2 * n, 2))
    level = np.stack([rng.integers(low[0] - 5, high[0] + 6, n), picked[:, 1]], axis=1)
    both = np.concatenate([anywhere, picked, exactly, beside, level])
    return both[:, 0].astype(np.int32), both[:, 1].astype(np.int32)
