"""covering against two oracles: Python's integers, and shapely on the same integer coordinates."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geofence import ZoneSet
from tests import naive
from tests.geofence.zone_shapes import (
    box,
    close,
    collection,
    comb,
    feature,
    point,
    spiral,
    star,
    telling_positions,
    with_holes,
)

CITY = (-808_400_000, 352_200_000)


def shapely_pairs(shapes, x, y):
    tree = shapely.STRtree(shapes)
    ping, zone = tree.query(shapely.points(x.astype(float), y.astype(float)), predicate="intersects")
    order = np.lexsort([zone, ping])
    return np.stack([ping[order], zone[order]])


def as_shape(polygons):
    return shapely.multipolygons([shapely.Polygon(r[0], r[1:]) for r in polygons])


def shapes_around(rng, centre, size):
    """One of each kind, disturbed by the seed; all valid."""
    x, y = centre
    return [
        [star(rng, centre, size, 9)],
        [star(rng, (x + size, y), size, 200)],
        [comb((x - size, y), size, 5)],
        [spiral((x, y + size), size, 3)],
        [with_holes((x + 3, y - size), size)],
        [
            with_holes((x + 3 * size, y), size),
            [box(x + 3 * size + size // 3 + 2, y + size // 3 + 2, x + 3 * size + size // 2, y + size // 2)],
        ],
        [[box(x, y, x + 1, y + 1)]],  # one cell of the grid
        [[close([(x, y), (x + size, y + 1), (x + size, y + 2)])]],  # a sliver
    ]


@pytest.mark.parametrize("size", [40, 3_000, 2_000_000, 300_000_000])
@pytest.mark.parametrize("seed", [1, 2])
def test_it_agrees_with_integers_and_with_shapely(size, seed):
    rng = np.random.default_rng([seed, size])
    polygons = [p for p in shapes_around(rng, CITY, size) if shapely.is_valid(as_shape(p))]
    assert len(polygons) >= 5
    zones = ZoneSet.from_geojson(collection(*(feature(f"z{i}", p) for i, p in enumerate(polygons))))
    xs, ys = zip(*(telling_positions(rng, p, 40) for p in polygons), strict=True)
    x, y = np.concatenate(xs), np.concatenate(ys)
    found = zones.covering_e7(x, y)
    assert found.dtype == np.int64
    assert np.array_equal(found, shapely_pairs([as_shape(p) for p in polygons], x, y))
    sample = rng.choice(len(x), 250, replace=False)
    hits = set(map(tuple, found.T.tolist()))
    for i in sample:
        for z, p in enumerate(polygons):
            assert ((i, z) in hits) == naive.covers(p, (int(x[i]), int(y[i])))


def test_cell_corners_and_edges():
    rng = np.random.default_rng(5)
    polygons = [[star(rng, CITY, 500_000, 60)], [comb(CITY, 400_000, 7)]]
    zones = ZoneSet.from_geojson(collection(*(feature(f"z{i}", p) for i, p in enumerate(polygons))))
    kx, ky, col0, row0, cols, rows = zones.whole.index.grid
    cols_at = (col0 + rng.integers(0, cols + 1, 3000)) << kx
    rows_at = (row0 + rng.integers(0, rows + 1, 3000)) << ky
    x = (cols_at + rng.integers(-1, 2, 3000)).astype(np.int32)
    y = (rows_at + rng.integers(-1, 2, 3000)).astype(np.int32)
    assert np.array_equal(zones.covering_e7(x, y), shapely_pairs([as_shape(p) for p in polygons], x, y))


def ring_strategy():
    coordinate = st.integers(-12, 12)
    return st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9, unique=True)


@settings(max_examples=60, deadline=None)
@given(ring_strategy(), st.sampled_from([1, 97, 4_096, 1_000_000]))
def test_any_small_polygon(points, scale):
    """All positions of a small lattice, at several scales, for whatever polygon hypothesis draws."""
    ring = close([(x * scale, y * scale) for x, y in points])
    if not shapely.is_valid(shapely.polygons(ring)):
        return
    zones = ZoneSet.from_geojson(feature("z", [[ring]]))
    lattice = np.arange(-13, 14) * scale
    x, y = (v.ravel().astype(np.int32) for v in np.meshgrid(lattice, lattice))
    found = zones.covering_e7(x, y)[0]
    want = [i for i in range(len(x)) if naive.covers([[ring]], (int(x[i]), int(y[i])))]
    assert found.tolist() == want


def mixed_set(rng, n=60):
    features = []
    for i in range(n):
        centre = (CITY[0] + int(rng.integers(-3e6, 3e6)), CITY[1] + int(rng.integers(-3e6, 3e6)))
        kind = i % 3
        if kind == 0:
            features.append(feature(f"s{i}", [star(rng, centre, 300_000, 30)], layer="stars"))
        elif kind == 1:
            features.append(point(f"c{i}", centre[0] / 1e7, centre[1] / 1e7, 300 + i, layer="circles"))
        else:
            features.append(
                feature(f"b{i}", [[box(*centre, centre[0] + 90_000, centre[1] + 70_000)]], buffer_m=i)
            )
    return features


def pings_of(rng, n):
    return (
        (CITY[0] + rng.integers(-4_000_000, 4_000_000, n)).astype(np.int32),
        (CITY[1] + rng.integers(-4_000_000, 4_000_000, n)).astype(np.int32),
    )


def test_any_split_and_any_order_give_the_same_answer():
    rng = np.random.default_rng(11)
    zones = ZoneSet.from_geojson(collection(*mixed_set(rng)))
    x, y = pings_of(rng, 5_000)
    whole = zones.covering_e7(x, y)
    assert (np.diff(whole[0] * len(zones) + whole[1]) > 0).all()
    cuts = [0, 1, 2, 2049, 2050, 4999, 5000]
    parts = [np.add(zones.covering_e7(x[a:b], y[a:b]), [[a], [0]]) for a, b in pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts, axis=1), whole)
    order = rng.permutation(len(x))
    shuffled = zones.covering_e7(x[order], y[order])
    assert set(zip(order[shuffled[0]].tolist(), shuffled[1].tolist(), strict=True)) == set(
        map(tuple, whole.T.tolist())
    )


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_any_number_of_threads_gives_the_same_answer(threads):
    rng = np.random.default_rng(12)
    features = mixed_set(rng)
    x, y = pings_of(rng, 100_000)
    loaded = ZoneSet.from_geojson(collection(*features))
    grown = ZoneSet.from_geojson(collection(*features[:50])).with_zones(collection(*features[50:]))
    for zones in (loaded, grown):
        assert np.array_equal(zones.covering_e7(x, y, threads=threads), loaded.covering_e7(x, y))
        found, want = zones.near(x, y, 200_000, threads=threads), loaded.near(x, y, 200_000)
        assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found, want, strict=True))
        zone = (np.arange(len(x)) % len(loaded)).astype(np.int32)
        assert np.array_equal(zones.distance_mm(x, y, zone, threads=threads), loaded.distance_mm(x, y, zone))


def test_callers_of_several_threads_get_the_same_answer():
    from concurrent.futures import ThreadPoolExecutor

    rng = np.random.default_rng(12)
    zones = ZoneSet.from_geojson(collection(*mixed_set(rng)))
    x, y = pings_of(rng, 20_000)
    whole = zones.covering_e7(x, y)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: zones.covering_e7(x, y), range(8)))
    assert all(np.array_equal(answer, whole) for answer in answers)


def test_one_by_one_or_at_once():
    rng = np.random.default_rng(13)
    features = mixed_set(rng, 24)
    at_once = ZoneSet.from_geojson(collection(*features))
    one_by_one = ZoneSet.from_geojson(collection())
    for item in features:
        one_by_one = one_by_one.with_zones(item)
    assert one_by_one.ids == at_once.ids
    x, y = pings_of(rng, 4_000)
    assert np.array_equal(one_by_one.covering_e7(x, y), at_once.covering_e7(x, y))
    for a, b in zip(one_by_one.near(x, y, 200_000), at_once.near(x, y, 200_000), strict=True):
        assert np.array_equal(a, b)
    less = at_once.without([at_once.ids[0], at_once.ids[7]])
    keep = [i for i in range(24) if i not in {0, 7}]
    fresh = ZoneSet.from_geojson(collection(*(features[i] for i in keep)))
    assert less.ids == fresh.ids
    assert np.array_equal(less.covering_e7(x, y), fresh.covering_e7(x, y))


def test_huge_and_tiny_zones_in_one_set():
    """Cells that many small zones crowd into get grids of their own; the answer does not change."""
    rng = np.random.default_rng(14)
    features = [feature(f"country{i}", [star(rng, (0, 300_000_000), 280_000_000, 400)]) for i in range(3)]
    for i in range(600):
        centre = (CITY[0] + int(rng.integers(-2e5, 2e5)), CITY[1] + int(rng.integers(-2e5, 2e5)))
        features.append(point(f"home{i}", centre[0] / 1e7, centre[1] / 1e7, 50))
        features.append(feature(f"lot{i}", [star(rng, centre, 2_000, 7)]))
    whole = ZoneSet.from_geojson(collection(*features))
    kx, *_ = whole.whole.index.grid
    assert (1 << kx) > 1_000_000  # the top cells hold the whole city, so what follows is about nested grids
    x, y = (CITY[k] + rng.integers(-250_000, 250_000, 3_000).astype(np.int32) for k in (0, 1))
    x, y = x.astype(np.int32), y.astype(np.int32)
    city = whole.select(np.arange(3, len(whole)))
    want = np.add(city.covering_e7(x, y), [[0], [3]])
    found = whole.covering_e7(x, y)
    assert np.array_equal(found[:, found[1] >= 3], want)
    pair = whole.distance_mm(x[want[0]], y[want[0]], want[1])
    assert (pair <= 0).all()
    assert len(want[0]) > 400


@pytest.mark.parametrize("sign", [1, -1])
def test_a_ping_under_its_other_longitude(sign):
    # no zone reaches the antimeridian, but a device may count on past it
    x, y = sign * -1_700_000_000, 100_000_000
    polygon = [[box(x - 1_000, y - 1_000, x + 1_000, y + 1_000)]]
    kinds = [feature("p", polygon), feature("b", polygon, buffer_m=5), point("c", x / 1e7, y / 1e7, 50)]
    lon = np.array([x, x + sign * 3_600_000_000], np.int32)
    lat = np.array([y, y], np.int32)
    for zones in (ZoneSet.from_geojson(collection(*kinds)), *map(ZoneSet.from_geojson, kinds)):
        n = len(zones)
        ping, zone = np.repeat([0, 1], n), np.tile(np.arange(n, dtype=np.int32), 2)
        assert np.all(zones.distance_mm(lon[ping], lat[ping], zone) <= 0)
        assert np.array_equal(zones.covering_e7(lon, lat), [ping, zone])
        near_ping, near_zone, _ = zones.near(lon, lat, 10_000)
        assert np.array_equal([near_ping, near_zone], [ping, zone])


def test_degrees_nan_and_range():
    zones = ZoneSet.from_geojson(point("home", -80.84, 35.22, 150))
    assert zones.covering([-80.84, np.nan, -80.84], [35.22, 35.22, np.nan]).tolist() == [[0], [0]]
    assert zones.covering([], []).shape == (2, 0)
    with pytest.raises(ValueError, match=r"position 1 is longitude -80\.84, latitude 900"):
        zones.covering([0, -80.84], [0, 900])
    none = np.array([np.iinfo(np.int32).min], np.int32)
    assert zones.covering_e7(none, none).shape == (2, 0)
    assert [len(c) for c in zones.near(none, none, 1_000_000)] == [0, 0, 0]
    assert np.isnan(zones.signed_distance([np.nan], [35], [0])).all()
    with pytest.raises(ValueError, match="int32"):
        zones.covering_e7(np.array([1.5]), np.array([1.5]))
    with pytest.raises(IndexError, match=r"0\.\.0"):
        zones.signed_distance([0], [0], [1])


def test_an_empty_set():
    zones = ZoneSet.from_geojson(collection())
    assert (len(zones), zones.ids, zones.layers) == (0, [], {})
    assert zones.covering([1.0], [2.0]).shape == (2, 0)
    x = np.zeros(3, np.int32)
    assert len(zones.near(x, x, 1000)[0]) == 0
    assert len(zones.crossing(x, x, x, x)[0]) == 0
    assert zones.to_geojson() == collection()
