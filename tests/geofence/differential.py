"""Covering against shapely and against integers, for as long as one likes.

``make differential`` compares 100 million pairs of ping and zone (``--pairs`` says how many) and prints what
it found; the first disagreement ends it, with the seed that shows it. A bounded run is one of the tests.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely

from geofence import ZoneSet
from tests import naive
from tests.geofence.zone_shapes import (
    box,
    close,
    collection,
    comb,
    feature,
    spiral,
    star,
    telling_positions,
    with_holes,
)

SIZES_E7 = (3, 40, 900, 3_000, 50_000, 2_000_000, 90_000_000, 300_000_000)
SAMPLE = 60  # positions of a round that are compared with integers as well
MAX_LON_E7, MAX_LAT_E7 = 1_790_000_000, 890_000_000


@dataclass
class Count:
    """What was compared."""

    pairs: int = 0
    inside: int = 0
    by_integers: int = 0
    zones: int = 0
    rounds: int = 0


class Disagreement(AssertionError):
    """An answer that differs from an oracle's."""


def polygons_of(rng: np.random.Generator) -> list[list]:
    """A dozen polygons around one place, of all kinds and sizes, many of them overlapping or touching."""
    size = int(rng.choice(SIZES_E7))
    span = min(4 * size + 10, 200_000_000)
    place = np.array([rng.integers(-MAX_LON_E7 + span, MAX_LON_E7 - span), 0])
    place[1] = rng.integers(-MAX_LAT_E7 + min(span, 300_000_000), MAX_LAT_E7 - min(span, 300_000_000))
    found = []
    for kind in range(12):
        x, y = (int(v) for v in place + rng.integers(-size - 2, size + 3, 2))
        s = max(2, int(size * rng.uniform(0.2, 1.0)))
        makers: list[Callable[[], list]] = [
            lambda x=x, y=y, s=s: [star(rng, (x, y), s, int(rng.integers(3, 12)))],
            lambda x=x, y=y, s=s: [star(rng, (x, y), s, int(rng.integers(50, 600)))],
            lambda x=x, y=y, s=s: [comb((x, y), s, int(rng.integers(1, 9)))],
            lambda x=x, y=y, s=s: [spiral((x, y), s, int(rng.integers(1, 5)))],
            lambda x=x, y=y, s=s: [with_holes((x, y), s)],
            lambda x=x, y=y, s=s: [[box(x, y, x + s, y + s)], [box(x + s, y + s, x + 2 * s, y + 2 * s)]],
            lambda x=x, y=y, s=s: [[box(x, y, x + s, y + 1)]],  # thinner than any cell
            lambda x=x, y=y, s=s: [[close([(x, y), (x + s, y + 1), (x + s, y + 2)])]],
        ]
        polygons = makers[kind % len(makers)]()
        vertices = np.array([p for rings in polygons for ring in rings for p in ring])
        in_range = (np.abs(vertices) <= (MAX_LON_E7, MAX_LAT_E7)).all()
        distinct = all(len(set(ring)) == len(ring) - 1 for rings in polygons for ring in rings)
        if in_range and distinct and shapely.is_valid(shape_of(polygons)):
            found.append(polygons)
    return found


def shape_of(polygons: list) -> shapely.MultiPolygon:
    """The polygons as shapely has them, on the grid."""
    return shapely.multipolygons([shapely.Polygon(rings[0], rings[1:]) for rings in polygons])


def compare(seed: int, positions: int, count: Count) -> None:
    """One round; raises Disagreement."""
    rng = np.random.default_rng(seed)
    polygons = polygons_of(rng)
    if not polygons:
        return
    zones = ZoneSet.from_geojson(collection(*(feature(f"z{i}", p) for i, p in enumerate(polygons))))
    each = max(1, positions // (7 * len(polygons)))
    xs, ys = zip(*(telling_positions(rng, p, each) for p in polygons), strict=True)
    x, y = corners_too(rng, zones, np.concatenate(xs), np.concatenate(ys))
    found = np.zeros((len(polygons), len(x)), np.bool_)
    ping, zone = zones.covering_e7(x, y)
    found[zone, ping] = True
    for z, polygon in enumerate(polygons):
        shape = shape_of(polygon)
        shapely.prepare(shape)
        want = shapely.intersects_xy(shape, x.astype(np.float64), y.astype(np.float64))
        if not np.array_equal(found[z], want):
            i = int(np.flatnonzero(found[z] != want)[0])
            raise Disagreement(f"seed {seed}: zone {z}, position {x[i]}, {y[i]}: shapely says {want[i]}")
    for i in rng.choice(len(x), min(SAMPLE, len(x)), replace=False):
        for z, polygon in enumerate(polygons):
            want = naive.covers(polygon, (int(x[i]), int(y[i])))
            if found[z, i] != want:
                raise Disagreement(f"seed {seed}: zone {z}, position {x[i]}, {y[i]}: integers say {want}")
            count.by_integers += 1
    count.pairs += found.size
    count.inside += int(found.sum())
    count.zones += len(polygons)
    count.rounds += 1


def corners_too(
    rng: np.random.Generator, zones: ZoneSet, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The positions, and a seventh as many corners of the index's cells, or places beside them."""
    kx, ky, col0, row0, cols, rows = zones.whole.index.grid
    n = len(x) // 7 + 1
    more_x = ((col0 + rng.integers(0, cols + 1, n)) << kx) + rng.integers(-1, 2, n)
    more_y = ((row0 + rng.integers(0, rows + 1, n)) << ky) + rng.integers(-1, 2, n)
    ok = (np.abs(more_x) < MAX_LON_E7) & (np.abs(more_y) < MAX_LAT_E7)
    return np.append(x, more_x[ok]).astype(np.int32), np.append(y, more_y[ok]).astype(np.int32)


def run(pairs: int, seed: int, positions: int = 20_000, say: Callable[[Count], None] | None = None) -> Count:
    """Rounds until so many pairs were compared."""
    count = Count()
    while count.pairs < pairs:
        compare(seed, positions, count)
        seed += 1
        if say is not None:
            say(count)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.geofence.differential", description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began_s, told_s = time.monotonic(), 0.0

    def say(count: Count) -> None:
        nonlocal told_s
        spent_s = time.monotonic() - began_s
        if spent_s - told_s > 1.0:
            told_s = spent_s
            left_s = spent_s * (options.pairs / max(1, count.pairs) - 1)
            print(
                f"\r{count.pairs:,} of {options.pairs:,} pairs, {left_s:,.0f} s left   ",
                end="",
                file=sys.stderr,
            )

    try:
        count = run(options.pairs, options.seed, say=say)
    except Disagreement as problem:
        sys.exit(f"\n{problem}")
    print(
        f"\n{count.pairs:,} pairs ({count.inside:,} inside) of {count.zones:,} polygons in {count.rounds:,} "
        f"rounds from seed {options.seed}: shapely {shapely.__version__} agrees with all of them, integers "
        f"with all {count.by_integers:,} that they were asked; {time.monotonic() - began_s:,.0f} s"
    )


if __name__ == "__main__":
    main()
