"""covering and near against the peers, in one run, on one core."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import shapely

from benchmarks import peers, worksets
from benchmarks.worksets import WorkSet

SEED = 20_261_124


def run(ours_n: int, peers_n: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of a table: work set, who, seconds and rates; a peer whose answer differs from ours has no
    time. ours_n, peers_n: pings for us and for the peers.
    """
    rows = []
    rows += _covering(worksets.city(SEED, ours_n), peers_n, rounds)
    rows += _covering(worksets.counties(SEED, ours_n), peers_n, rounds)
    # Half a millisecond a ping in GEOS: the same rate on fewer of them.
    rows += _covering(worksets.one_coast(SEED, ours_n), peers_n // 20, rounds)
    rows += _covering(worksets.wild_city(SEED, ours_n), peers_n, rounds)
    rows += _covering(worksets.one_burst(SEED, ours_n), peers_n // 20, rounds)
    real = worksets.charlotte(SEED, ours_n)
    if real is not None:
        rows += _covering(real, peers_n, rounds)
    rows += _near(worksets.city(SEED, ours_n // 4), peers_n // 4, rounds=rounds)
    return rows


def _covering(work: WorkSet, peers_n: int, rounds: int) -> list[dict[str, Any]]:
    """Peers get the first ``peers_n`` pings (their time grows in proportion), we get them all and the same
    ones.
    """
    small = WorkSet(work.name, work.zones, work.shapes, work.lon_e7[:peers_n], work.lat_e7[:peers_n])
    want = peers.ours(small)()
    queries: dict[str, tuple[Callable[[], Any], int]] = {
        "ringfence": (peers.ours_in_batches(work), len(work.lon_e7))
    }
    rows = []
    for name, make in peers.PEERS.items():
        n = peers_n
        if name == "Numba loop":  # looks at every edge: the same rate on fewer pings, within minutes
            n = min(n, max(200, 200_000_000 // len(work.zones.whole.columns.edges)))
        part = WorkSet(work.name, work.zones, work.shapes, small.lon_e7[:n], small.lat_e7[:n])
        print(f"{work.name}: {name}", file=sys.stderr)
        try:
            query = make(part)
            answer = query()
        except Exception as exc:  # noqa: BLE001 - a peer that can't run is reported, whatever its reason
            rows.append(
                {"set": work.name, "who": name, "note": f"not run: {type(exc).__name__}: {str(exc)[:90]}"}
            )
            continue
        expected = want[:, want[0] < n]
        if not np.array_equal(answer, expected):
            rows.append(
                {
                    "set": work.name,
                    "who": name,
                    "note": f"{answer.shape[1]} pairs, ours {expected.shape[1]}: not timed",
                }
            )
            continue
        queries[name] = (query, n)
    return _timed(work.name, queries, rounds) + rows


def _near(work: WorkSet, peers_n: int, rounds: int) -> list[dict[str, Any]]:
    """Pairs within 200 m and their signed distances, from shapely in its best way: a tree of the pings,
    prepared zones and borders, all made before the clock starts. It measures on a plane in metres; where more
    than one pair in a hundred is another or 0.5 % and 0.5 m off, nothing is timed.
    """
    name = f"{work.name}, distances within 200 m"
    x, y = work.lon_e7, work.lat_e7
    lat = worksets.CITY_E7[1] / 1e7
    scale = np.array([111_320.0 * np.cos(np.radians(lat)) / 1e7, 110_950.0 / 1e7])
    shapes = shapely.transform(work.shapes, lambda c: (c - worksets.CITY_E7) * scale)
    at = (np.stack([x, y], axis=1)[:peers_n] - worksets.CITY_E7) * scale
    points = shapely.points(at)
    tree = shapely.STRtree(points)
    borders = shapely.boundary(shapes)
    shapely.prepare(shapes)
    shapely.prepare(borders)

    def peer() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        zone, ping = tree.query(shapes, predicate="dwithin", distance=200.0)
        distance = shapely.distance(borders[zone], points[ping])
        inside = shapely.intersects_xy(shapes[zone], at[ping, 0], at[ping, 1])
        return ping, zone, np.where(inside, -distance, distance)

    def mine() -> Any:
        return work.zones.near(x, y, 200_000)

    differ = _differences(peer(), work.zones.near(x[:peers_n], y[:peers_n], 200_000), len(shapes))
    if differ > 0.01:
        return [{"set": name, "who": "shapely dwithin + distance", "note": f"{differ:.1%} differ: not timed"}]
    return _timed(name, {"ringfence": (mine, len(x)), "shapely dwithin + distance": (peer, peers_n)}, rounds)


def _differences(theirs: Any, ours: Any, n_zones: int) -> float:
    """The share of pairs that only one side found, or whose distances differ by more than 0.5 % and 0.5 m."""
    their_pair, our_pair = (side[0].astype(np.int64) * n_zones + side[1] for side in (theirs, ours))
    common, at_theirs, at_ours = np.intersect1d(their_pair, our_pair, return_indices=True)
    their_m, our_m = theirs[2][at_theirs], ours[2][at_ours] / 1000.0
    far = np.count_nonzero(np.abs(their_m - our_m) > 0.5 + 0.005 * np.abs(our_m))
    return float(len(theirs[0]) + len(ours[0]) - 2 * len(common) + far) / max(len(common), 1)


def _timed(name: str, queries: dict[str, tuple[Callable[[], Any], int]], rounds: int) -> list[dict[str, Any]]:
    """Seconds of processor time, rounds interleaved, so that a disturbance hits all alike."""
    seconds: dict[str, list[float]] = {who: [] for who in queries}
    for _ in range(rounds):
        for who, (query, _) in queries.items():
            gc.collect()
            clock = getattr(query, "cpu_s", time.process_time)  # that of a server elsewhere, for PostGIS
            begun = clock()
            query()
            seconds[who].append(clock() - begun)
    rows = []
    best = min(
        (statistics.median(s) / queries[who][1] for who, s in seconds.items() if who != "ringfence"),
        default=None,
    )
    for who, taken in seconds.items():
        n = queries[who][1]
        middle = statistics.median(taken)
        row: dict[str, Any] = {
            "set": name,
            "who": who,
            "pings": n,
            "median_s": middle,
            "low_s": min(taken),
            "high_s": max(taken),
            "mpings_per_s": n / middle / 1e6,
        }
        if who == "ringfence" and best is not None:
            row["times_best_peer"] = best / (middle / n)
        rows.append(row)
    return rows
