"""A bounded run of the long comparison; ``make differential`` is the long one."""

from __future__ import annotations

from tests.geofence import differential


def test_two_million_pairs_agree_with_shapely_and_with_integers():
    count = differential.run(2_000_000, seed=1, positions=6_000)
    assert count.inside > count.pairs // 50
    assert count.by_integers > 10_000
    assert count.zones > 100
