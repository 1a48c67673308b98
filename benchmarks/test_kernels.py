"""The zone kernels one by one, for pytest-benchmark: ``python -m pytest benchmarks --benchmark-enable``."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.worksets import city
from geofence import ZoneSet


@pytest.fixture(scope="module")
def work():
    made = city(1, 200_000)
    made.zones.covering_e7(made.lon_e7[:1], made.lat_e7[:1])
    made.zones.near(made.lon_e7[:1], made.lat_e7[:1], 200_000)
    return made


def test_covering(benchmark, work):
    found = benchmark(work.zones.covering_e7, work.lon_e7, work.lat_e7)
    assert found.shape[1] > 10_000


def test_near(benchmark, work):
    ping, _, _ = benchmark(work.zones.near, work.lon_e7, work.lat_e7, 200_000)
    assert len(ping) > 10_000


def test_distances_of_pairs(benchmark, work):
    zone = (np.arange(len(work.lon_e7)) % len(work.zones)).astype(np.int32)
    found = benchmark(work.zones.distance_mm, work.lon_e7[:20_000], work.lat_e7[:20_000], zone[:20_000])
    assert len(found) == 20_000


def test_crossing(benchmark, work):
    x, y = work.lon_e7[:20_000], work.lat_e7[:20_000]
    track, _ = benchmark(work.zones.crossing, x, y, x + np.int32(5_000), y + np.int32(3_000))
    assert len(track) > 1_000


def test_building_the_index(benchmark, work):
    every = np.arange(len(work.zones))

    def build() -> ZoneSet:
        zones = work.zones.select(every)
        zones.covering_e7(work.lon_e7[:1], work.lat_e7[:1])
        return zones

    assert len(benchmark(build)) == len(work.zones)
