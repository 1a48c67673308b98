"""Loading zones: what is read, what is cleaned, what is refused and how that is said."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import shapely

from geofence import ZoneError, ZoneSet
from tests.geofence.zone_shapes import collection, feature, line, point

CHARLOTTE = Path(__file__).parents[3] / "shared" / "data" / "charlotte"
needs_charlotte = pytest.mark.skipif(
    not CHARLOTTE.is_dir(), reason="the real zones are not beside the project"
)


def raw(zone_id, geometry_type, coordinates, **properties):
    return {
        "type": "Feature",
        "properties": {"id": zone_id, **properties},
        "geometry": {"type": geometry_type, "coordinates": coordinates},
    }


SQUARE = [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]

BAD = [
    (
        raw("bow-tie", "Polygon", [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]),
        r"self-intersection near \[0.5\d*, 0.5\d*\]",
    ),
    (
        raw("open", "Polygon", [[[0, 0], [1, 0], [1, 1], [0, 1]]]),
        "ring 0: the ring is open .* repeat the first position",
    ),
    (raw("short", "Polygon", [[[0, 0], [1, 0], [0, 0]]]), "3 positions; it needs at least 4"),
    (
        raw("nan", "Polygon", [[[0, 0], [float("nan"), 0], [1, 1], [0, 0]]]),
        "position 1 is .nan, 0.; both must be finite",
    ),
    (raw("lat", "Polygon", [[[0, 0], [1, 0], [1, 91], [0, 0]]]), "out of range; longitude comes first"),
    (raw("lon", "Polygon", [[[0, 0], [215, 0], [1, 9], [0, 0]]]), "out of range"),
    (raw("empty", "Polygon", []), "the polygon is empty"),
    (raw("empty-ring", "Polygon", [[]]), "ring 0: it is empty"),
    (raw("empty-multi", "MultiPolygon", []), "the geometry is empty"),
    (
        raw("long", "Polygon", [[[-170, 0], [170, 0], [170, 5], [-170, 5], [-170, 0]]]),
        "over 180 degrees; split",
    ),
    (raw("no-radius", "Point", [1, 2]), "a Point needs a radius_m above 0"),
    (raw("no-radius-line", "LineString", [[1, 2], [2, 2]]), "a LineString needs a radius_m above 0"),
    (raw("zero", "Point", [1, 2], radius_m=0), "radius_m is 0; it must be above 0"),
    (raw("text", "Point", [1, 2], radius_m="5"), "radius_m is '5'; it must be a number"),
    (raw("vast", "Point", [1, 2], radius_m=1e7), "above 1000000 m together"),
    (raw("shrunk", "Polygon", SQUARE, buffer_m=-5), "buffer_m is -5; it must be 0 or more"),
    (raw("radius", "Polygon", SQUARE, radius_m=5), "enlarge a polygon with buffer_m"),
    (raw("kind", "GeometryCollection", []), "the geometry is 'GeometryCollection'"),
    (raw("flat", "Polygon", [[[0, 0], [1, 0], [2, 0], [0, 0]]]), "no ring is wider than the grid"),
    (raw("words", "Polygon", [[["a", "b"], [1, 0], [2, 0], [0, 0]]]), "not .longitude, latitude. in numbers"),
    (raw("hole-outside", "Polygon", [*SQUARE, [[5, 5], [6, 5], [6, 6], [5, 5]]]), "hole lies outside shell"),
    (
        raw("overlap", "MultiPolygon", [SQUARE, [[[0.5, 0.5], [2, 0.5], [2, 2], [0.5, 0.5]]]]),
        "self-intersection",
    ),
    (raw("layer", "Polygon", SQUARE, layer=7), "layer is 7; it must be text"),
    (raw("one-place", "LineString", [[1, 2]], radius_m=5), r"the line has 1 position\(s\)"),
]


@pytest.mark.parametrize(("item", "message"), BAD, ids=[f["properties"]["id"] for f, _ in BAD])
def test_a_bad_zone_is_refused_by_name(item, message):
    with pytest.raises(ZoneError, match=message) as caught:
        ZoneSet.from_geojson(item)
    assert [zone_id for zone_id, _ in caught.value.problems] == [item["properties"]["id"]]


def test_one_error_lists_every_bad_zone():
    items = [f for f, _ in BAD] + [point("fine", 1, 2, 5)]
    with pytest.raises(ZoneError) as caught:
        ZoneSet.from_geojson(collection(*items))
    assert {zone_id for zone_id, _ in caught.value.problems} == {f["properties"]["id"] for f, _ in BAD}


def test_ids():
    twice = collection(point("a", 1, 2, 5), point("a", 1, 3, 5))
    with pytest.raises(ZoneError, match=r"used twice .feature 0 and feature 1."):
        ZoneSet.from_geojson(twice)
    nameless = point("a", 1, 2, 5)
    del nameless["properties"]["id"]
    with pytest.raises(ZoneError, match='feature 0": the id is None; give the zone a text "id"'):
        ZoneSet.from_geojson(collection(nameless))
    assert ZoneSet.from_geojson(point(17, 1, 2, 5)).ids == ["17"]
    zones = ZoneSet.from_geojson(point("a", 1, 2, 5))
    with pytest.raises(ZoneError, match="has a zone of this id already"):
        zones.with_zones(point("a", 1, 2, 5))
    assert zones.index("a") == 0
    with pytest.raises(KeyError, match="'b'"):
        zones.index("b")


@pytest.mark.parametrize(
    "source", [17, {"type": "Topology"}, {"type": "FeatureCollection"}, ["missing.geojson"], [5]]
)
def test_what_is_no_source(source):
    with pytest.raises(ZoneError):
        ZoneSet.from_geojson(source)


def test_files_and_directories(tmp_path):
    (tmp_path / "b.geojson").write_text(json.dumps(point("b", 1, 2, 5, layer="x")))
    (tmp_path / "a.geojson").write_text(
        json.dumps(collection(point("a1", 1, 2, 5), point("a2", 1, 2, 5, layer="x")))
    )
    (tmp_path / "notes.txt").write_text("not a zone")
    zones = ZoneSet.from_geojson(tmp_path)
    assert zones.ids == ["a1", "a2", "b"]
    assert zones.layers["x"].tolist() == [1, 2]
    assert ZoneSet.from_geojson([tmp_path / "b.geojson", str(tmp_path / "a.geojson")]).ids == [
        "b",
        "a1",
        "a2",
    ]
    (tmp_path / "c.geojson").write_text("{")
    with pytest.raises(ZoneError, match=r"c\.geojson.*not JSON"):
        ZoneSet.from_geojson(tmp_path)


def test_spikes_and_repetitions_are_cleaned_with_a_warning():
    ring = [[0, 0], [1, 0], [1, 0], [1, 1], [1, 3], [1, 1], [0.5, 1], [0.7, 1], [0, 1], [0, 0]]
    zones = ZoneSet.from_geojson(raw("z", "Polygon", [ring]))
    assert len(zones.warnings) == 2
    assert all(w.startswith('zone "z": ring 0: ') for w in zones.warnings)
    clean = zones.to_geojson()["features"][0]["geometry"]["coordinates"][0]
    assert shapely.Polygon(clean).equals(shapely.box(0, 0, 1, 1))
    assert zones.covering([1.0], [2.0]).shape == (2, 0)
    # a spike on the seam of the ring, one that ends in another, and a zone that is all spike
    seam = ZoneSet.from_geojson(
        raw("z", "Polygon", [[[0, -2], [0, 0], [1, 0], [1, 1], [0, 1], [0, 0], [0, -1], [0, -2]]])
    )
    assert shapely.Polygon(seam.to_geojson()["features"][0]["geometry"]["coordinates"][0]).equals(
        shapely.box(0, 0, 1, 1)
    )


def test_a_sliver_of_a_multipolygon_and_a_hole_thinner_than_the_grid_go():
    zones = ZoneSet.from_geojson(
        raw(
            "z",
            "MultiPolygon",
            [
                [*SQUARE, [[0.2, 0.2], [0.4, 0.2], [0.3, 0.200000001], [0.2, 0.2]]],
                [[[5, 5], [6, 5], [5.5, 5.00000001], [5, 5]]],
            ],
        )
    )
    assert sum("thinner than the grid" in w for w in zones.warnings) == 2
    assert zones.covering([0.3, 5.5], [0.2, 5.0]).tolist() == [[0], [0]]


def test_rounding_that_makes_borders_cross_is_repaired():
    """Valid in floating point, folded over by the grid: kept, with a warning, within a grid unit of what was
    drawn.
    """
    eps = 1e-8
    ring = [[0, 0], [1, 0], [1, 1], [0.5, 6 * eps], [0.3, 9 * eps], [0.25, 4 * eps], [0, 1], [0, 0]]
    assert shapely.Polygon(ring).is_valid
    zones = ZoneSet.from_geojson(raw("z", "Polygon", [ring]))
    again = ZoneSet.from_geojson(zones.to_geojson())
    assert again.warnings == []
    assert zones.covering([0.9, 0.05, 0.5], [0.4, 0.4, 0.5]).tolist() == [[0, 1], [0, 0]]


def test_what_was_loaded_loads_again():
    items = collection(
        feature("p", [[[(0, 0), (9, 0), (9, 9), (0, 0)]]], layer="x", buffer_m=1.5, colour="red"),
        feature(
            "m",
            [
                [[(0, 0), (9, 0), (9, 9), (0, 0)]],
                [[(20, 0), (90, 0), (90, 90), (20, 0)], [(60, 20), (70, 20), (70, 30), (60, 20)]],
            ],
        ),
        point("c", -80.8407251, 35.2288651, 300.125),
        line("l", [[1, 2], [1.5, 2.25]], 40, buffer_m=2),
        raw("mp", "MultiPoint", [[1, 2], [3, 4]], radius_m=10),
        raw("ml", "MultiLineString", [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], radius_m=10),
    )
    zones = ZoneSet.from_geojson(items)
    document = json.loads(json.dumps(zones.to_geojson()))
    assert document == items | {"features": document["features"]}
    assert ZoneSet.from_geojson(document).to_geojson() == document
    assert document["features"][0]["properties"] == items["features"][0]["properties"]
    picked = zones.select([3, 0])
    assert picked.ids == ["l", "p"]
    assert picked.layers["x"].tolist() == [1]
    with pytest.raises(ZoneError):
        zones.select([1, 1])
    with pytest.raises(IndexError):
        zones.select([6])


def test_sets_are_immutable_for_their_readers():
    zones = ZoneSet.from_geojson(collection(point("a", 1, 2, 500), point("b", 1, 2, 900)))
    more = zones.with_zones(point("c", 1, 2, 50))
    less = zones.without(["a"])
    assert (zones.ids, more.ids, less.ids) == (["a", "b"], ["a", "b", "c"], ["b"])
    assert zones.covering([1.0], [2.0]).tolist() == [[0, 0], [0, 1]]
    assert more.covering([1.0], [2.0]).tolist() == [[0, 0, 0], [0, 1, 2]]
    assert less.covering([1.0], [2.0]).tolist() == [[0], [0]]
    with pytest.raises(KeyError):
        zones.without(["x"])


def test_importing_geofence_is_quick():
    """No compiler, no GEOS before they are needed."""
    code = "import sys, geofence; print('numba' in sys.modules, 'shapely' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.charlotte
@needs_charlotte
def test_real_zones_load_and_agree_with_shapely():
    areas = json.loads((CHARLOTTE / "neighborhood_profile_areas.geojson").read_text())["features"]
    schools = json.loads((CHARLOTTE / "schools.geojson").read_text())["features"]
    items = [
        raw(f"n{i}", f["geometry"]["type"], f["geometry"]["coordinates"], layer="areas")
        for i, f in enumerate(areas)
    ]
    items += [
        point(f"s{i}", *f["geometry"]["coordinates"], 300, layer="schools") for i, f in enumerate(schools)
    ]
    begun = time.process_time()
    zones = ZoneSet.from_geojson(collection(*items))
    zones.covering([-80.84], [35.22])
    took = time.process_time() - begun
    assert len(zones) == 510
    rng = np.random.default_rng(1)
    x = rng.integers(-811_000_000, -805_500_000, 50_000).astype(np.int32)
    y = rng.integers(350_000_000, 355_500_000, 50_000).astype(np.int32)
    vertices = zones.whole.table.vertices
    x, y = np.concatenate([x, vertices[::7, 0]]), np.concatenate([y, vertices[::7, 1]])
    shapes = shapely.transform(
        [shapely.geometry.shape(f["geometry"]) for f in areas], lambda c: np.rint(c * 1e7)
    )
    ping, zone = shapely.STRtree(shapes).query(
        shapely.points(x.astype(float), y.astype(float)), predicate="intersects"
    )
    order = np.lexsort([zone, ping])
    found = zones.covering_e7(x, y)
    of_areas = found[:, found[1] < len(areas)]
    assert np.array_equal(of_areas, np.stack([ping[order], zone[order]]))
    from pyproj import Geod

    of_schools = set(map(tuple, found[:, found[1] >= len(areas)].T.tolist()))
    for s, school in enumerate(schools):
        lon, lat = school["geometry"]["coordinates"]
        metres = Geod(ellps="WGS84").inv(np.full(len(x), lon), np.full(len(x), lat), x / 1e7, y / 1e7)[2]
        want = {(int(i), len(areas) + s) for i in np.flatnonzero(metres <= 300)}
        assert {pair for pair in of_schools if pair[1] == len(areas) + s} == want
    # About one second of processor time; this is not a benchmark, it tells a cold cache or a blow-up.
    assert took < 10.0, "is the kernels' cache cold? python -m telemetry.warm"
