"""The real counties of the United States, from the TopoJSON of the npm package us-atlas (ISC licence).

TopoJSON stores each shared border once, as an arc of whole
numbers, each vertex as its difference from the one before; a ring is a list of arcs, ``~i`` being arc i
backwards. So neighbours have exactly the same vertices along their border. The atlas is simplified: some
islands and slivers have collapsed to rings of two or three positions, which enclose nothing and are left out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FILE", "county_features"]

SMALLEST_RING = 4
FILE = Path(__file__).parent / "data/us-atlas/counties-10m.json"


def county_features(file: Path = FILE) -> list[dict[str, Any]]:
    """A GeoJSON Feature for each county: id, and a Polygon or MultiPolygon in degrees."""
    topology = json.loads(file.read_text())
    scale = np.array(topology["transform"]["scale"])
    shift = np.array(topology["transform"]["translate"])
    arcs = [np.round(np.cumsum(arc, axis=0) * scale + shift, 7) for arc in topology["arcs"]]

    def ring(numbers: list[int]) -> list[list[float]]:
        parts = [arcs[i] if i >= 0 else arcs[~i][::-1] for i in numbers]
        joined = np.concatenate([parts[0], *(part[1:] for part in parts[1:])])
        positions: list[list[float]] = joined.tolist()
        return positions

    features = []
    for county in topology["objects"]["counties"]["geometries"]:
        polygons = [county["arcs"]] if county["type"] == "Polygon" else county["arcs"]
        rings = [[ring(numbers) for numbers in polygon] for polygon in polygons]
        whole = [[r for r in polygon if len(r) >= SMALLEST_RING] for polygon in rings]
        coordinates = [
            polygon for polygon, made in zip(whole, rings, strict=True) if len(made[0]) >= SMALLEST_RING
        ]
        if coordinates:
            geometry = {"type": "MultiPolygon", "coordinates": coordinates}
            features.append({"type": "Feature", "properties": {"id": county["id"]}, "geometry": geometry})
    return features
