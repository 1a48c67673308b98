"""What the cell index must get right for any zones: lines between cells, shared borders, its own layout."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from benchmarks.counties import county_features
from geofence import ZoneSet
from geofence._kernels.lists import CHAIN, MIXED, NODE, NODE_WORDS
from geofence.cellindex import MAX_CELLS, MOST_CELLS
from tests import naive
from tests.geofence.zone_shapes import box, collection, feature, point, star, telling_positions

CITY = (-808_400_000, 352_200_000)


def pairs_by_shapely(shapes, x, y):
    tree = shapely.STRtree(shapes)
    ping, zone = tree.query(shapely.points(x.astype(float), y.astype(float)), predicate="intersects")
    order = np.lexsort([zone, ping])
    return np.stack([ping[order], zone[order]])


def words_by_kind(index):
    """The places of records of each kind, found by walking from the top grid."""
    todo = list(range(index.grid[4] * index.grid[5]))
    found = {kind: set() for kind in (0, NODE, CHAIN, MIXED)}
    while todo:
        word = int(index.words[todo.pop()])
        place, kind = word >> 2, word & 3
        if kind == NODE:
            todo.extend(range(place, place + NODE_WORDS))
        found[kind].add(place)
    return found


@pytest.mark.parametrize("k", [5, 8, 12, 17])
def test_borders_on_the_lines_between_cells(k):
    """Squares of 1 to 3 units of 2**k, corner to corner and side by side; corners, edges, a unit beside."""
    unit = 1 << k
    x0, y0 = (v >> k << k for v in CITY)
    polygons = [
        [[box(x0 + a * unit, y0 + b * unit, x0 + c * unit, y0 + d * unit)]]
        for a, b, c, d in [
            (0, 0, 1, 1),
            (1, 0, 3, 1),
            (0, 1, 1, 3),
            (1, 1, 3, 3),
            (3, 3, 6, 6),
            (-2, -2, 0, 0),
        ]
    ]
    zones = ZoneSet.from_geojson(collection(*(feature(f"z{i}", p) for i, p in enumerate(polygons))))
    near = np.unique(np.add.outer(np.arange(-3, 8) * unit, [-1, 0, 1]).ravel())
    x, y = (v.ravel() for v in np.meshgrid(x0 + near, y0 + near))
    x, y = x.astype(np.int32), y.astype(np.int32)
    found = set(map(tuple, zones.covering_e7(x, y).T.tolist()))
    want = {
        (i, z)
        for i in range(len(x))
        for z, p in enumerate(polygons)
        if naive.covers(p, (int(x[i]), int(y[i])))
    }
    assert found == want


def test_neighbours_share_the_record_of_their_border():
    """An edge costs one record, however many cells it crosses and although it is two zones' border."""
    west, south, mid = CITY[0], CITY[1], CITY[0] + 1_000_003
    zones = ZoneSet.from_geojson(
        collection(
            feature("w", [[box(west, south, mid, south + 2_000_001)]]),
            feature("e", [[box(mid, south, mid + 1_000_003, south + 2_000_001)]]),
        )
    )
    index = zones.whole.index
    records = [index.words[p : p + 8] for p in words_by_kind(index)[CHAIN] if index.words[p] == 1]
    on_the_border = [r for r in records if r[4] == r[6] == mid]
    assert len(on_the_border) == 1
    y = south + np.array([1, 1_000_000, 2_000_001, 2_000_002])
    x = np.full(4, mid)
    found = zones.covering_e7(x.astype(np.int32), y.astype(np.int32))
    assert found.tolist() == [[0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 0, 1]]


def test_the_layout_that_reads_rely_on():
    """A node is one line of the cache; the top grid's rim, to which far positions are led, is empty."""
    rng = np.random.default_rng(3)
    zones = ZoneSet.from_geojson(
        collection(
            *(feature(f"s{i}", [star(rng, (CITY[0] + i * 90_000, CITY[1]), 200_000, 60)]) for i in range(9))
        )
    )
    index = zones.whole.index
    cols, rows = index.grid[4:]
    top = index.words[: cols * rows].reshape(rows, cols)
    assert not top[0].any()
    assert not top[-1].any()
    assert not top[:, 0].any()
    assert not top[:, -1].any()
    nodes = words_by_kind(index)[NODE]
    assert len(nodes) > 100
    assert all((index.words.ctypes.data + 4 * place) % 64 == 0 for place in nodes)


def test_a_crowd_of_circles_and_borders_in_one_cell():
    """Sets that are merged from a cell's covers, polygons' edges, circles and buffers come in order."""
    rng = np.random.default_rng(8)
    polygons = [[star(rng, CITY, 4_000, 14)] for _ in range(12)]
    features = []
    for i, rings in enumerate(polygons):
        features.append(feature(f"p{i}", rings, buffer_m=(i % 3) * 5))
        features.append(point(f"c{i}", CITY[0] / 1e7 + i * 2e-5, CITY[1] / 1e7, 10 + i))
    features.append(
        feature("town", [[box(CITY[0] - 10**7, CITY[1] - 10**7, CITY[0] + 10**7, CITY[1] + 10**7)]])
    )
    zones = ZoneSet.from_geojson(collection(*features))
    x, y = telling_positions(rng, [rings for p in polygons for rings in p], 300)
    found = zones.covering_e7(x, y)
    assert (np.diff(found[0] * len(zones) + found[1]) > 0).all()
    every = np.tile(np.arange(len(zones)), len(x)).astype(np.int32)
    ping = np.repeat(np.arange(len(x)), len(zones))
    inside = zones.distance_mm(x[ping], y[ping], every) <= 0
    assert np.array_equal(found, np.stack([ping[inside], every[inside]]))


def test_real_counties_to_the_unit():
    """North Carolina's: on vertices and edges, where three meet, and a unit beside."""
    features = [f for f in county_features() if f["properties"]["id"].startswith("37")]
    zones = ZoneSet.from_geojson(collection(*features))
    polygons = [
        [
            [[(round(a * 1e7), round(b * 1e7)) for a, b in ring] for ring in rings]
            for rings in f["geometry"]["coordinates"]
        ]
        for f in features
    ]
    shapes = [shapely.multipolygons([shapely.Polygon(r[0], r[1:]) for r in p]) for p in polygons]
    rng = np.random.default_rng(37)
    xs, ys = zip(*(telling_positions(rng, p, 60) for p in polygons), strict=True)
    x, y = np.concatenate(xs), np.concatenate(ys)
    assert len(features) == 100
    assert np.array_equal(zones.covering_e7(x, y), pairs_by_shapely(shapes, x, y))


@pytest.mark.parametrize("at", [(-2_139_000_000, -880_000_000), (2_138_000_000, 880_000_000), (0, 0)])
def test_positions_anywhere_on_earth_and_none(at):
    """What lies beyond the grid, on whatever side and however far, is in no cell of it."""
    polygon = [[box(at[0], at[1], at[0] + 70_001, at[1] + 90_001)]]
    zones = ZoneSet.from_geojson(collection(feature("z", polygon)))
    lon = [-(1 << 31), -2_140_000_000, at[0] - 1, at[0], at[0] + 70_001, at[0] + 70_002, 2_140_000_000]
    lat = [-(1 << 31), -900_000_000, at[1] - 1, at[1], at[1] + 90_001, at[1] + 90_002, 900_000_000]
    x, y = (v.ravel().astype(np.int32) for v in np.meshgrid(lon, lat))
    turns = (0, -3_600_000_000, 3_600_000_000)
    want = [
        i
        for i in range(len(x))
        if any(naive.covers(polygon, (int(x[i]) + turn, int(y[i]))) for turn in turns) and x[i] != -(1 << 31)
    ]
    assert zones.covering_e7(x, y)[0].tolist() == want


def test_zones_far_apart_have_cells_as_fine_as_most_of_them_need():
    """What lies between them is hardly asked for, so it does not count; nor does a box around the Earth."""
    rng = np.random.default_rng(8)
    places = [(CITY[0] + int(rng.integers(0, 9e7)), CITY[1] + int(rng.integers(0, 4e7))) for _ in range(900)]
    features = [feature(f"z{i}", [star(rng, place, 900_000, 40)]) for i, place in enumerate(places)]
    across = [[box(1_799_000_000, 0, 1_800_000_000, 9)], [box(-1_800_000_000, 0, -1_799_000_000, 9)]]
    far = [[box(0, 0, 1_000_000, 1_000_000)]]
    for other in (far, across):
        *_, cols, rows = ZoneSet.from_geojson(collection(*features, feature("o", other))).whole.index.grid
        assert MAX_CELLS < cols * rows <= MOST_CELLS
