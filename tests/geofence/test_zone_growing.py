"""Sets that grow and shrink: however a set came to its zones, it answers as one that was loaded with them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geofence import ZoneError, ZoneSet
from geofence.compaction import MANY_PARTS
from tests.geofence.zone_shapes import collection, feature, line, point, star

CITY = (-808_400_000, 352_200_000)
SPAN_E7 = 60_000


def shape(number: int) -> dict:
    """Zone ``number``: the same one each time, of any kind, crowded so that many overlap."""
    rng = np.random.default_rng(number)
    centre = tuple(int(CITY[k] + rng.integers(-SPAN_E7, SPAN_E7)) for k in (0, 1))
    properties = {"layer": f"l{number % 3}"} if number % 4 else {}
    if number % 3 == 0:
        return point(f"z{number}", centre[0] / 1e7, centre[1] / 1e7, 150, **properties)
    if number % 3 == 1:
        return feature(
            f"z{number}", [star(rng, centre, 25_000, 12)], buffer_m=20 * (number % 2), **properties
        )
    ends = [[centre[0] / 1e7, centre[1] / 1e7], [(centre[0] + 30_000) / 1e7, centre[1] / 1e7]]
    return line(f"z{number}", ends, 40, **properties)


rng = np.random.default_rng(3)
LON, LAT = (rng.integers(CITY[k] - SPAN_E7, CITY[k] + SPAN_E7, 400).astype(np.int32) for k in (0, 1))


def assert_equal(a: ZoneSet, b: ZoneSet) -> None:
    """Every question has the same answer."""
    assert a.ids == b.ids
    assert len(a) == len(b)
    assert {k: v.tolist() for k, v in a.layers.items()} == {k: v.tolist() for k, v in b.layers.items()}
    assert a.to_geojson() == b.to_geojson()
    assert [a.index(zone_id) for zone_id in b.ids] == list(range(len(b)))
    np.testing.assert_array_equal(a.covering_e7(LON, LAT), b.covering_e7(LON, LAT))
    for mine, other in zip(a.near(LON, LAT, 120_000), b.near(LON, LAT, 120_000), strict=True):
        np.testing.assert_array_equal(mine, other)
        assert mine.dtype == other.dtype
    tracks = (LON[:-1], LAT[:-1], LON[1:], LAT[1:])
    for mine, other in zip(a.crossing(*tracks), b.crossing(*tracks), strict=True):
        np.testing.assert_array_equal(mine, other)
        assert mine.dtype == other.dtype
    if len(b):
        zone = (np.arange(len(LON)) % len(b)).astype(np.int32)
        np.testing.assert_array_equal(a.distance_mm(LON, LAT, zone), b.distance_mm(LON, LAT, zone))


@st.composite
def histories(draw):
    """Steps: numbers of zones to add at once, or zones to take out, by their place at that time."""
    steps, there, fresh = [], [], 0
    for _ in range(draw(st.integers(1, 8))):
        if there and draw(st.booleans()):
            out = draw(st.lists(st.sampled_from(there), min_size=1, unique=True))
            steps.append(("out", out))
            there = [number for number in there if number not in out]
        else:
            count = draw(st.sampled_from([0, 1, 1, 1, 2, 7, 20]))
            again = draw(st.booleans())  # one that was there before may come back
            gone = [number for number in range(fresh) if number not in there]
            more = ([gone[0]] if again and gone else []) + list(range(fresh, fresh + count))
            fresh += count
            steps.append(("in", more))
            there = there + more
    return steps, there


@settings(deadline=None, max_examples=60)
@given(histories(), st.integers(0, 12))
def test_a_set_is_its_zones_however_it_came_to_them(history, loaded):
    steps, there = history
    zones = ZoneSet.from_geojson(collection(*(shape(1000 + i) for i in range(loaded))))
    for kind, numbers in steps:
        if kind == "in":
            zones = zones.with_zones(collection(*map(shape, numbers)))
        else:
            zones = zones.without([f"z{number}" for number in numbers])
    want = collection(*(shape(1000 + i) for i in range(loaded)), *map(shape, there))
    assert_equal(zones, ZoneSet.from_geojson(want))


def test_a_set_answers_the_same_while_and_after_its_parts_are_joined():
    start = ZoneSet.from_geojson(collection(*(shape(1000 + i) for i in range(40))))
    zones, older = start, []
    for number in range(20 * MANY_PARTS):
        zones = zones.with_zones(shape(number))
        older.append(zones)
    zones._lineage.wait()
    bulk = ZoneSet.from_geojson(
        collection(*(shape(1000 + i) for i in range(40)), *map(shape, range(20 * MANY_PARTS)))
    )
    assert_equal(zones.with_zones(shape(5000)).without(["z5000"]), bulk)
    for kept in (0, 7, 100, 20 * MANY_PARTS - 2):
        assert_equal(older[kept], bulk.select(np.arange(41 + kept)))
    assert len(start) == 40
    for number in range(5001, 5004):  # joining was asked for while it was under way: it catches up
        zones = zones.with_zones(shape(number))
        zones._lineage.wait()
    assert len(zones.with_zones(shape(5004))._parts.parts) <= MANY_PARTS


def test_a_part_that_lost_most_of_its_zones_is_built_anew():
    zones = ZoneSet.from_geojson(collection(*map(shape, range(60))))
    less = zones.without([f"z{number}" for number in range(50)])
    less._lineage.wait()
    assert_equal(less, ZoneSet.from_geojson(collection(*map(shape, range(50, 60)))))
    assert not len(less._parts.parts[0].gone)
    assert_equal(zones, ZoneSet.from_geojson(collection(*map(shape, range(60)))))


def test_readers_of_a_set_are_right_while_others_change_it():
    zones = ZoneSet.from_geojson(collection(*map(shape, range(100))))
    want, wrong, stop = zones.covering_e7(LON, LAT), [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            if not np.array_equal(zones.covering_e7(LON, LAT), want):
                wrong.append(1)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    grown = zones
    for number in range(100, 220):
        grown = grown.with_zones(shape(number)).without([f"z{number - 100}"])
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert_equal(grown, ZoneSet.from_geojson(collection(*map(shape, range(120, 220)))))


def test_what_is_there_is_shared():
    """Neither the zones nor the index of the set that grows are copied or built again."""
    zones = ZoneSet.from_geojson(collection(*map(shape, range(100))))
    zones.covering_e7(LON, LAT)
    more, less = zones.with_zones(shape(100)), zones.without(["z3"])
    assert more._parts.parts[0] is zones._parts.parts[0]
    assert less._parts.parts[0].block is zones._parts.parts[0].block


def test_an_id_that_was_taken_out_is_free_and_one_that_is_there_is_not():
    zones = ZoneSet.from_geojson(collection(*map(shape, range(20)))).with_zones(shape(20))
    for there in ("z3", "z20"):
        with pytest.raises(ZoneError, match="has a zone of this id already"):
            zones.with_zones(point(there, 1, 2, 50))
        again = zones.without([there]).with_zones(point(there, 1, 2, 50))
        assert again.ids[-1] == there
        with pytest.raises(KeyError, match=there):
            zones.without([there]).without([there])


def test_nothing_may_be_left():
    zones = ZoneSet.from_geojson(collection(*map(shape, range(3))))
    none = zones.without(zones.ids)
    assert_equal(none, ZoneSet.from_geojson(collection()))
    assert_equal(none.with_zones(shape(7)), ZoneSet.from_geojson(collection(shape(7))))
