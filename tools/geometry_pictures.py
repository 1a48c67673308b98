"""Draw the pictures of docs/geometry.md from a real index: ``python tools/geometry_pictures.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geofence import ZoneSet
from geofence._kernels.lists import NODE, SET

IMAGES = Path(__file__).parent.parent / "docs" / "images"
LAKE = [[0, 0], [9, 1], [11, 6], [7, 9], [8, 5], [5, 4], [4, 9], [1, 7], [2, 4], [0, 0]]
SCALE = 1e-4
INK = "#1f2933"
EMPTY, COVERED, BORDER, DIVIDED = "#eef1f4", "#7fc8a9", "#f2b705", "#f0d9a0"


def main() -> None:
    """Write both pictures."""
    ring = [[x * SCALE, y * SCALE] for x, y in LAKE]
    zones = ZoneSet.from_geojson(
        {
            "type": "Feature",
            "properties": {"id": "lake"},
            "geometry": {"type": "Polygon", "coordinates": [ring]},
        }
    )
    cells(zones, ring)
    reference()


def cells(zones: ZoneSet, ring: list[list[float]]) -> None:
    """The top grid of one polygon: what each cell's word says."""
    index = zones.whole.index
    kx, ky, col0, row0, cols, rows = index.grid
    size = 14
    parts = []
    words = index.words[: cols * rows].reshape(rows, cols)
    for (row, col), word in np.ndenumerate(words):
        colour = EMPTY if word == 0 else {SET: COVERED, NODE: DIVIDED}.get(int(word) & 3, BORDER)
        y = (rows - 1 - row) * size
        parts.append(
            f'<rect x="{col * size}" y="{y}" width="{size - 1}" height="{size - 1}" fill="{colour}"/>'
        )
    points = " ".join(
        f"{(x * 1e7 / (1 << kx) - col0) * size:.1f},{(rows - (y * 1e7 / (1 << ky) - row0)) * size:.1f}"
        for x, y in ring
    )
    parts.append(f'<polyline points="{points}" fill="none" stroke="{INK}" stroke-width="2"/>')
    _write("cells.svg", cols * size, rows * size, parts)


def reference() -> None:
    """One boundary cell: the segment from a ping to the reference crosses the cell's edges once."""
    parts = [
        '<rect x="20" y="20" width="300" height="220" fill="#fcefc3" stroke="#f2b705" stroke-width="2"/>',
        f'<polyline points="0,190 130,120 200,30 260,0" fill="none" stroke="{INK}" stroke-width="2"/>',
        '<line x1="80" y1="80" x2="170" y2="180" stroke="#b4232a" stroke-width="2" stroke-dasharray="6 4"/>',
        '<circle cx="80" cy="80" r="5" fill="#b4232a"/><text x="50" y="68">ping</text>',
        '<circle cx="170" cy="180" r="5" fill="#0b6e4f"/>',
        '<text x="180" y="185">reference, known: inside</text>',
        '<text x="30" y="262">one crossing: the ping is on the other side, outside</text>',
    ]
    _write("reference.svg", 340, 275, parts)


def _write(name: str, width: int, height: int, parts: list[str]) -> None:
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="13">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / name).write_text(text)


if __name__ == "__main__":
    main()
