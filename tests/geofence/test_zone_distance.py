"""Distances: their error against geodesics, their sign, near, crossing, and the antimeridian and the
poles.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from pyproj import Geod

from geofence import ZoneSet
from tests import naive
from tests.geofence.zone_shapes import box, close, collection, feature, line, point, star

GEOD = Geod(ellps="WGS84")


def e7(degrees):
    return np.rint(np.asarray(degrees) * 1e7).astype(np.int32)


@pytest.mark.parametrize("lon", [-80.84, 179.9999])
@pytest.mark.parametrize("lat", [0, 45, 70, 89])
@pytest.mark.parametrize(("metres", "error_m"), [(50, 1e-5), (1_000, 1e-5), (50_000, 0.002)])
def test_a_circle_is_geodesic(lon, lat, metres, error_m):
    """The error of the distance model: what the docs say of it is asserted here."""
    rng = np.random.default_rng(1)
    zones = ZoneSet.from_geojson(point("c", lon, lat, 1.0))
    n = 500
    to_lon, to_lat, _ = GEOD.fwd(
        np.full(n, lon), np.full(n, lat), rng.uniform(0, 360, n), np.full(n, float(metres))
    )
    x, y = e7(to_lon), e7(to_lat)
    _, _, true_m = GEOD.inv(np.full(n, lon), np.full(n, lat), x / 1e7, y / 1e7)
    found = zones.signed_distance(x / 1e7, y / 1e7, np.zeros(n, np.int32)) + 1.0
    assert np.abs(found - true_m).max() < error_m
    assert np.array_equal(zones.distance_mm(x, y, np.zeros(n, np.int32)), np.floor(found * 1000 + 0.5) - 1000)


@pytest.mark.parametrize("lat", [0, 45, 70, 89])
@pytest.mark.parametrize("metres", [50, 1_000, 50_000])
def test_an_edge_is_straight_in_longitude_and_latitude(lat, metres):
    """Against a ternary search along the edge with Vincenty's distance."""
    rng = np.random.default_rng([lat, metres])
    lat_m, lon_m = 111_000.0, 111_000.0 * np.cos(np.radians(lat))
    for k in range(4):
        reach = metres * rng.uniform(0.3, 2, 4)
        a = (
            int(179.9 * 1e7 - reach[0] / lon_m * 1e7),
            int(lat * 1e7 + rng.uniform(-1, 0) * reach[1] / lat_m * 1e7),
        )
        b = (
            int(179.9 * 1e7 + reach[2] / lon_m * 1e7),
            int(lat * 1e7 + rng.uniform(0, 1) * reach[3] / lat_m * 1e7),
        )
        b = (min(b[0], 2_130_000_000), min(b[1], 899_000_000))
        zones = ZoneSet.from_geojson(line("l", [[a[0] / 1e7, a[1] / 1e7], [b[0] / 1e7, b[1] / 1e7]], 1.0))
        to_lon, to_lat, _ = GEOD.fwd(179.9, min(lat + metres / 3e5, 89.9), rng.uniform(0, 360), float(metres))
        p = (int(e7(to_lon)), int(e7(to_lat)))
        want = min(
            naive.edge_distance_m(a, b, q)
            for q in (p, (p[0] + 3_600_000_000, p[1]))
            if abs(q[0] - a[0]) < 1_800_000_000
        )
        found = zones.signed_distance([p[0] / 1e7], [p[1] / 1e7], [0])[0] + 1.0
        assert found == pytest.approx(want, abs=0.003 * max(metres, 1000) / 50_000 + 1e-4), k


def test_sign_cover_and_millimetres_agree():
    """0 mm or less exactly where a zone covers a position, with and without buffers."""
    rng = np.random.default_rng(3)
    centre = (-808_400_000, 352_200_000)
    rings = [star(rng, centre, 40_000, 25)]
    zones = ZoneSet.from_geojson(
        collection(
            feature("plain", rings), feature("wide", rings, buffer_m=12.5), point("c", -80.84, 35.22, 321.123)
        )
    )
    x = (centre[0] + rng.integers(-45_000, 45_000, 4_000)).astype(np.int32)
    y = (centre[1] + rng.integers(-45_000, 45_000, 4_000)).astype(np.int32)
    vertices = np.array(rings[0][0], np.int32)
    x, y = np.concatenate([x, vertices[:, 0]]), np.concatenate([y, vertices[:, 1]])
    mm = np.stack([zones.distance_mm(x, y, np.full(len(x), z, np.int32)) for z in range(3)], axis=1)
    ping, zone = np.nonzero(mm <= 0)
    assert np.array_equal(zones.covering_e7(x, y), np.stack([ping, zone]))
    assert (mm[-len(vertices) :, 0] == 0).all()
    assert np.array_equal(mm[:, 1], mm[:, 0] - 12_500)
    metres = zones.signed_distance(x / 1e7, y / 1e7, np.zeros(len(x), np.int32))
    assert np.abs(metres * 1000 - mm[:, 0]).max() <= 1.0


@pytest.mark.parametrize("reach_mm", [0, 1, 64_000, 200_000, 5_000_000])
def test_near_is_every_pair_within_reach(reach_mm):
    rng = np.random.default_rng(4)
    features = []
    for i in range(24):
        centre = (int(1_799_000_000 + rng.integers(-2e6, 3e6)), int(-170_000_000 + rng.integers(-2e6, 2e6)))
        features.append(feature(f"s{i}", [star(rng, centre, 400_000, 40)], buffer_m=30.0 * (i % 2)))
        features.append(point(f"c{i}", min(centre[0], 1_799_999_999) / 1e7, centre[1] / 1e7, 200))
        features.append(
            line(
                f"l{i}",
                [[centre[0] / 1e7, centre[1] / 1e7], [centre[0] / 1e7 + 0.02, centre[1] / 1e7 + 0.01]],
                25,
            )
        )
    zones = ZoneSet.from_geojson(collection(*features))
    n = 300
    lon = 1_799_000_000 + rng.integers(-4_000_000, 5_000_000, n)
    x = np.where(lon > 1_800_000_000, lon - 3_600_000_000, lon).astype(np.int32)
    y = (-170_000_000 + rng.integers(-4_000_000, 4_000_000, n)).astype(np.int32)
    every = np.arange(len(zones), dtype=np.int32)
    mm = zones.distance_mm(np.repeat(x, len(every)), np.repeat(y, len(every)), np.tile(every, n)).reshape(
        n, -1
    )
    ping, zone = np.nonzero(mm <= reach_mm)
    found = zones.near(x, y, reach_mm)
    assert [a.dtype for a in found] == [np.int64, np.int32, np.int32]
    assert np.array_equal(found[0], ping)
    assert np.array_equal(found[1], zone)
    assert np.array_equal(found[2], mm[ping, zone])
    assert len(ping) > 15


def test_near_across_sizes():
    """Country-size and house-size zones in one set: the same pairs as one by one."""
    rng = np.random.default_rng(5)
    features = [feature(f"country{i}", [star(rng, (0, 300_000_000), 250_000_000, 300)]) for i in range(2)]
    features += [point(f"home{i}", rng.normal(2.0, 0.01), rng.normal(31.0, 0.01), 50) for i in range(300)]
    zones = ZoneSet.from_geojson(collection(*features))
    x, y = e7(rng.normal(2.0, 0.02, 200)), e7(rng.normal(31.0, 0.02, 200))
    every = np.arange(len(zones), dtype=np.int32)
    mm = zones.distance_mm(np.repeat(x, len(every)), np.repeat(y, len(every)), np.tile(every, 200)).reshape(
        200, -1
    )
    ping, zone = np.nonzero(mm <= 300_000)
    found = zones.near(x, y, 300_000)
    assert np.array_equal(np.stack(found), np.stack([ping, zone, mm[ping, zone]]))


ACROSS = [[box(1_790_000_000, -10_000_000, 1_810_000_000, 10_000_000)]]
SPLIT = [
    [box(1_790_000_000, -10_000_000, 1_800_000_000, 10_000_000)],
    [box(-1_800_000_000, -10_000_000, -1_790_000_000, 10_000_000)],
]


def test_the_antimeridian_drawn_in_two_ways():
    """The split form of RFC 7946 and longitudes past 180 are one zone: the same cover, the same distances."""
    zones = ZoneSet.from_geojson(collection(feature("past", ACROSS), feature("split", SPLIT)))
    rng = np.random.default_rng(6)
    lon = 1_800_000_000 + rng.integers(-15_000_000, 15_000_000, 600)
    lon[:4] = [1_800_000_000, 1_790_000_000, 1_810_000_000, 1_810_000_001]
    y = rng.integers(-14_000_000, 14_000_000, 600).astype(np.int32)
    x = np.where(lon >= 1_800_000_000, lon - 3_600_000_000, lon).astype(np.int32)
    past, split = (zones.distance_mm(x, y, np.full(600, z, np.int32)) for z in (0, 1))
    assert np.array_equal(past, split)
    found = zones.covering_e7(x, y)
    assert np.array_equal(found[1].reshape(-1, 2), np.tile([0, 1], (len(found[0]) // 2, 1)))
    want = [i for i in range(600) if naive.covers(ACROSS, (int(lon[i]), int(y[i])))]
    assert found[0][::2].tolist() == want
    # the border is where the zone ends, not where the map does
    middle = zones.signed_distance([180.0, -180.0], [0.0, 0.0], [1, 1])
    assert middle == pytest.approx(-110_574, abs=20)
    assert zones.covering([180.0, -180.0, 181.0], [0.0, 0.0, 0.0]).shape == (2, 6)


def cap(south):
    """All north of a latitude, as a ring that runs round and back along the pole."""
    round_it = [(k * 900_000_000 - 1_800_000_000, south) for k in range(5)]
    return [close([*round_it, *[(x, 900_000_000) for x, _ in round_it[::-1]]])]


def test_a_polygon_that_contains_a_pole():
    zones = ZoneSet.from_geojson(collection(feature("cap", [cap(850_000_000)])))
    assert zones.covering([0, 100, -180, 180, 33, 33], [90, 89.9, 85, 88, 85, 84.9999]).tolist() == [
        [0, 1, 2, 3, 4],
        [0] * 5,
    ]
    # at the pole the border is 5 degrees of meridian away in every direction, and no seam is nearer
    five_degrees = GEOD.inv(0, 90, 0, 85)[2]
    found = zones.signed_distance([0, 77, -180, 180], [90, 90, 89, 89], [0, 0, 0, 0])
    assert found[:2] == pytest.approx(-five_degrees, rel=1e-4)
    assert found[2:] == pytest.approx(-GEOD.inv(0, 89, 0, 85)[2], rel=1e-4)
    wedge = ZoneSet.from_geojson(
        feature(
            "wedge",
            [
                [
                    close(
                        [
                            (0, 800_000_000),
                            (300_000_000, 800_000_000),
                            (300_000_000, 900_000_000),
                            (0, 900_000_000),
                        ]
                    )
                ]
            ],
        )
    )
    assert wedge.covering([-120.0], [90.0]).tolist() == [
        [0],
        [0],
    ]  # the pole is a corner of it, whatever the longitude


@pytest.mark.parametrize("pole", [1, -1])
@pytest.mark.parametrize("border", [85, 89.99])
@pytest.mark.parametrize("buffer_m", [0, 500])
def test_near_deep_inside_a_polygon_around_a_pole(pole, border, buffer_m):
    rim = [(lon * 10_000_000, round(pole * border * 1e7)) for lon in (-180, -60, 60, 180)]
    top = [(lon, pole * 900_000_000) for lon, _ in reversed(rim)]
    cap = feature("cap", [[close([*rim, *top])]], buffer_m=buffer_m)
    elsewhere = feature("elsewhere", [[box(0, 0, 10_000_000, 10_000_000)]])
    zones = ZoneSet.from_geojson(collection(cap, elsewhere))
    lat = pole * np.array([900_000_000, 899_999_999, 899_950_000, 890_000_000, 851_000_000, 800_000_000])
    lon = np.array([-1_800_000_000, -900_000_001, 0, 300_000_000, 1_799_999_999, 2_000_000_000])
    x, y = (v.ravel().astype(np.int32) for v in np.meshgrid(lon, lat))
    mm = zones.distance_mm(x, y, np.zeros(len(x), np.int32))
    for reach_mm in (0, 1_500_000, 300_000_000):
        ping, zone, found_mm = zones.near(x, y, reach_mm)
        assert np.array_equal(ping, np.flatnonzero(mm <= reach_mm))
        assert np.all(zone == 0)
        assert np.array_equal(found_mm, mm[ping])


def test_a_circle_over_a_pole():
    zones = ZoneSet.from_geojson(point("c", 10, 89.5, 100_000))
    lon = np.linspace(-180, 180, 73)
    for lat in (89.0, 89.7, 90.0):
        covered = GEOD.inv(np.full(73, 10.0), np.full(73, 89.5), lon, np.full(73, lat))[2] <= 100_000
        assert zones.covering(lon, np.full(73, lat))[0].tolist() == np.flatnonzero(covered).tolist()


def test_crossing_is_touching_the_zone():
    rng = np.random.default_rng(8)
    centre = (-808_400_000, 352_200_000)
    polygons = [[star(rng, (centre[0] + dx, centre[1]), 30_000, 12)] for dx in (-70_000, 0, 70_000)]
    zones = ZoneSet.from_geojson(collection(*(feature(f"z{i}", p) for i, p in enumerate(polygons))))
    n = 300
    ends = [(c + rng.integers(-120_000, 120_000, n)).astype(np.int32) for c in centre * 2]
    track, zone = zones.crossing(*ends)
    found = set(zip(track.tolist(), zone.tolist(), strict=True))
    for t in range(n):
        a, b = (int(ends[0][t]), int(ends[1][t])), (int(ends[2][t]), int(ends[3][t]))
        for z, (rings,) in enumerate(polygons):
            ring = rings[0]
            touches = naive.polygon_covers([ring], a) or any(
                naive.segments_touch(a, b, c, d) for c, d in pairwise(ring)
            )
            assert ((t, z) in found) == touches


def test_no_kernel_divides_by_zero_at_a_pole():
    zones = ZoneSet.from_geojson(line("parallel", [[0, 80], [0.1, 80]], 100))
    assert zones.signed_distance([40.0], [90.0], [0]) == pytest.approx(
        GEOD.inv(0, 90, 0, 80)[2] - 100, rel=1e-4
    )


def test_crossing_a_circle_a_corridor_and_the_antimeridian():
    zones = ZoneSet.from_geojson(
        collection(
            point("circle", 179.99, 0, 200),
            line("corridor", [[-179.9, 0.1], [-179.9, 0.2]], 100),
            feature("split", SPLIT, buffer_m=50),
        )
    )

    def cross(lon_a, lat_a, lon_b, lat_b):
        return zones.crossing(*(np.array([e7(v)]) for v in (lon_a, lat_a, lon_b, lat_b)))[1].tolist()

    assert cross(179.99, 1.1, 179.99, -1.1) == [0, 2]
    assert cross(179.98, 0.0017, -179.98, 0.0017) == [0, 2]  # 188 m past the centre
    assert cross(179.98, 0.0019, -179.98, 0.0019) == [2]  # 210 m past it
    assert cross(179.95, 0.15, -179.85, 0.15) == [1, 2]
    assert cross(178.0, 1.0004, -178.0, 1.0004) == [2]  # 44 m beside the zone, in its buffer
    assert cross(178.0, 1.0006, -178.0, 1.0006) == []
