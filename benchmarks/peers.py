"""Peers, each used in its best way; building their index is excluded, as ours is. All answer in (ping, zone)
pairs.

Each peer is a function of a work set that returns a function of no argument; that one is timed. A peer that
can't run here, or whose answer differs, is reported and not timed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numba import njit

from benchmarks.worksets import WorkSet

Query = Callable[[], np.ndarray]

BATCH = 250_000  # pings


def ours(work: WorkSet) -> Query:
    work.zones.covering_e7(work.lon_e7[:1], work.lat_e7[:1])
    return lambda: work.zones.covering_e7(work.lon_e7, work.lat_e7)


def ours_in_batches(work: WorkSet) -> Callable[[], int]:
    """The same as a stream is read: batch after batch, each answer let go before the next; gives the number
    of pairs. One answer for 10 million pings is 100 MB of fresh memory, and what the kernel of a virtual
    machine takes to hand that out was seen to vary between 1 and 15 ns a ping.
    """
    work.zones.covering_e7(work.lon_e7[:1], work.lat_e7[:1])

    def query() -> int:
        pairs = 0
        for at in range(0, len(work.lon_e7), BATCH):
            part = slice(at, at + BATCH)
            pairs += work.zones.covering_e7(work.lon_e7[part], work.lat_e7[part]).shape[1]
        return pairs

    return query


def strtree_of_zones(work: WorkSet) -> Query:
    """A tree of the zones, asked with all points at once; GEOS prepares each zone."""
    points = shapely.points(work.lon_e7.astype(float), work.lat_e7.astype(float))
    tree = shapely.STRtree(work.shapes)
    shapely.prepare(work.shapes)
    return lambda: _sorted(*tree.query(points, predicate="intersects"))


def strtree_of_pings(work: WorkSet) -> Query:
    """A tree of the points, asked with all zones at once, which GEOS prepares."""
    points = shapely.points(work.lon_e7.astype(float), work.lat_e7.astype(float))
    tree = shapely.STRtree(points)
    shapely.prepare(work.shapes)

    def query() -> np.ndarray:
        zone, ping = tree.query(work.shapes, predicate="intersects")
        return _sorted(ping, zone)

    return query


def contains_xy(work: WorkSet) -> Query:
    """shapely.intersects_xy of each prepared zone with the pings in its box."""
    x, y = work.lon_e7.astype(float), work.lat_e7.astype(float)
    shapely.prepare(work.shapes)
    boxes = shapely.bounds(work.shapes)

    def query() -> np.ndarray:
        found = []
        for z, shape in enumerate(work.shapes):
            w, s, e, n = boxes[z]
            near = np.flatnonzero((x >= w) & (x <= e) & (y >= s) & (y <= n))
            hit = near[shapely.intersects_xy(shape, x[near], y[near])]
            found.append(np.stack([hit, np.full(len(hit), z)]))
        return _sorted(*np.concatenate(found, axis=1))

    return query


def geopandas_sjoin(work: WorkSet) -> Query:
    import geopandas

    points = geopandas.GeoDataFrame(
        geometry=geopandas.points_from_xy(work.lon_e7.astype(float), work.lat_e7.astype(float))
    )
    zones = geopandas.GeoDataFrame(geometry=work.shapes)
    zones.sindex  # noqa: B018 - builds it

    def query() -> np.ndarray:
        joined = geopandas.sjoin(points, zones, predicate="intersects")
        return _sorted(joined.index.to_numpy(), joined["index_right"].to_numpy())

    return query


def duckdb_spatial(work: WorkSet) -> Query:
    import duckdb
    import pyarrow as pa

    base = duckdb.connect(config={"threads": 1, "allow_unsigned_extensions": "true"})
    from importlib.util import find_spec

    spec = find_spec("duckdb_extension_spatial")
    assert spec is not None, "duckdb-extension-spatial is not installed"
    assert spec.origin is not None
    extension = next(Path(spec.origin).parent.rglob("*.duckdb_extension"))
    base.execute(f"LOAD '{extension}'")
    pings = pa.table(
        {"i": np.arange(len(work.lon_e7)), "x": work.lon_e7.astype(float), "y": work.lat_e7.astype(float)}
    )
    zones = pa.table(
        {"z": np.arange(len(work.shapes)), "w": pa.array(list(shapely.to_wkb(work.shapes)), pa.binary())}
    )
    base.register("pings_", pings)
    base.register("zones_", zones)
    base.execute("CREATE TABLE p AS SELECT i, ST_Point(x, y) AS g FROM pings_")
    base.execute("CREATE TABLE t AS SELECT z, ST_GeomFromWKB(w) AS g FROM zones_")

    def query() -> np.ndarray:
        found = base.execute("SELECT p.i, t.z FROM p JOIN t ON ST_Intersects(t.g, p.g)").fetchnumpy()
        return _sorted(np.asarray(found["i"]), np.asarray(found["z"]))

    return query


def sedona(work: WorkSet) -> Query:
    import pyarrow as pa
    import sedonadb

    db = sedonadb.connect()
    points = shapely.to_wkb(shapely.points(work.lon_e7.astype(float), work.lat_e7.astype(float)))
    for name, wkb in (("p", points), ("t", shapely.to_wkb(work.shapes))):
        table = pa.table({"i": np.arange(len(wkb)), "w": pa.array(list(wkb), pa.binary())})
        db.create_data_frame(table).to_view("raw_" + name, overwrite=True)
        shaped = db.sql(f"SELECT i, ST_GeomFromWKB(w) AS g FROM raw_{name}")
        shaped.to_memtable().to_view(name, overwrite=True)

    def query() -> np.ndarray:
        found = pa.table(db.sql("SELECT p.i AS i, t.i AS z FROM p JOIN t ON ST_Intersects(t.g, p.g)"))
        return _sorted(found["i"].to_numpy(), found["z"].to_numpy())

    return query


def togo_calls(work: WorkSet) -> Query:
    """tg, the fastest point in polygon test that we know, through togo. It has no bulk call, so this is one
    call from Python for each ping and zone whose boxes meet, which a tree finds.
    """
    import togo

    togo.set_polygon_indexing_mode(togo.TGIndex.YSTRIPES)
    zones = [togo.from_wkb(wkb) for wkb in shapely.to_wkb(work.shapes)]
    x, y = work.lon_e7.astype(float), work.lat_e7.astype(float)
    points = [togo.Point(a, b).as_geometry() for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    tree, at = shapely.STRtree(work.shapes), shapely.points(x, y)

    def query() -> np.ndarray:
        ping, zone = tree.query(at)
        hit = np.array(
            [zones[z].intersects(points[p]) for p, z in zip(ping.tolist(), zone.tolist(), strict=True)], bool
        )
        return _sorted(ping[hit], zone[hit])

    return query


def postgis(work: WorkSet) -> Query:
    """PostGIS in a server of its own, in memory as far as it goes: a GiST index on the zones, one query for
    all pings, no parallel workers. The clock is the processor time of its session.
    """
    from benchmarks.postgis import Server

    server = Server()
    server.load(work.shapes, work.lon_e7, work.lat_e7)

    def query() -> np.ndarray:
        return _sorted(*server.pairs())

    query.cpu_s = server.cpu_s  # type: ignore[attr-defined]
    return query


def numba_loop(work: WorkSet) -> Query:
    """What one writes first: for each ping, each zone's box, then its edges; exact on the same integers."""
    columns = work.zones.whole.columns  # the same edges
    boxes = columns.boxes
    _loop(work.lon_e7[:1], work.lat_e7[:1], columns.edges, columns.zone_edge, boxes)
    return lambda: _loop(work.lon_e7, work.lat_e7, columns.edges, columns.zone_edge, boxes)


@njit
def _loop(lon_e7: Any, lat_e7: Any, edges: Any, zone_edge: Any, boxes: Any) -> Any:
    found = np.empty((2, 4 * len(lon_e7) + 16), np.int64)
    used = 0
    for i in range(len(lon_e7)):
        x = np.int64(lon_e7[i])
        y = np.int64(lat_e7[i])
        for z in range(len(zone_edge) - 1):
            if x < boxes[z, 0] or x > boxes[z, 2] or y < boxes[z, 1] or y > boxes[z, 3]:
                continue
            inside = False
            for e in range(zone_edge[z], zone_edge[z + 1]):
                ax, ay, bx, by = (
                    np.int64(edges[e, 0]),
                    np.int64(edges[e, 1]),
                    np.int64(edges[e, 2]),
                    np.int64(edges[e, 3]),
                )
                left = (bx - ax) * (y - ay)
                right = (x - ax) * (by - ay)
                if left == right and min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by):
                    inside = True
                    break
                if (ay > y) != (by > y) and (left > right) == (by > ay):
                    inside = not inside
            if inside:
                found[0, used] = i
                found[1, used] = z
                used += 1
    return found[:, :used]


def _sorted(ping: np.ndarray, zone: np.ndarray) -> np.ndarray:
    """Pairs by ping, then zone, as ours come; sorting is part of the task, so it is timed."""
    order = np.lexsort([zone, ping])
    return np.stack([ping[order], zone[order]]).astype(np.int64)


PEERS: dict[str, Callable[[WorkSet], Query]] = {
    "shapely STRtree of zones": strtree_of_zones,
    "shapely STRtree of pings": strtree_of_pings,
    "shapely intersects_xy": contains_xy,
    "geopandas sjoin": geopandas_sjoin,
    "sedonadb": sedona,
    "DuckDB spatial": duckdb_spatial,
    "PostGIS": postgis,
    "togo (tg), a call a pair": togo_calls,
    "Numba loop": numba_loop,
}
